"""
Reading what has left the table: by stream, through pieces; and by log, an object at a time.

A piece says which bytes of which object hold a run of commits, and their digest. So one commit costs a row and a
range of an object; whoever walks over the log takes whole objects, each once.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Final, Generic, TypeVar

from holdfast.archive.format import Range, Row, read_frame, read_whole, version_of
from holdfast.archive.rows import ObjectPiece, object_key, piece_key, piece_of, range_of
from holdfast.dynamodb.attributes import ordered
from holdfast.dynamodb.reads import query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database
from holdfast.log.bodies import Stored, stored_of
from holdfast.log.values import Entry
from holdfast.objects import Damaged, Objects

T = TypeVar("T")

FRAMES_KEPT: Final = 8
"""Frames in memory: whoever reads a stream in runs meets one again."""
OBJECTS_KEPT: Final = 2
"""Whole objects in memory (about 8 MB each): a batch of log entries may end in one and begin in the next."""
WHOLE_MIN: Final = 8
"""From so many commits of one object on, it is fetched as a whole."""


class _Recent(Generic[T]):
    """The few values that were used last."""

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self._values: OrderedDict[object, T] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def get(self, key: object, make: Callable[[], T]) -> T:
        value = self._values.pop(key, None)
        self._values[key] = value = make() if value is None else value
        while len(self._values) > self._kept_max:
            self._values.popitem(last=False)
        return value


@dataclass(frozen=True)
class ArchiveReader:
    """The archived commits of one service, of all its tenants."""

    database: Database
    tables: Tables
    objects: Objects
    _frames: _Recent[list[Row]] = field(default_factory=lambda: _Recent(FRAMES_KEPT))
    _wholes: _Recent[dict[tuple[str, int], Row]] = field(default_factory=lambda: _Recent(OBJECTS_KEPT))

    # ----- by stream

    def read(self, tenant: str, stream: str, first: int, last: int) -> Iterator[Row]:
        """
        Yield the archived commits that hold versions *first* to *last*, in order, as they lay in the table.

        Raises:
            Damaged: an object is not what was written.
        """
        for found in self._pieces(tenant, stream, first, last):
            for row in self._frame(found):
                if version_of(row) >= first and row["sk"] <= last:
                    yield row

    def read_back(self, tenant: str, stream: str, first: int, last: int) -> Iterator[Row]:
        """Yield the archived commits that hold versions *first* to *last*, the newest first; see `read`."""
        pk = piece_key(tenant, stream)
        for row in query(self.database, self.tables.log, pk, until=ordered(last), newest_first=True):
            found = piece_of(stream, row)
            for commit in reversed(self._frame(found)):
                if version_of(commit) < first:
                    return
                if commit["sk"] <= last:
                    yield commit
            if found.piece.first_version <= first:
                return

    def _pieces(self, tenant: str, stream: str, first: int, last: int) -> Iterator[ObjectPiece]:
        pk, log = piece_key(tenant, stream), self.tables.log
        around = next(query(self.database, log, pk, until=ordered(first), newest_first=True, limit=1), None)
        if around:
            found = piece_of(stream, around)
            if found.piece.version >= first:
                yield found
            if found.piece.version >= last:
                return
        if last > first:
            for row in query(self.database, log, pk, first=ordered(first + 1), until=ordered(last)):
                yield piece_of(stream, row)

    def _frame(self, found: ObjectPiece) -> list[Row]:
        def fetch() -> list[Row]:
            piece = found.piece
            return read_frame(piece, self.objects.get_range(found.key, piece.offset, piece.length))

        return self._frames.get((found.key, found.piece.offset), fetch)

    # ----- by log

    def commits(self, tenant: str, entries: Sequence[Entry]) -> Iterable[Stored]:
        """
        Fetch what the archive holds of *entries*: whole objects where many lie in one, single frames otherwise.

        Raises:
            Damaged: an object is not what was written.
        """
        in_order = sorted(entries, key=lambda entry: (entry.partition, entry.position))
        for partition, members in groupby(in_order, key=lambda entry: entry.partition):
            for held, together in self._by_object(tenant, partition, list(members)):
                yield from self._stored(tenant, held, together)

    def _by_object(self, tenant: str, partition: int, entries: Sequence[Entry]) -> Iterator[tuple[Range, list[Entry]]]:
        """Say in which objects *entries* lie; those that lie in none are left out."""
        left = list(entries)
        while left:
            pk = object_key(tenant, partition)
            row = next(query(self.database, self.tables.log, pk, first=ordered(left[0].position), limit=1), None)
            if row is None:
                return
            held = range_of(tenant, partition, row)
            yield held, [entry for entry in left if held.first_position <= entry.position <= held.last_position]
            left = [entry for entry in left if entry.position > held.last_position]

    def _stored(self, tenant: str, held: Range, entries: Sequence[Entry]) -> Iterator[Stored]:
        is_whole = held.key in self._wholes or len(entries) >= WHOLE_MIN
        for reference in (entry.reference for entry in entries):
            first = reference.first_version
            if is_whole:
                row = self._whole(held).get((reference.stream, first))
            else:
                row = next(self.read(tenant, reference.stream, first, first), None)
            if row:
                yield stored_of(reference.stream, row)

    def _whole(self, held: Range) -> dict[tuple[str, int], Row]:
        def fetch() -> dict[tuple[str, int], Row]:
            body = self.objects.get(held.key)
            if body is None:
                raise Damaged(f"{held.key} is not there.")
            frames = ([(piece.stream, row) for row in rows] for piece, rows in read_whole(body))
            return {(stream, row["sk"]): row for stream, row in chain.from_iterable(frames)}

        return self._wholes.get(held.key, fetch)
