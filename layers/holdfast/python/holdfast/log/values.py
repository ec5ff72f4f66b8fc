"""What the log is made of: references to commits, in partitions, each at a place that never changes."""

from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

from holdfast.dynamodb.attributes import ordered
from holdfast.ids import derived
from holdfast.proofs import EMPTY_ROOT

PARTITIONS: Final = 4
"""Of each tenant's log. A stream lies in one of them for ever, so this can never change for a log that exists."""
DIRECTORY_SHARDS: Final = 16
"""Partition keys over which the list of all heads is spread."""
REFERENCES_MAX: Final = 100
"""Commits named by one segment."""


class Reference(msgspec.Struct, frozen=True, array_like=True):
    """One commit, as the log names it."""

    stream: str
    first_version: int
    events: int
    commit_id: str
    leaf_hash: bytes
    recorded_at: int
    """Microseconds since 1970."""


class Entry(msgspec.Struct, frozen=True):
    """A commit at its place in a partition: its events hold positions *position* to *last_position*."""

    partition: int
    position: int
    leaf: int
    reference: Reference

    @property
    def last_position(self) -> int:
        return self.position + self.reference.events - 1


class Head(msgspec.Struct, frozen=True):
    """How far a partition has come: *size* commits, which hold *position* events, under one Merkle root."""

    tenant: str
    partition: int
    size: int
    position: int
    root: bytes
    frontier: tuple[bytes, ...]
    recorded_at: datetime | None
    """The latest time at which a commit in it was recorded; None where there is none."""


def partition_of(stream: str) -> int:
    """Say in which partition a stream lies."""
    return int.from_bytes(sha256(stream.encode()).digest()[:4], "big") % PARTITIONS


def log_id(service: str, tenant: str) -> str:
    """Name one tenant's log in one service; a signed head says which log it is of."""
    return derived("log", service, tenant)


def empty_head(tenant: str, partition: int) -> Head:
    return Head(tenant, partition, 0, 0, EMPTY_ROOT, (), None)


def segment_key(tenant: str, partition: int) -> str:
    return f"L#{tenant}#{partition}"


def head_key(tenant: str, partition: int) -> str:
    return f"LH#{tenant}#{partition}"


def tile_key(tenant: str, partition: int) -> str:
    return f"M#{tenant}#{partition}"


def watermark_key(tenant: str, stream: str) -> str:
    return f"W#{tenant}#{stream}"


def block_key(tenant: str, stream: str, level: int) -> str:
    # The stream's name comes last: it is the one part that another tool might let hold a `#`.
    return f"B#{tenant}#{level}#{stream}"


def directory_key(tenant: str, partition: int) -> tuple[str, str]:
    name = f"{tenant}#{partition}"
    return f"H#{sha256(name.encode()).digest()[0] % DIRECTORY_SHARDS}", name


SOLE: Final = ordered(0)
"""The sort key of a row that is alone under its partition key."""

_REFERENCES: Final = msgspec.msgpack.Decoder(list[Reference])


def pack_references(references: list[Reference]) -> bytes:
    return msgspec.msgpack.encode(references)


def entries_of(partition: int, position: int, leaf: int, packed: bytes) -> Iterator[Entry]:
    """Unpack a segment that begins at *position* and *leaf*."""
    for reference in _REFERENCES.decode(packed):
        yield Entry(partition, position, leaf, reference)
        position += reference.events
        leaf += 1
