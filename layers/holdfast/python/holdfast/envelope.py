"""
Envelopes: what may have to be destroyed is sealed under a data key, and the data key is wrapped by a key ring.

Whoever destroys the wrapped data key destroys all that was sealed under it, wherever copies of that lie. A sealed box
is bound to the place it was made for: changed by one bit, or opened anywhere else, it is `Forged`. A key ring makes and
unwraps data keys and sees nothing else: content never travels to it, and nothing here relies on it to notice a change.

Boxes are AES-256-GCM (NIST SP 800-38D) with random nonces of 96 bits, so one data key seals at most 2^32 of them
(section 8.3); a data subject with four thousand million events is not foreseen, and not counted.
"""

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

Context = Mapping[str, str]
"""Where something sealed belongs, by name: it is not secret, and whoever opens it must say the same."""

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
FORM: Final = b"\x01"
"""How a box begins: its form, which is 1. Then come the nonce, and the ciphertext with its tag."""
OVERHEAD_BYTES: Final = len(FORM) + NONCE_BYTES + TAG_BYTES
"""What a box takes beyond its content."""

_LENGTH_BYTES: Final = 4
_DIGEST_LABEL: Final = b"holdfast keyed digest 1\0"
"""Keeps digests apart from anything else that may be authenticated under a data key."""


class Forged(Exception):
    """What was to be opened is not what was sealed here: changed, cut, of another place, or under another key."""


@dataclass(frozen=True)
class DataKey:
    """A key that seals. Its text does not show it: it must never reach a log line."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise ValueError(f"a data key has {KEY_BYTES} bytes")


@dataclass(frozen=True)
class WrappedKey:
    """A new data key, and the form in which it may be kept."""

    key: DataKey
    wrapped: bytes


class KeyRing(Protocol):
    """One wrapping key, which never leaves its ring."""

    def make(self, context: Context) -> WrappedKey:
        """
        Make a data key that is unwrapped again under the same *context* only. Repeating makes another, to no harm.

        Raises:
            Unavailable: the ring could not be asked.
        """

    def unwrap(self, wrapped: bytes, context: Context) -> DataKey:
        """
        Unwrap a data key.

        Not every ring notices that *wrapped* was changed; the key that it then answers opens nothing.

        Raises:
            Forged: it was not wrapped here under this context.
            Unavailable: the ring could not be asked.
        """


@dataclass(frozen=True)
class MemoryKeyRing:
    """A ring in this process's memory, gone with it: AES key wrap (RFC 3394) under a key of each context's own."""

    _root: bytes = field(default_factory=lambda: os.urandom(KEY_BYTES), repr=False)

    def make(self, context: Context) -> WrappedKey:
        from cryptography.hazmat.primitives.keywrap import aes_key_wrap  # noqa: PLC0415 - costs a cold start much

        key = DataKey(os.urandom(KEY_BYTES))
        return WrappedKey(key, aes_key_wrap(self._wrapping_key(context), key.secret))

    def unwrap(self, wrapped: bytes, context: Context) -> DataKey:
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap  # noqa: PLC0415

        try:
            return DataKey(aes_key_unwrap(self._wrapping_key(context), wrapped))
        except (InvalidUnwrap, ValueError) as error:
            raise Forged("This key was not wrapped here under this context.") from error

    def _wrapping_key(self, context: Context) -> bytes:
        return hmac.digest(self._root, encode_context(context), "sha256")


def seal(content: bytes, key: DataKey, context: Context) -> bytes:
    """Encrypt *content* so that it opens under the same *context* only."""
    return _box(content, key, context, os.urandom(NONCE_BYTES))


def _box(content: bytes, key: DataKey, context: Context, nonce: bytes) -> bytes:
    """Make a box. Whoever uses a *nonce* twice under one key has given away what is in both."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - costs a cold start much

    return FORM + nonce + AESGCM(key.secret).encrypt(nonce, content, FORM + encode_context(context))


def unseal(box: bytes, key: DataKey, context: Context) -> bytes:
    """
    Open what was sealed under *key* and *context*.

    Raises:
        Forged: it was not, or not like this.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - costs a cold start much
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    if len(box) < OVERHEAD_BYTES or not box.startswith(FORM):
        raise Forged("This is no sealed box, or of a form that is not known here.")
    nonce, sealed = box[len(FORM) : len(FORM) + NONCE_BYTES], box[len(FORM) + NONCE_BYTES :]
    try:
        return AESGCM(key.secret).decrypt(nonce, sealed, FORM + encode_context(context))
    except InvalidTag as error:
        raise Forged("This box was changed, or was sealed for another place or under another key.") from error


def keyed_digest(content: bytes, key: DataKey) -> bytes:
    """
    Recognise *content* again without keeping what betrays it: HMAC-SHA-256 (RFC 2104) under *key*.

    A plain digest would outlive the key, and let everybody try what the content may have been.
    """
    return hmac.digest(key.secret, _DIGEST_LABEL + content, "sha256")


def encode_context(context: Context) -> bytes:
    """Write a context so that no other has the same bytes: names in order, each part behind its length."""
    parts = (part.encode() for pair in sorted(context.items()) for part in pair)
    return b"".join(len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)
