import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from moto import mock_aws

from holdfast import auth, aws
from holdfast.auth import Principal, RevocationList, Verifier, jwk_of, mint, new_claims, thumbprint
from holdfast.clock import ManualClock
from holdfast.errors import Denied, ServiceError
from holdfast.retry import deadline

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
SECOND = timedelta(seconds=1)


def public_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


JWK = jwk_of(public_der(KEY))


def sign(message: bytes) -> bytes:
    """Answer what KMS answers: a DER signature."""
    return KEY.sign(message, ec.ECDSA(hashes.SHA256()))


class KnownRevocations:
    def __init__(self, *revoked: str) -> None:
        self.revoked = revoked

    def is_revoked(self, jti: str) -> bool:
        return jti in self.revoked


class Keys:
    """Counts how often the parameter would be read."""

    def __init__(self, *jwks: dict[str, str]) -> None:
        self.jwks = list(jwks)
        self.reads = 0

    def __call__(self) -> list[dict[str, str]]:
        self.reads += 1
        return self.jwks


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 1, tzinfo=UTC))


def token(clock: ManualClock, *, kid: str = JWK["kid"], **changes: Any) -> str:
    stated: dict[str, Any] = {"tenant": "acme", "subject": "ann", "scopes": ["audit:read"], "jti": "token-1"}
    return mint(new_claims(**{**stated, "now": clock.now(), **changes}), sign, kid)


def signed(claims: dict[str, Any], key: Any = KEY, algorithm: str = "ES256", **header: Any) -> str:
    """Sign whatever claims, as somebody else's code would."""
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": JWK["kid"], **header})


def claims(clock: ManualClock, **changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(
        new_claims(tenant="acme", subject="ann", scopes=["audit:read"], jti="token-1", now=clock.now())
    )
    changed = {**plain, **changes}
    return {name: value for name, value in changed.items() if value is not ...}


def verifier(clock: ManualClock, *, keys: Keys | None = None, revoked: tuple[str, ...] = ()) -> Verifier:
    return Verifier(keys or Keys(JWK), KnownRevocations(*revoked), clock)


def refusal(call: Callable[[], object]) -> tuple[str, int]:
    with pytest.raises(ServiceError) as caught:
        call()
    return caught.value.code, caught.value.http_status


def answer_to(forged: str, clock: ManualClock) -> tuple[str, int]:
    return refusal(lambda: verifier(clock).authenticate(f"Bearer {forged}"))


# --- Tokens


def test_a_minted_token_names_its_principal(clock: ManualClock):
    born = int(clock.now().timestamp())
    principal = verifier(clock).authenticate(f"Bearer {token(clock)}")

    assert principal == Principal("acme", "ann", frozenset({"audit:read"}), "token-1", expires=born + 3_600)


def test_a_minted_token_is_a_jwt_that_others_can_verify(clock: ManualClock):
    minted = token(clock, ttl_seconds=60)

    assert jwt.get_unverified_header(minted) == {"alg": "ES256", "typ": "JWT", "kid": JWK["kid"]}
    decoded = jwt.decode(minted, KEY.public_key(), algorithms=["ES256"], options={"verify_exp": False})
    assert decoded["exp"] - decoded["iat"] == 60
    assert decoded["iss"] == "holdfast"


def test_the_scheme_knows_no_case_and_spaces_do_not_matter(clock: ManualClock):
    assert verifier(clock).authenticate(f" bearer  {token(clock)} ").tenant == "acme"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer  ", "Basic YTpi", "token"])
def test_a_missing_token_is_said_to_be_missing(clock: ManualClock, header: str | None):
    assert refusal(lambda: verifier(clock).authenticate(header)) == ("token_missing", 401)


@pytest.mark.parametrize(
    "junk", ["x", "a.b", "a.b.c", "a.b.c.d", "é.é.é", "..", "\x00", "x" * 9_000, "e30.e30.", "bnVsbA.e30.e30"]
)
def test_junk_is_no_token(clock: ManualClock, junk: str):
    assert answer_to(junk, clock) == ("token_invalid", 401)


@pytest.mark.parametrize(
    "header", ['{"alg":' + "[" * 4_000, '{"kid": ["list"], "alg": "ES256"}', "[]", '{"kid": %s}' % ("1" * 5_000), "{}"]
)
def test_a_hostile_header_is_only_ever_invalid(clock: ManualClock, header: str):
    forged = base64.urlsafe_b64encode(header.encode()).rstrip(b"=").decode() + ".e30.AAAA"

    assert answer_to(forged, clock) == ("token_invalid", 401)


def test_a_token_altered_anywhere_is_invalid(clock: ManualClock):
    header, payload, signature = token(clock).split(".")
    doctored = base64.urlsafe_b64encode(json.dumps(claims(clock, tenant="other")).encode()).rstrip(b"=").decode()

    for forged in (
        f"{header}.{doctored}.{signature}",
        f"{header}.{payload}.{signature[:-4]}AAAA",
        f"{header}.{payload}.",
    ):
        assert answer_to(forged, clock) == ("token_invalid", 401)


def test_a_token_of_another_algorithm_is_invalid_even_with_our_key_as_its_secret(clock: ManualClock):
    secret = base64.urlsafe_b64encode(public_der(KEY)).decode()
    rsa_like = signed(claims(clock), secret, algorithm="HS256")
    unsigned = jwt.encode(claims(clock), None, algorithm="none", headers={"kid": JWK["kid"]})  # type: ignore[arg-type]
    other_curve = signed(claims(clock), ec.generate_private_key(ec.SECP384R1()), algorithm="ES384")

    for forged in (rsa_like, unsigned, other_curve):
        assert answer_to(forged, clock) == ("token_invalid", 401)


@pytest.mark.parametrize("header", [{}, {"kid": "unknown"}, {"jwk": jwk_of(public_der(OTHER_KEY))}])
def test_a_token_signed_by_a_stranger_is_invalid_whatever_key_it_brings(clock: ManualClock, header: dict[str, Any]):
    forged = signed(claims(clock), OTHER_KEY, **header)

    assert answer_to(forged, clock) == ("token_invalid", 401)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "other"},
        {"iss": ...},
        {"tenant": ...},
        {"tenant": "Acme"},
        {"tenant": "a" * 41},
        {"tenant": "acme\n"},
        {"tenant": "a#b"},
        {"sub": ""},
        {"sub": ...},
        {"sub": "é" * 257},
        {"sub": "a\x00b"},
        {"sub": "a\n"},
        {"sub": "a\x7f"},
        {"sub": "a\x85b"},
        {"scopes": "audit:read"},
        {"scopes": ["everything"]},
        {"scopes": ...},
        {"jti": ...},
        {"exp": ...},
        {"exp": "tomorrow"},
        {"exp": 1e300},
        {"iat": ...},
    ],
)
def test_a_token_with_other_claims_than_ours_is_invalid(clock: ManualClock, changes: dict[str, Any]):
    assert answer_to(signed(claims(clock, **changes)), clock) == ("token_invalid", 401)


def test_a_subject_takes_up_to_512_bytes_of_any_text(clock: ManualClock):
    for subject in ("é" * 256, "Zoë O'Neil <zoe@example.org>", "服务"):
        assert verifier(clock).authenticate(f"Bearer {token(clock, subject=subject)}").subject == subject


def test_a_token_dies_at_its_second(clock: ManualClock):
    header = f"Bearer {token(clock, ttl_seconds=60)}"
    checked = verifier(clock)

    clock.advance(60 * SECOND - timedelta(microseconds=1))
    checked.authenticate(header)
    clock.advance(timedelta(microseconds=1))

    assert refusal(lambda: checked.authenticate(header)) == ("token_expired", 401)


def test_a_token_from_the_future_waits_for_its_minute(clock: ManualClock):
    early = ManualClock(clock.now() - 61 * SECOND)
    header = f"Bearer {token(clock)}"

    assert refusal(lambda: verifier(early).authenticate(header)) == ("token_invalid", 401)
    early.advance(SECOND)
    verifier(early).authenticate(header)


def test_a_revoked_token_is_refused(clock: ManualClock):
    assert refusal(lambda: verifier(clock, revoked=("token-1",)).authenticate(f"Bearer {token(clock)}")) == (
        "token_revoked",
        401,
    )


def test_one_of_several_scopes_suffices():
    principal = Principal("acme", "ann", frozenset({"audit:read"}), "token-1", expires=2**40)
    principal.require("audit:verify", "audit:read")

    with pytest.raises(Denied, match="the scope audit:verify or audit:append") as caught:
        principal.require("audit:verify", "audit:append")
    assert caught.value.facts == {"scope": "audit:verify"}


def test_a_missing_scope_is_named():
    principal = Principal("acme", "ann", frozenset({"audit:read"}), "token-1", expires=2**40)
    principal.require("audit:read")

    with pytest.raises(Denied) as caught:
        principal.require("audit:append")

    assert (caught.value.code, caught.value.http_status, caught.value.facts) == (
        "scope_missing",
        403,
        {"scope": "audit:append"},
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": "A"},
        {"scopes": ["all"]},
        {"subject": ""},
        {"subject": "é" * 257},
        {"ttl_seconds": 0},
        {"jti": "j" * 129},
    ],
)
def test_a_claim_that_no_verifier_would_take_is_not_minted(clock: ManualClock, changes: dict[str, Any]):
    with pytest.raises(ValueError, match=r"Expected|lives"):
        token(clock, **changes)


# --- Keys


def test_the_thumbprint_is_that_of_rfc_7638_for_elliptic_curves():
    # The EC key of RFC 7517, appendix A.1; `sha256sum` of its canonical JSON, in URL-safe base64.
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        "use": "enc",
    }

    assert thumbprint(jwk) == "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"


def test_a_jwk_gives_back_its_key():
    assert jwt.PyJWK(dict(JWK)).key.public_numbers() == KEY.public_key().public_numbers()
    assert (JWK["alg"], JWK["use"], JWK["kid"]) == ("ES256", "sig", thumbprint(JWK))


def test_a_key_on_another_curve_cannot_sign_tokens():
    with pytest.raises(ValueError, match="P-256"):
        jwk_of(public_der(ec.generate_private_key(ec.SECP384R1())))


def test_keys_are_read_once_and_for_an_unknown_kid_once_a_minute(clock: ManualClock):
    keys = Keys(JWK)
    checked = verifier(clock, keys=keys)
    for _ in range(3):
        checked.authenticate(f"Bearer {token(clock)}")
        refusal(lambda: checked.authenticate(f"Bearer {token(clock, kid='new')}"))
    assert keys.reads == 1

    clock.advance(60 * SECOND)
    keys.jwks.append({**JWK, "kid": "new"})
    checked.authenticate(f"Bearer {token(clock, kid='new')}")
    checked.authenticate(f"Bearer {token(clock)}")
    assert keys.reads == 2


class Away(Keys):
    """Keys that cannot always be read."""

    is_away = True

    def __call__(self) -> list[dict[str, str]]:
        found = super().__call__()
        if self.is_away:
            raise ConnectionError("away")
        return found


def test_keys_that_cannot_be_read_are_asked_for_again_but_not_by_every_request(clock: ManualClock):
    keys = Away(JWK)
    checked = verifier(clock, keys=keys)

    for _ in range(3):
        assert refusal(lambda: checked.authenticate(f"Bearer {token(clock)}")) == ("token_keys_unknown", 503)
    assert keys.reads == 1
    keys.is_away = False
    clock.advance(10 * SECOND)
    checked.authenticate(f"Bearer {token(clock)}")
    assert keys.reads == 2


def test_a_key_that_was_taken_out_is_trusted_for_ten_minutes_at_most(clock: ManualClock):
    keys = Keys(JWK)
    checked = verifier(clock, keys=keys)
    checked.authenticate(f"Bearer {token(clock)}")
    keys.jwks = [jwk_of(public_der(OTHER_KEY))]

    clock.advance(599 * SECOND)
    checked.authenticate(f"Bearer {token(clock)}")
    clock.advance(SECOND)
    assert refusal(lambda: checked.authenticate(f"Bearer {token(clock)}")) == ("token_invalid", 401)


def test_known_keys_serve_for_an_hour_while_they_cannot_be_read_and_then_nobody_enters(clock: ManualClock):
    keys = Away(JWK)
    keys.is_away = False
    checked = verifier(clock, keys=keys)
    checked.authenticate(f"Bearer {token(clock)}")
    keys.is_away = True

    clock.advance(3_600 * SECOND)
    checked.authenticate(f"Bearer {token(clock)}")
    clock.advance(SECOND)
    assert refusal(lambda: checked.authenticate(f"Bearer {token(clock)}")) == ("token_keys_unknown", 503)

    keys.is_away = False
    clock.advance(10 * SECOND)
    checked.authenticate(f"Bearer {token(clock)}")


def test_an_unknown_key_that_cannot_be_looked_up_is_not_called_invalid(clock: ManualClock):
    keys = Away(JWK)
    keys.is_away = False
    checked = verifier(clock, keys=keys)
    checked.authenticate(f"Bearer {token(clock)}")
    keys.is_away = True
    clock.advance(61 * SECOND)

    assert refusal(lambda: checked.authenticate(f"Bearer {token(clock, kid='new')}")) == ("token_keys_unknown", 503)
    checked.authenticate(f"Bearer {token(clock)}")


@pytest.mark.parametrize("jump_seconds", [-86_400, 86_400])
def test_a_clock_that_jumps_does_not_keep_keys_young(clock: ManualClock, jump_seconds: int):
    keys = Keys(JWK)
    checked = verifier(clock, keys=keys)
    checked.authenticate(f"Bearer {token(clock)}")
    keys.jwks = []

    clock.jump(jump_seconds * SECOND)
    clock.advance(600 * SECOND)

    assert refusal(lambda: checked.authenticate(f"Bearer {token(clock)}")) == ("token_invalid", 401)


@pytest.mark.parametrize(
    "malformed", [{}, {"kid": "x"}, {**JWK, "kid": ["x"]}, {**JWK, "x": "!!"}, {**JWK, "crv": "P-384"}, "key"]
)
def test_a_malformed_key_leaves_the_keys_unknown(clock: ManualClock, malformed: Any):
    keys = Keys(JWK, malformed)

    assert refusal(lambda: verifier(clock, keys=keys).authenticate(f"Bearer {token(clock)}")) == (
        "token_keys_unknown",
        503,
    )


def test_what_kept_the_keys_from_being_read_is_logged(clock: ManualClock, capsys: pytest.CaptureFixture[str]):
    refusal(lambda: verifier(clock, keys=Away(JWK)).authenticate(f"Bearer {token(clock)}"))

    [line] = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert line["level"] == "WARNING"
    assert line["message"] == "The keys that sign tokens could not be read."
    assert "ConnectionError: away" in line["exception"]


# --- Revocations


class Table:
    """A table of revocations that can be away."""

    def __init__(self) -> None:
        self.revoked: frozenset[str] = frozenset()
        self.is_away = False
        self.reads = 0

    def __call__(self) -> frozenset[str]:
        self.reads += 1
        if self.is_away:
            raise ConnectionError("away")
        return self.revoked


def test_a_revocation_is_known_within_half_a_minute(clock: ManualClock):
    table = Table()
    revocations = RevocationList(table, clock)
    assert not revocations.is_revoked("t")

    table.revoked = frozenset({"t"})
    clock.advance(29 * SECOND)
    assert not revocations.is_revoked("t")
    clock.advance(1 * SECOND)
    assert revocations.is_revoked("t")
    assert table.reads == 2


def test_an_old_list_serves_for_a_minute_and_then_nobody_enters(clock: ManualClock):
    table = Table()
    revocations = RevocationList(table, clock)
    revocations.is_revoked("t")
    table.is_away = True

    clock.advance(60 * SECOND)
    assert not revocations.is_revoked("t")
    clock.advance(1 * SECOND)
    assert refusal(lambda: revocations.is_revoked("t")) == ("revocations_unknown", 503)

    table.is_away = False
    clock.advance(9 * SECOND)
    assert not revocations.is_revoked("t")


def test_nobody_enters_before_the_list_was_read(clock: ManualClock):
    table = Table()
    table.is_away = True

    assert refusal(lambda: RevocationList(table, clock).is_revoked("t")) == ("revocations_unknown", 503)


def test_not_every_request_waits_for_a_table_that_is_away(clock: ManualClock):
    table = Table()
    table.is_away = True
    revocations = RevocationList(table, clock)

    for _ in range(10):
        refusal(lambda: revocations.is_revoked("t"))
    clock.advance(9 * SECOND)
    refusal(lambda: revocations.is_revoked("t"))
    assert table.reads == 1
    clock.advance(SECOND)
    refusal(lambda: revocations.is_revoked("t"))
    assert table.reads == 2


@pytest.mark.parametrize("jump_seconds", [-3_600, 3_600])
def test_a_clock_that_jumps_does_not_keep_a_list_young(clock: ManualClock, jump_seconds: int):
    table = Table()
    revocations = RevocationList(table, clock)
    revocations.is_revoked("t")
    table.revoked = frozenset({"t"})

    clock.jump(jump_seconds * SECOND)
    clock.advance(30 * SECOND)

    assert revocations.is_revoked("t")


def test_a_list_is_as_old_as_the_question_that_got_it(clock: ManualClock):
    def slow() -> frozenset[str]:
        clock.advance(29 * SECOND)
        return frozenset({str(clock.monotonic())})

    revocations = RevocationList(slow, clock)
    revocations.is_revoked("t")
    clock.advance(SECOND)

    assert revocations.is_revoked("59.0")


# --- On AWS


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
