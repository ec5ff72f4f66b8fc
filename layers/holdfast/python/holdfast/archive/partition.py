"""
Moving one range of a log partition out of the table: six steps, of which each may be the last that happens.

    1  choose a range that is old enough, and write down where it ends: whoever goes on takes the same one
    2  compute every commit's leaf anew, which must be the log's, and write the commits as one object, under a key named
       after the range
    3  read the object back whole, and compare it; whatever else stands there is proven like that, too
    4  put the rows by which its commits are found
    5  remove each commit from the table, if it still is what the object holds; never the newest of its stream
    6  write down that the range is archived

Whoever was stopped leaves the range begun, and whoever comes next begins with what is there: an object that stands is
not written again but read back, rows are put again as they were, and a commit that is gone is gone. So two may work at
one range. Of each stream the oldest commit goes first, so what the table holds of a stream is always its end, without
gaps; the newest of a quiet stream goes when a later range of that stream is archived.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice, takewhile
from typing import Final

import msgspec

from holdfast.archive.contents import Contents, prove
from holdfast.archive.format import Placed, Range, Row, checked, write
from holdfast.archive.rows import Cursor, cursor_key, cursor_of, cursor_row, object_row, piece_row
from holdfast.clock import MICROSECOND, from_micros, to_micros
from holdfast.dynamodb.attributes import ordered
from holdfast.dynamodb.batches import put_many
from holdfast.dynamodb.reads import RowKey, get, get_many, query
from holdfast.dynamodb.tables import Tables, stream_key
from holdfast.dynamodb.transport import Refused
from holdfast.dynamodb.writes import Database, clock_fault, delete_action, update_guarded
from holdfast.log.bodies import COMMITS_MAX, Lost
from holdfast.log.values import SOLE, Entry, entries_of, segment_key
from holdfast.objects import Damaged, Objects
from holdfast.streams.companions import Change, Is, Missing
from holdfast.streams.values import CLOCK_SKEW_MAX

RANGE_BYTES: Final = 8_000_000
"""Packed events after which a range ends: one object, read back whole in memory."""
RANGE_COMMITS_MAX: Final = 10_000
"""Commits of one range."""
STREAMS_AT_ONCE: Final = 500
"""Streams whose commits are removed before it is written down how far that has come; a call that is stopped by its
time loses no more than this."""
WORKERS: Final = 8
"""Streams whose commits are removed at the same time."""
PATIENCE: Final = timedelta(days=1)
"""How long a range may go on growing once its oldest commit is old enough; what happened in it shares an object."""
YOUNGEST: Final = timedelta(days=1)
"""Nothing younger is ever removed, whatever is set: a freed key must be far older than any boundary in use."""


class Moved(msgspec.Struct, frozen=True):
    """What one call did."""

    commits: int = 0
    """Archived."""
    removed: int = 0
    """From the table, by this call."""


class Tampered(Damaged):
    """The table holds something else than what the log and the archive hold; it stays where it is."""


@dataclass(frozen=True)
class Partition:
    """One partition of a tenant's log, and the commits that it names."""

    database: Database
    tables: Tables
    objects: Objects
    tenant: str
    number: int
    hot: timedelta
    """How old a commit is before it may go."""
    range_bytes: int = RANGE_BYTES
    workers: int = WORKERS

    def archive(self) -> Moved | None:
        """
        Move the range that has been begun, or else the next one; None if nothing is old enough.

        May be repeated, run beside itself, and be stopped anywhere.

        Raises:
            Damaged: an object, or a commit in the table, is not what the log says; it stays as it is.
            Lost: a commit that the log names is nowhere.
        """
        cursor, planned = self._cursor(), list[Placed]()
        self._check_clock()
        try:
            if not cursor.sealing:
                planned = self._plan(cursor)
                if not planned:
                    return None
                begun = msgspec.structs.replace(cursor, sealing=planned[-1].last_position)
                if not self._move(cursor, begun):
                    return Moved()  # somebody else has begun a range
                cursor = begun
            contents = self._sealed(cursor, planned)
        except Lost:
            if self._is_overtaken(cursor):
                return Moved()
            raise
        self._put_rows(contents)
        if not self._is_of_age(contents):
            return None  # it was begun by a clock that was ahead
        removed = self._remove_all(cursor, contents)
        self._move(cursor, Cursor(cursor.sealing))
        return Moved(sum(len(kept) for kept in contents.streams.values()), removed)

    # ----- which range

    def _plan(self, cursor: Cursor) -> list[Placed]:
        """Choose the commits of the next range; none if it would be too young."""
        ripe = to_micros(self.database.clock.now() - self.hot)
        oldest = next(self._entries(cursor.position, limit=1), None)
        if oldest is None or oldest.reference.recorded_at > ripe - PATIENCE // MICROSECOND:
            return []
        entries = takewhile(lambda entry: entry.reference.recorded_at <= ripe, self._entries(cursor.position))
        planned, weight = list[Placed](), 0
        for commit in self._commits(islice(entries, RANGE_COMMITS_MAX)):
            planned.append(commit)
            weight += len(commit.row["ev"])
            if weight >= self.range_bytes:
                break
        return planned

    def _cursor(self) -> Cursor:
        return cursor_of(get(self.database, self.tables.log, cursor_key(self.tenant, self.number), SOLE))

    def _move(self, before: Cursor, after: Cursor) -> bool:
        """Move the cursor on, and say whether it stands there."""
        when = [Is("pos", before.position), Is("sealing", before.sealing)]
        if after.freed:
            when.append(Is("freed", before.freed))
        change = Change(
            key={"pk": cursor_key(self.tenant, self.number), "sk": SOLE},
            when=(Missing("pos"),) if before == Cursor() else tuple(when),
            set=cursor_row(after),
        )
        return update_guarded(
            self.database, change, table=self.tables.log, is_applied=lambda row: cursor_of(dict(row)) == after
        )[0]

    # ----- its object

    def _sealed(self, cursor: Cursor, planned: Sequence[Placed]) -> Contents:
        """Write the object unless it stands, and read it back."""
        entries, held = self._range(cursor)
        body = self.objects.get(held.key)
        if body is not None:
            return prove(body, held, entries)
        made, _ = write(held, planned or self._commits(entries))
        # Proven first: what is written stands for ever, and a commit that is damaged may be mended.
        contents = prove(made, held, entries)
        # Something else may stand there by now. Whatever it is, it is read back, and counts if it is the log's.
        self.objects.put_new(held.key, made)
        body = self.objects.get(held.key)
        if body is None:
            raise Damaged(f"{held.key} was written, and is not there.")
        return contents if body == made else prove(body, held, entries)

    def _is_overtaken(self, cursor: Cursor) -> bool:
        """Tell whether somebody else is further with this range: commits are removed once its object stands."""
        if cursor != self._cursor():
            return True
        return bool(cursor.sealing) and self.objects.get(self._range(cursor)[1].key) is not None

    def _range(self, cursor: Cursor) -> tuple[list[Entry], Range]:
        entries = list(self._entries(cursor.position, until=cursor.sealing))
        first, last = entries[0], entries[-1]
        return entries, Range(self.tenant, self.number, first.position, last.last_position, first.leaf)

    def _entries(self, after: int, *, until: int | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Read on in the log; *limit* counts its segments."""
        pk = segment_key(self.tenant, self.number)
        for row in query(self.database, self.tables.log, pk, after=ordered(after), limit=limit):
            for entry in entries_of(self.number, row["first"], row["leaf"], row["refs"]):
                if until is not None and entry.position > until:
                    return
                if entry.position > after:
                    yield entry

    def _commits(self, entries: Iterable[Entry]) -> Iterator[Placed]:
        """
        Fetch the commits of *entries* from the table, in their order.

        Raises:
            Lost: the table does not have one.
            Damaged: what it has is no whole commit, or of another length.
        """
        left = iter(entries)
        while batch := list(islice(left, COMMITS_MAX)):
            places: list[RowKey] = [
                (self.tables.commits, stream_key(self.tenant, entry.reference.stream), entry.reference.first_version)
                for entry in batch
            ]
            rows = get_many(self.database, places)
            for entry, place in zip(batch, places, strict=True):
                if place not in rows:
                    raise Lost(f"{self.tenant}: commit {place[2]} of {entry.reference.stream!r}")
                stream, row = entry.reference.stream, _unkeyed(rows[place])
                if checked(stream, row)["n"] != entry.reference.events:
                    raise Tampered(
                        f"Version {row['sk']} of {stream!r} holds another number of events than the log says."
                    )
                yield Placed(stream, entry.position, row)

    # ----- from the table into the archive

    def _put_rows(self, contents: Contents) -> None:
        rows = [piece_row(contents.range, piece) for piece in contents.pieces]
        put_many(self.database, self.tables.log, [*rows, object_row(contents.range, contents.size_bytes)])

    def _remove_all(self, cursor: Cursor, contents: Contents) -> int:
        """Remove what is archived, from the stream on that *cursor* has come to; say how many commits went."""
        left = iter(list(contents.streams.items())[cursor.freed :])
        removed = 0
        while streams := list(islice(left, STREAMS_AT_ONCE)):
            removed += self._remove_together(streams)
            further = msgspec.structs.replace(cursor, freed=cursor.freed + len(streams))
            # Somebody else may be ahead. Nothing depends on it: who begins too early finds that commits are gone.
            self._move(cursor, further)
            cursor = further
        return removed

    def _remove_together(self, streams: Sequence[tuple[str, Sequence[Row]]]) -> int:
        if self.workers == 1:
            return sum(self._remove(stream, kept) for stream, kept in streams)
        with ThreadPoolExecutor(self.workers) as pool:
            # A deadline is kept in the context, which a thread does not have of itself.
            each = [pool.submit(copy_context().run, self._remove, stream, kept) for stream, kept in streams]
            return sum(one.result() for one in each)

    def _remove(self, stream: str, kept: Sequence[Row]) -> int:
        """Remove what the table holds of a stream up to the last commit of *kept*, oldest first; say how many went."""
        pk = stream_key(self.tenant, stream)
        # One more than could go, and one that stayed as the newest when an earlier range was archived.
        standing = query(self.database, self.tables.commits, pk, limit=len(kept) + 2)
        going = [checked(stream, row) for row in _going([_unkeyed(row) for row in standing], kept[-1])]
        same = {row["sk"]: row for row in kept}
        for row in going:
            is_known = row == same[row["sk"]] if row["sk"] in same else row["hash"] == kept[0]["prev"]
            if not is_known:
                raise Tampered(f"Version {row['sk']} of {stream!r} in the table is not what is archived.")
        return sum(self._delete(pk, row) for row in going)

    def _delete(self, pk: str, row: Row) -> bool:
        """Delete a commit if it still is what was archived, and say whether it was there."""
        request = delete_action(self.tables.commits, {"pk": pk, "sk": row["sk"]}, (Is("hash", row["hash"]),))
        try:
            self.database.write(
                "DeleteItem",
                request,
                # A commit never changes and, once gone, never comes back: what is refused now is so for ever.
                is_final=lambda _refusal: True,
                before_attempt=self._check_clock,
            )
        except Refused as refusal:
            if refusal.item is None:  # gone before: by an attempt whose reply was lost, or by somebody else
                return False
            raise Tampered(f"{pk} at {row['sk']} was changed while it was archived.") from refusal
        return True

    def _is_of_age(self, contents: Contents) -> bool:
        """Tell whether all of a range may go, whoever began it, by whatever clock and setting."""
        youngest = max(row["rt"] for kept in contents.streams.values() for row in kept)
        return from_micros(youngest) <= self.database.clock.now() - YOUNGEST

    def _check_clock(self) -> None:
        """Refuse to judge ages by a clock that is not the store's."""
        skew = self.database.skew
        if skew is not None and abs(skew) > CLOCK_SKEW_MAX:
            raise clock_fault(skew)


def _going(standing: Sequence[Row], last: Row) -> Sequence[Row]:
    """
    Choose which of the commits that stand in the table may go, up to the *last* archived one.

    Of what was read the newest stays. So whatever goes has a younger one behind it, and since streams only grow, it has
    for ever: a removal that arrives late takes nothing that another one would not have taken.
    """
    return [row for row in standing[:-1] if row["sk"] <= last["sk"]]


def _unkeyed(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "pk"}
