"""
What a read model is: a function from the log's events to rows. Pure.

A *listing* view makes rows of one event alone; their keys hold the event's position, so writing them twice writes them
once. A *counting* view changes rows that other events change too; those are written together with the checkpoint or
not at all. Either way the rows are what the log says, and can be made again from it.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from holdfast.clock import EPOCH


class Recorded(msgspec.Struct, frozen=True):
    """One event as a view sees it: its stored bytes, and where and when they were recorded, by whom."""

    tenant: str
    stream: str
    version: int
    first_version: int
    """Of the commit that holds it."""
    partition: int
    position: int
    stored: bytes
    actor: str
    recorded_at: datetime
    commit_id: str


class Key(msgspec.Struct, frozen=True, order=True):
    """Where a row of a view lies; the view need not say whose row it is, or of which generation."""

    pk: str
    sk: str


Attributes = Mapping[str, Any]

Effect = Callable[[Recorded], None]
"""
What shall happen once for an event, beside rows: at least once, in order, never for what a rebuild goes through again.
"""


@runtime_checkable
class Listing(Protocol):
    """A view whose rows are each made of one event."""

    name: str
    version: int

    def rows(self, event: Recorded) -> Iterable[tuple[Key, Attributes]]:
        """Make the rows of *event*; every key holds its partition and position."""


@runtime_checkable
class Counting(Protocol):
    """A view whose rows are made of many events, of one partition each."""

    name: str
    version: int

    def keys(self, event: Recorded) -> Iterable[Key]:
        """Name the rows that *event* changes. No other partition's event changes them."""

    def change(self, key: Key, row: Attributes | None, event: Recorded) -> Attributes:
        """Say what a row holds after *event*."""


View = Listing | Counting

DIGEST_MODULUS: Final = 1 << 256
NO_ROWS: Final = bytes(32)


class Tally(msgspec.Struct, frozen=True):
    """How many rows there are, and a digest of them in which their order plays no part: the sum of their hashes."""

    rows: int = 0
    digest: bytes = NO_ROWS

    def plus(self, key: Key, attributes: Attributes) -> "Tally":
        return Tally(self.rows + 1, _sum(self.digest, _hash(key, attributes)))

    def minus(self, key: Key, attributes: Attributes) -> "Tally":
        return Tally(self.rows - 1, _sum(self.digest, -_hash(key, attributes)))


def _hash(key: Key, attributes: Attributes) -> int:
    encoded = msgspec.msgpack.encode([key.pk, key.sk, attributes], order="deterministic")
    return int.from_bytes(sha256(encoded).digest(), "big")


def _sum(digest: bytes, by: int) -> bytes:
    return ((int.from_bytes(digest, "big") + by) % DIGEST_MODULUS).to_bytes(32, "big")


class Checkpoint(msgspec.Struct, frozen=True):
    """How far one generation of a view has come in one partition, and what it holds there."""

    position: int = 0
    tally: Tally = Tally()
    recorded_at: datetime = EPOCH
    """The latest time at which an event up to here was recorded."""
    earliest: datetime | None = None
    latest: datetime | None = None
    """Bounds of the events' own times; None before the first."""
    parked: int = 0
    """Streams that stand still, each behind an event that the view cannot take."""
