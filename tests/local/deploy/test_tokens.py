import base64
import json
from datetime import timedelta

import pytest

from holdfast.auth import Verifier, read_keys_parameter, read_revocations_table
from holdfast.clock import ManualClock, SystemClock
from stacks import DeployFailed, Unusable, deploy, tokens
from stacks.tokens import CURSOR_KEY_PARAMETER, JWKS_PARAMETER, TTL_SECONDS_MAX
from tests.local.deploy.conftest import Account

SCOPES = ["audit:read"]


@pytest.fixture
def base(account: Account) -> Account:
    """The shared stacks alone: what signs, and what revokes."""
    deploy.deploy(account.target, [], account.steps, home=account.home, root=account.root)
    return account


def parameter(account: Account, name: str) -> dict[str, object]:
    found: dict[str, object] = account.target.client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]
    return found


def revoked(account: Account) -> frozenset[str]:
    return read_revocations_table(account.target.client("dynamodb"), tokens.REVOCATIONS_TABLE)


class NothingRevoked:
    def is_revoked(self, jti: str) -> bool:
        return False


def test_a_token_is_verified_with_what_was_published(base: Account):
    token = tokens.create_token(base.target, "acme", "ann", ["audit:read", "audit:append"])

    keys = read_keys_parameter(base.target.client("ssm"), JWKS_PARAMETER)
    principal = Verifier(lambda: keys, NothingRevoked(), SystemClock()).authenticate(f"Bearer {token}")

    assert (principal.tenant, principal.subject) == ("acme", "ann")
    assert principal.scopes == {"audit:read", "audit:append"}


def test_publishing_again_writes_nothing(base: Account):
    before = [parameter(base, name) for name in (JWKS_PARAMETER, CURSOR_KEY_PARAMETER)]

    tokens.publish_keys(base.target)

    after = [parameter(base, name) for name in (JWKS_PARAMETER, CURSOR_KEY_PARAMETER)]
    assert [each["Value"] for each in after] == [each["Value"] for each in before]
    assert [each["Version"] for each in after] == [1, 1]


def test_the_cursor_key_is_secret_and_thirty_two_bytes_long(base: Account):
    found = parameter(base, CURSOR_KEY_PARAMETER)

    assert found["Type"] == "SecureString"
    assert len(base64.b64decode(str(found["Value"]), validate=True)) == 32


def test_the_public_key_names_itself_by_its_thumbprint_and_holds_nothing_private(base: Account):
    [key] = json.loads(str(parameter(base, JWKS_PARAMETER)["Value"]))["keys"]

    assert key.keys() == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def test_a_revoked_token_is_on_the_list_until_it_would_have_expired(base: Account):
    clock = ManualClock()
    token = tokens.create_token(base.target, "acme", "ann", SCOPES, 60, clock=clock)

    jti = tokens.revoke_token(base.target, token, clock=clock)

    assert revoked(base) == {jti}
    row = base.target.client("dynamodb").scan(TableName=tokens.REVOCATIONS_TABLE)["Items"][0]
    assert int(row["expires"]["N"]) == int((clock.now() + timedelta(seconds=60)).timestamp())


def test_a_token_is_revoked_by_its_id_too_for_as_long_as_any_token_lives(base: Account):
    clock = ManualClock()

    assert tokens.revoke_token(base.target, " some-id\n", clock=clock) == "some-id"

    row = base.target.client("dynamodb").scan(TableName=tokens.REVOCATIONS_TABLE)["Items"][0]
    assert int(row["expires"]["N"]) == int(clock.now().timestamp()) + TTL_SECONDS_MAX


def test_revoking_again_is_the_same(base: Account):
    token = tokens.create_token(base.target, "acme", "ann", SCOPES)

    assert tokens.revoke_token(base.target, token) == tokens.revoke_token(base.target, token)
    assert len(revoked(base)) == 1


def test_where_nothing_is_deployed_the_next_command_is_named(account: Account):
    with pytest.raises(DeployFailed, match="holdfast up"):
        tokens.create_token(account.target, "acme", "ann", SCOPES)
    with pytest.raises(DeployFailed, match="holdfast up"):
        tokens.revoke_token(account.target, "some-id")


def test_nothing_is_signed_for_an_unusable_request(base: Account):
    with pytest.raises(Unusable):
        tokens.create_token(base.target, "Not a tenant", "ann", SCOPES)
