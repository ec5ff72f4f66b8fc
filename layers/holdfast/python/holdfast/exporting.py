"""
A tenant's log as lines of JSON, page by page: what somebody needs who wants to check it without us.

A line is made of the stored bytes as they are: what was changed must look changed.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from holdfast.clock import from_micros
from holdfast.dynamodb.attributes import ordered
from holdfast.dynamodb.reads import query
from holdfast.errors import Invalid
from holdfast.log import Entry, Head, LogReader
from holdfast.log.bodies import Bodies, Lost, Stored
from holdfast.log.tiles import Tiles
from holdfast.log.values import tile_key
from holdfast.objects import Damaged
from holdfast.proofs import TILE_HASHES, perfect_subtrees
from holdfast.streams.packing import header_of, unpack

PAGE_COMMITS_MAX: Final = 1_000
"""Commits on one page."""
UNREADABLE: Final = (
    Lost,
    Damaged,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    msgspec.MsgspecError,
)
"""What comes of reading a commit, or the archive, that somebody has changed."""
PAGE_BYTES_MAX: Final = 4_000_000
"""Bytes of one page's lines; a commit that is larger has a page for itself (a Lambda's answer holds 6 MB)."""


class FrontierLine(msgspec.Struct, frozen=True, tag_field="type", tag="frontier"):
    """What stands for the commits before the export: the roots of their perfect subtrees, largest first."""

    partition: int
    size: int
    hashes: tuple[bytes, ...]


class CommitLine(msgspec.Struct, frozen=True, tag_field="type", tag="commit"):
    """A commit at its leaf; its events begin at *position*. Header and events are the bytes that are hashed."""

    partition: int
    leaf: int
    position: int
    header: bytes
    events: tuple[bytes, ...]


class DamagedLine(msgspec.Struct, frozen=True, tag_field="type", tag="damaged"):
    """A commit that the log names, and that is not there or cannot be read. Nothing comes after it."""

    partition: int
    leaf: int
    stream: str
    version: int
    reason: str


class Bookmark(msgspec.Struct, frozen=True, array_like=True):
    """Where an export goes on: the next leaf, and how many events lie before it. It is what a cursor seals."""

    leaf: int
    position: int


class Page(msgspec.Struct, frozen=True):
    """Lines, and where the next page begins; None where the log ends, for now."""

    lines: list[msgspec.Raw]
    following: Bookmark | None


@dataclass(frozen=True)
class Exporter:
    """Export one tenant's log."""

    reader: LogReader
    bodies: Bodies
    on_damaged: Callable[[Exception], None] = lambda _error: None
    """Told of a commit that cannot be shown: the line that says so is for whoever checks, and somebody has to look."""

    def page(self, partition: int, from_leaf: int = 0, place: Bookmark | None = None) -> Page:
        """
        Write the commits of *partition* from *from_leaf* on; or go on at *place*, which the page before gave.

        The first page of an export that does not begin at leaf 0 begins with what stands for the commits before it.

        Raises:
            NotFound: `partition_not_found`.
            Invalid: `invalid_range`, the log has not so many commits.
        """
        head = self.reader.head(partition)
        if not 0 <= from_leaf <= head.size:
            raise Invalid("invalid_range", f"The partition has {head.size} commits.", size=head.size)
        lines: list[msgspec.Raw] = []
        if place is None:
            place = self._bookmark_at(head, from_leaf)
            if from_leaf:
                lines.append(_written(self._frontier(head, from_leaf)))
        size, commits = 0, 0
        for line, following in self._lines(head, place):
            written = _written(line)
            size += len(bytes(written))
            if commits and size > PAGE_BYTES_MAX:
                return Page(lines, place)
            lines.append(written)
            commits, place = commits + 1, following
            if isinstance(line, DamagedLine):
                return Page(lines, None)
            if commits == PAGE_COMMITS_MAX:
                break
        return Page(lines, place if place.leaf < head.size else None)

    def _lines(self, head: Head, place: Bookmark) -> Iterator[tuple[CommitLine | DamagedLine, Bookmark]]:
        """Write the commits from *place* on, each with the place after it."""
        named = deque[Entry]()

        def noted() -> Iterator[Entry]:
            for entry in self.reader.entries(head.partition, place.position, until=head.position):
                named.append(entry)
                yield entry

        following = place
        try:
            for entry, stored in self.bodies.of(head.tenant, noted()):
                line = commit_line(head.tenant, entry, stored)
                following = _after(named.popleft())
                yield line, following
        except UNREADABLE as error:
            # They are fetched together, and fail together; by itself, each one says whether it is the one.
            for entry in named:
                line_or_damage, following = self._alone(head.tenant, entry), _after(entry)
                yield line_or_damage, following
                if isinstance(line_or_damage, DamagedLine):
                    return
            # None of them is: then it is the row of the log behind them.
            yield self._damaged(DamagedLine(head.partition, following.leaf, "", 0, ""), error), following

    def _alone(self, tenant: str, entry: Entry) -> CommitLine | DamagedLine:
        try:
            ((_, stored),) = self.bodies.of(tenant, [entry])
            return commit_line(tenant, entry, stored)
        except UNREADABLE as error:
            reference = entry.reference
            place = DamagedLine(entry.partition, entry.leaf, reference.stream, reference.first_version, "")
            return self._damaged(place, error)

    def _damaged(self, place: DamagedLine, error: Exception) -> DamagedLine:
        """Say what is wrong with a commit, and tell whoever keeps it."""
        if not isinstance(error, Lost | Damaged):
            error = Damaged(f"what is kept of it is none of ours: {type(error).__name__}: {error}")
        self.on_damaged(error)
        return msgspec.structs.replace(place, reason=str(error))

    def _frontier(self, head: Head, size: int) -> FrontierLine:
        needed = perfect_subtrees(size)
        reader = self.reader
        nodes = Tiles(reader.database, reader.tables, reader.tenant, head.partition).nodes(needed, head)
        return FrontierLine(head.partition, size, tuple(nodes[node] for node in needed))

    def _bookmark_at(self, head: Head, leaf: int) -> Bookmark:
        """Find how many events lie before *leaf*: the nearest full tile says it of its own end, the log of the rest."""
        reader = self.reader
        position = at = 0
        if leaf >= TILE_HASHES:
            until = f"0#{ordered(leaf // TILE_HASHES - 1)}"
            pk = tile_key(head.tenant, head.partition)
            tile = next(query(reader.database, reader.tables.log, pk, until=until, newest_first=True, limit=1), None)
            if tile:
                at, position = (int(tile["sk"].removeprefix("0#")) + 1) * TILE_HASHES, tile["pos"]
        if at < leaf:
            for entry in reader.entries(head.partition, position):
                position = entry.last_position
                if entry.leaf + 1 == leaf:
                    break
        return Bookmark(leaf, position)


def commit_line(tenant: str, entry: Entry, stored: Stored) -> CommitLine:
    """Write one commit, with the header that its hash and its leaf are of."""
    try:
        events = unpack(stored.packed)
    except zlib.error:
        events = ()  # which is not what the header says: whoever checks will name the place
    header = header_of(
        tenant=tenant,
        stream=stored.stream,
        first_version=stored.first_version,
        count=entry.reference.events,
        events_root=stored.events_root,
        commit_id=stored.commit_id,
        actor=stored.actor,
        recorded_at=from_micros(stored.recorded_at),
        previous_hash=stored.previous_hash,
    )
    return CommitLine(entry.partition, entry.leaf, entry.position, header, events)


def _after(entry: Entry) -> Bookmark:
    return Bookmark(entry.leaf + 1, entry.last_position)


def _written(line: FrontierLine | CommitLine | DamagedLine) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(line))
