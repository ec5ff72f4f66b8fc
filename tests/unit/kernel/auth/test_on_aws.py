"""Keys and revocations where they lie: a parameter and a table."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from holdfast import auth, aws
from holdfast.auth import jwk_of
from holdfast.clock import ManualClock
from holdfast.retry import deadline
from tests.unit.kernel.auth.signing import JWK, OTHER_KEY, SECOND, public_der, refusal, token


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    aws.client.cache_clear()
    with mock_aws():
        dynamodb = boto3.client("dynamodb")
        dynamodb.create_table(
            TableName="holdfast-base-revocations",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        boto3.client("ssm").put_parameter(
            Name="/holdfast/auth/jwks", Type="String", Value=json.dumps({"keys": [JWK, jwk_of(public_der(OTHER_KEY))]})
        )
        yield
    aws.client.cache_clear()


def revoke(jti: str, *, padding_bytes: int = 0) -> None:
    item: dict[str, Any] = {"pk": {"S": "R"}, "sk": {"S": jti}, "expires": {"N": "1"}, "p": {"S": "x" * padding_bytes}}
    boto3.client("dynamodb").put_item(TableName="holdfast-base-revocations", Item=item)


SETTINGS = {
    "HOLDFAST_JWKS_PARAMETER": "/holdfast/auth/jwks",
    "HOLDFAST_REVOCATIONS_TABLE": "holdfast-base-revocations",
}


@pytest.mark.usefixtures("account")
def test_the_settings_of_a_function_are_enough_to_verify(clock: ManualClock):
    checked = auth.verifier_from(SETTINGS, clock)
    assert checked.authenticate(f"Bearer {token(clock)}").subject == "ann"

    revoke("token-1")
    clock.advance(30 * SECOND)
    assert refusal(lambda: checked.authenticate(f"Bearer {token(clock)}")) == ("token_revoked", 401)


@pytest.mark.usefixtures("account")
def test_every_page_of_the_revocations_is_read():
    for number in range(6):
        revoke(f"token-{number}", padding_bytes=300_000)

    revoked = auth.read_revocations_table(boto3.client("dynamodb"), "holdfast-base-revocations")

    assert revoked == {f"token-{number}" for number in range(6)}


@pytest.mark.usefixtures("account")
def test_more_revocations_than_can_be_read_are_an_error_and_not_a_gap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auth, "REVOCATION_PAGES_MAX", 1)
    for number in range(6):
        revoke(f"token-{number}", padding_bytes=300_000)

    with pytest.raises(RuntimeError, match="TTL"):
        auth.read_revocations_table(boto3.client("dynamodb"), "holdfast-base-revocations")


@pytest.mark.usefixtures("account")
def test_a_missing_parameter_makes_nobody_valid(clock: ManualClock):
    checked = auth.verifier_from({**SETTINGS, "HOLDFAST_JWKS_PARAMETER": "/none"}, clock)

    assert refusal(lambda: checked.authenticate(f"Bearer {token(clock)}")) == ("token_keys_unknown", 503)


@pytest.mark.usefixtures("account")
def test_a_request_makes_one_attempt_at_what_it_must_know():
    for service in ("ssm", "dynamodb"):
        assert aws.client(service).meta.config.retries["total_max_attempts"] == 1


@pytest.mark.usefixtures("account")
def test_behind_the_deadline_nothing_is_read(clock: ManualClock):
    with deadline(0, clock):
        for read in (
            lambda: auth.read_keys_parameter(boto3.client("ssm"), "/holdfast/auth/jwks"),
            lambda: auth.read_revocations_table(boto3.client("dynamodb"), "holdfast-base-revocations"),
        ):
            assert refusal(read) == ("out_of_time", 503)


class SlowPages:
    """The paginator of a table whose every page takes six seconds."""

    def __init__(self, clock: ManualClock, pages: int) -> None:
        self._clock = clock
        self._pages = pages
        self.read = 0

    def get_paginator(self, _: str) -> "SlowPages":
        return self

    def paginate(self, **_: object) -> Iterator[dict[str, Any]]:
        for left in reversed(range(self._pages)):
            self.read += 1
            self._clock.advance(6 * SECOND)
            yield {"Items": [{"sk": {"S": str(left)}}], **({"LastEvaluatedKey": {}} if left else {})}


def test_the_pages_of_the_revocations_keep_to_the_deadline(clock: ManualClock):
    long, short = SlowPages(clock, 8), SlowPages(clock, 4)

    with deadline(20, clock):
        assert refusal(lambda: auth.read_revocations_table(long, "t")) == ("out_of_time", 503)  # type: ignore[arg-type]
    assert long.read == 4
    with deadline(20, clock):
        assert len(auth.read_revocations_table(short, "t")) == 4  # type: ignore[arg-type]
