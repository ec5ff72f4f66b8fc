"""The key that signs: ECDSA on P-256 with SHA-256, in KMS, or in this process's memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final, Protocol

from holdfast.auth import jwk_of
from holdfast.kms import KmsKey

MESSAGE_BYTES_MAX: Final = 4_096
"""What KMS signs as it is; a statement has a few hundred bytes."""


class Signer(Protocol):
    """One key pair."""

    @property
    def public_key(self) -> bytes:
        """The public key, as DER (SubjectPublicKeyInfo)."""

    def sign(self, message: bytes) -> bytes:
        """
        Sign *message*; the signature is DER. Repeating is safe: each signature is good, and no two are alike.

        Raises:
            Unavailable: the key could not be asked.
        """


def key_id_of(signer: Signer) -> str:
    """Name a key by its RFC 7638 thumbprint: the same name wherever the key lies."""
    return jwk_of(signer.public_key)["kid"]


def public_keys(keys: Iterable[bytes]) -> dict[str, list[dict[str, str]]]:
    """Publish keys (DER) as a JWK set (RFC 7517). For information: a verifier pins its key."""
    return {"keys": [jwk_of(key) for key in keys]}


def is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - costs more than the rest of a cold start
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415

    key = load_der_public_key(public_key)
    if not isinstance(key, EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key  # noqa: PLC0415

    return generate_private_key(SECP256R1())


@dataclass(frozen=True)
class MemorySigner:
    """A key in this process's memory, gone with it."""

    _key: Any = field(default_factory=_new_key)

    @cached_property
    def public_key(self) -> bytes:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

        der: bytes = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return der

    def sign(self, message: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

        signature: bytes = self._key.sign(message, ECDSA(SHA256()))
        return signature


@dataclass(frozen=True)
class KmsSigner(KmsKey):
    """A key of KMS (`ECC_NIST_P256`, for signing)."""

    unavailable: ClassVar[str] = "signer_unavailable"

    @cached_property
    def public_key(self) -> bytes:
        der: bytes = self.ask("get_public_key")["PublicKey"]
        return der

    def sign(self, message: bytes) -> bytes:
        if len(message) > MESSAGE_BYTES_MAX:
            raise ValueError(f"KMS signs at most {MESSAGE_BYTES_MAX} bytes as they are.")
        answer = self.ask("sign", Message=message, MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256")
        signature: bytes = answer["Signature"]
        return signature
