"""A key that signs tokens as KMS does, tokens good and bad, and a verifier whose keys and revocations a test sets."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from holdfast.auth import Verifier, jwk_of, mint, new_claims
from holdfast.clock import ManualClock
from holdfast.errors import ServiceError

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
