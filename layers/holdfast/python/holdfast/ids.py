"""Identifiers as arguments: new ones sort by time, derived ones are the same whenever they are derived."""

import os
import uuid
from collections.abc import Callable
from datetime import datetime

from holdfast.clock import to_micros

NewId = Callable[[], str]

NAMESPACE = uuid.UUID("6f1b0a5e-3c7d-5d0e-9a43-8f0d2b1c7e55")
"""The root of every derived identifier (RFC 9562, section 5.5). It must never change."""


def uuid7(now: datetime, random: bytes | None = None) -> str:
    """
    Make a UUIDv7 (RFC 9562, section 5.7): 48 bits of milliseconds, then randomness.

    Two ids of the same millisecond sort by chance; nothing here relies on more.
    """
    noise = int.from_bytes(random if random is not None else os.urandom(10), "big")
    millis = to_micros(now) // 1000
    value = (millis & (1 << 48) - 1) << 80
    value |= 0x7 << 76
    value |= (noise >> 62 & (1 << 12) - 1) << 64
    value |= 0b10 << 62
    value |= noise & (1 << 62) - 1
    return str(uuid.UUID(int=value))


def derived(*parts: str) -> str:
    """
    Derive the UUIDv5 of *parts*: equal parts, equal id, on any machine, for ever.

    Parts are length-prefixed before they are hashed, so `("a", "bc")` and `("ab", "c")` differ.
    """
    return str(uuid.uuid5(NAMESPACE, "".join(f"{len(part)}:{part}" for part in parts)))
