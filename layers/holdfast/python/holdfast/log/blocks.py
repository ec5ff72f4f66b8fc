"""
The index of one stream: how far the log holds it, and what each run of its commits may be skipped for.

A *watermark* says where the log's knowledge of the stream ends. Behind it lie *blocks*: runs of commits that say of
themselves when their events happened and were recorded, so that whoever looks for a past state reads only the runs
that can matter. Blocks of level 0 close after 128 commits or 512 events; 64 blocks of one level make one of the next.
The open end of every level is in the watermark, so one conditional write moves all of it. Pure.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

COMMITS_MAX: Final = 128
"""Commits of a block of level 0; their places in the log must fit into the watermark's first kilobyte."""
EVENTS_CLOSE: Final = 512
"""Events after which a block of level 0 closes: what is folded, at most, beside a snapshot."""
FANOUT: Final = 64
"""Blocks of one level that make a block of the next."""


class Summary(msgspec.Struct, frozen=True):
    """What is known of a commit without its events."""

    first_version: int
    events: int
    stored_bytes: int
    earliest: int
    latest: int
    """Bounds of its events' own times, in microseconds."""
    recorded_at: int
    hash: bytes
    leaf: int
    last_position: int

    @property
    def version(self) -> int:
        return self.first_version + self.events - 1


class Block(msgspec.Struct, frozen=True):
    """A closed run of commits, versions *first_version* to *version*."""

    level: int
    first_version: int
    version: int
    earliest: int
    """The earliest time of an event in it."""
    latest: int
    """The latest time of any event of the stream up to here: it never falls from block to block."""
    recorded_at: int
    """When its last commit was recorded."""
    stored_bytes: int
    """Of the stream's commits up to here."""
    places: tuple[int, ...] = ()
    """Level 0: for each commit its number of events and its leaf, the latter as the distance from the one before."""


class Open(msgspec.Struct, frozen=True, array_like=True):
    """The unfinished block of one level: where it begins, how many are in it, and its earliest time."""

    first_version: int
    count: int
    earliest: int


class Watermark(msgspec.Struct, frozen=True):
    """How far the log holds a stream, and the open block of every level."""

    version: int = 0
    hash: bytes = b""
    recorded_at: int = 0
    position: int = 0
    """In the log's partition, of the stream's newest event there."""
    latest: int = 0
    stored_bytes: int = 0
    levels: tuple[Open, ...] = ()
    places: tuple[int, ...] = ()
    """Of the open block of level 0; see `Block.places`."""

    @property
    def open_from(self) -> int:
        """The first version that lies in no closed block of level 0."""
        if self.levels and self.levels[0].count:
            return self.levels[0].first_version
        return self.version + 1


NO_COMMITS: Final = Watermark()


def advanced(watermark: Watermark, commit: Summary) -> tuple[Watermark, tuple[Block, ...]]:
    """Move *watermark* over the next commit; return it with the blocks that this closes."""
    latest = max(watermark.latest, commit.latest) if watermark.version else commit.latest
    moved = msgspec.structs.replace(
        watermark,
        version=commit.version,
        hash=commit.hash,
        recorded_at=commit.recorded_at,
        position=commit.last_position,
        latest=latest,
        stored_bytes=watermark.stored_bytes + commit.stored_bytes,
        places=(*watermark.places, commit.events, commit.leaf - _last_leaf(watermark.places)),
    )
    levels = list(watermark.levels) or [Open(0, 0, 0)]
    levels[0] = _joined(levels[0], commit.first_version, commit.earliest)
    closed: list[Block] = []
    while _is_full(level := len(closed), levels[level], commit.version):
        block = _closed(moved, level, levels[level])
        closed.append(block)
        levels[level] = Open(0, 0, 0)
        if level + 1 == len(levels):
            levels.append(Open(0, 0, 0))
        levels[level + 1] = _joined(levels[level + 1], block.first_version, block.earliest)
    places = () if closed else moved.places
    return msgspec.structs.replace(moved, levels=tuple(levels), places=places), tuple(closed)


def _joined(block: Open, first_version: int, earliest: int) -> Open:
    if not block.count:
        return Open(first_version, 1, earliest)
    return Open(block.first_version, block.count + 1, min(block.earliest, earliest))


def _is_full(level: int, block: Open, version: int) -> bool:
    if level:
        return block.count == FANOUT
    return block.count == COMMITS_MAX or version - block.first_version + 1 >= EVENTS_CLOSE


def _closed(moved: Watermark, level: int, block: Open) -> Block:
    return Block(
        level=level,
        first_version=block.first_version,
        version=moved.version,
        earliest=block.earliest,
        latest=moved.latest,
        recorded_at=moved.recorded_at,
        stored_bytes=moved.stored_bytes,
        places=() if level else moved.places,
    )


def _last_leaf(places: tuple[int, ...]) -> int:
    return sum(places[1::2])


class Place(msgspec.Struct, frozen=True):
    """Where a commit of the stream lies in its log partition."""

    first_version: int
    events: int
    leaf: int


def places_from(first_version: int, places: tuple[int, ...]) -> Iterator[Place]:
    """List the commits of one block of level 0, in order."""
    leaf = 0
    for events, distance in zip(places[::2], places[1::2], strict=True):
        leaf += distance
        yield Place(first_version, events, leaf)
        first_version += events


def watermark_row(watermark: Watermark) -> dict[str, Any]:
    return {
        "v": watermark.version,
        "hash": watermark.hash,
        "rt": watermark.recorded_at,
        "pos": watermark.position,
        "thi": watermark.latest,
        "size": watermark.stored_bytes,
        "open": msgspec.msgpack.encode(watermark.levels),
        "places": msgspec.msgpack.encode(watermark.places),
    }


def watermark_of(row: dict[str, Any] | None) -> Watermark:
    if row is None:
        return NO_COMMITS
    return Watermark(
        version=row["v"],
        hash=row["hash"],
        recorded_at=row["rt"],
        position=row["pos"],
        latest=row["thi"],
        stored_bytes=row["size"],
        levels=msgspec.msgpack.decode(row["open"], type=tuple[Open, ...]),
        places=msgspec.msgpack.decode(row["places"], type=tuple[int, ...]),
    )


def block_row(block: Block) -> dict[str, Any]:
    return {
        "v": block.version,
        "tlo": block.earliest,
        "thi": block.latest,
        "rt": block.recorded_at,
        "size": block.stored_bytes,
        "places": msgspec.msgpack.encode(block.places),
    }


def block_of(row: dict[str, Any], level: int) -> Block:
    return Block(
        level=level,
        first_version=int(row["sk"]),
        version=row["v"],
        earliest=row["tlo"],
        latest=row["thi"],
        recorded_at=row["rt"],
        stored_bytes=row["size"],
        places=msgspec.msgpack.decode(row["places"], type=tuple[int, ...]),
    )
