"""Whom a token lets in, and which tokens are none."""

import base64
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.auth import Principal, jwk_of
from holdfast.clock import ManualClock
from holdfast.errors import Denied
from tests.unit.kernel.auth.signing import (
    JWK,
    KEY,
    OTHER_KEY,
    SECOND,
    answer_to,
    claims,
    public_der,
    refusal,
    signed,
    token,
    verifier,
)


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
