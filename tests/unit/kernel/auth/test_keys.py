"""The keys that tokens are signed with: read seldom, and trusted for a while."""

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.auth import jwk_of, thumbprint
from holdfast.clock import ManualClock
from tests.unit.kernel.auth.signing import JWK, KEY, OTHER_KEY, SECOND, Keys, public_der, refusal, token, verifier


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
