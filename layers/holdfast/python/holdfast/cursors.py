"""
Where a listing goes on: a cursor names a position, and is good for one tenant and one query only.

A cursor is opaque to callers by contract, not by secrecy: its position can be read by whoever holds it. One that names
what its tenant may not see is *hidden* (AES-256-GCM). No cursor can be altered, made, or carried to another query.
"""

import base64
import binascii
import hashlib
import hmac
import os
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.errors import Invalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CURSOR_CHARACTERS_MAX: Final = 2_048
KEY_BYTES_MIN: Final = 32

_VERSION: Final = b"\x01"
_HIDDEN: Final = b"\x02"
_MAC_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Cursors:
    """Seal and open cursors under one HMAC-SHA256 key."""

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES_MIN:
            raise ValueError(f"A cursor key has at least {KEY_BYTES_MIN} bytes, not {len(key)}.")
        self._key = key

    def seal(self, tenant: str, query: object, position: object, *, hidden: bool = False) -> str:
        """
        Write *position*, any JSON value, as a cursor in the alphabet of URLs; *hidden*, if nobody may read it.

        *query* is all that must stay the same from page to page (filters and order, not the page size):
        a struct, a dict or whatever else msgspec encodes.
        """
        payload = msgspec.json.encode(position)
        if hidden:
            nonce = os.urandom(_NONCE_BYTES)
            sealed = _HIDDEN + nonce + self._cipher().encrypt(nonce, payload, _bound_to(tenant, query))
        else:
            sealed = _VERSION + self._mac(tenant, query, payload) + payload
        cursor = base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
        if len(cursor) > CURSOR_CHARACTERS_MAX:
            raise ValueError(f"A position must fit {CURSOR_CHARACTERS_MAX} characters once sealed, not {len(cursor)}.")
        return cursor

    def open(self, tenant: str, query: object, cursor: str) -> Any:
        """
        Give back the position that was sealed for *tenant* and *query*.

        Raises:
            Invalid: `invalid_cursor`; why is not told, for it would help only a forger.
        """
        sealed = _from_base64(cursor)
        if sealed[:1] == _HIDDEN:
            return msgspec.json.decode(self._revealed(tenant, query, sealed[1:]))
        mac, payload = sealed[1 : 1 + _MAC_BYTES], sealed[1 + _MAC_BYTES :]
        if sealed[:1] != _VERSION or not hmac.compare_digest(mac, self._mac(tenant, query, payload)):
            raise _invalid_cursor()
        return msgspec.json.decode(payload)

    def _mac(self, tenant: str, query: object, payload: bytes) -> bytes:
        return hmac.digest(self._key, b"holdfast.cursor" + _VERSION + _bound_to(tenant, query) + payload, "sha256")

    def _revealed(self, tenant: str, query: object, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - few cursors are hidden

        try:
            return self._cipher().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound_to(tenant, query))
        except (InvalidTag, ValueError) as error:
            raise _invalid_cursor() from error

    def _cipher(self) -> "AESGCM":
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - few cursors are hidden

        return AESGCM(hmac.digest(self._key, b"holdfast.cursor" + _HIDDEN, "sha256"))


def _bound_to(tenant: str, query: object) -> bytes:
    # The two digests have one length each, so no part can lend its bytes to its neighbour.
    fingerprint = hashlib.sha256(msgspec.json.encode(query, order="sorted")).digest()
    return hashlib.sha256(tenant.encode()).digest() + fingerprint


def _from_base64(cursor: str) -> bytes:
    if len(cursor) > CURSOR_CHARACTERS_MAX:
        raise _invalid_cursor()
    try:
        sealed = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _invalid_cursor() from error
    # Base64 leaves spare bits at its end: without this, two spellings would open alike.
    if base64.urlsafe_b64encode(sealed).rstrip(b"=") != cursor.encode():
        raise _invalid_cursor()
    return sealed


def _invalid_cursor() -> Invalid:
    return Invalid(
        "invalid_cursor",
        "This cursor was not made for this query. Take it from the last answer as it is, or begin again without one.",
        pointer="/cursor",
    )
