"""
Snapshots: folds that are kept, so that a state is read and not computed again from the first event.

A snapshot is of a stream, a reducer with its version, and a version at which a block of the stream closed; what it
was made of never changes, so neither does it. It is only ever a shortcut: whoever finds none, one of an older reducer,
or one that is damaged, which is told of, folds more events. Snapshots are made so far apart that they at most double
what a stream takes, and so close that loading one reads about twice its bytes, wherever in the stream that is: also a
log that follows late leaves none out.

A fold that sealed content has gone into is such content. Of one data subject's it is kept under that subject's key, and
nobody opens it once that is destroyed. Of several subjects' none is kept: it would have to be destroyed with each of
their keys. What is made after an erasure lies in a second chain beside the one that nobody opens any more.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

from holdfast.clock import to_micros
from holdfast.dynamodb.attributes import ordered, to_item
from holdfast.dynamodb.reads import Row, get, query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database, put_new
from holdfast.envelope import Context, DataKey, Forged, seal, unseal
from holdfast.errors import Unavailable
from holdfast.folds import Folded, Found, Reducer, Within, fold
from holdfast.log.blocks import Block
from holdfast.log.history import Bounds, History
from holdfast.log.reader import LogReader
from holdfast.log.values import SOLE
from holdfast.objects import Damaged, Objects
from holdfast.retry import seconds_left
from holdfast.sealing import Sealer
from holdfast.streams import Commit, EventStore

EVENTS_MIN: Final = 500
"""Events between two snapshots of a stream, and before the first."""
KEPT_AT_ONCE_MAX: Final = 1_000
"""Snapshots made by one call; whoever has more to make calls again."""
READ_ALONG: Final = 500
"""Versions read beyond the one asked for near the end: a stream that ends among them is not asked where it ends."""
INLINE_BYTES_MAX: Final = 300_000
"""Of a packed state that lies in its row; a larger one is an object."""
LOOKED_AT_MAX: Final = 4
"""Snapshots of one chain that are looked at, one before the other, until one is not damaged."""
CHAINS: Final = ("N", "NE")
"""The snapshots of a stream; and those made since the first ones cannot be opened any more."""


class Kept(msgspec.Struct, frozen=True):
    """The snapshots that one call has made, by version, and whether those were all that are due."""

    versions: tuple[int, ...]
    is_done: bool


class Snapshot(msgspec.Struct, frozen=True):
    """A fold of the first *version* events."""

    version: int = 0
    stored_bytes: int = 0
    """Of the commits it was made of."""
    size_bytes: int = 0
    """Its own."""
    folded: Folded | None = None

    def is_followed_by(self, block: Block) -> bool:
        """Tell whether the next snapshot is due at the end of *block*."""
        return block.version - self.version >= EVENTS_MIN and block.stored_bytes - self.stored_bytes >= self.size_bytes


NOTHING: Final = Snapshot()
"""Where a stream begins."""


@dataclass(frozen=True)
class Snapshots:
    """One tenant's snapshots, and states made with their help."""

    database: Database
    tables: Tables
    tenant: str
    store: EventStore[bytes]
    objects: Objects | None
    """Where states lie that no row holds; without it they are not kept."""
    sealer: Sealer
    on_damaged: Callable[[Exception], None] = lambda _error: None
    """Told, each time, of a snapshot that is not what was written; the one before it is used."""

    # ----- states

    def state(self, stream: str, reducer: Reducer, within: Within) -> Found:
        """
        Fold the events of *stream* that count, from the nearest snapshot on.

        What is appended meanwhile may count or not; the state is never of a version beyond the last one that is told.

        Raises:
            Invalid: 422 `state_too_large`.
        """
        if within.at is None and within.known_at is None:
            return self._by_version(stream, reducer, within.version)
        return self._by_time(stream, reducer, within)

    def _by_version(self, stream: str, reducer: Reducer, version: int | None) -> Found:
        """Fold the first *version* events, or all: what lies beyond a snapshot counts, so no blocks are looked at."""
        if version is None or version >= EVENTS_MIN:
            chain, newest = self._newest(stream, reducer, None)
            if version is None or (newest.version <= version and chain == CHAINS[0]):
                return self._near_the_end(stream, reducer, version, newest)
        start = self._before(stream, reducer, version)
        commits = self.store.read(stream, start.version, until=version)
        return Found(self._fold(commits, reducer, Within(version), start), self._last_version(stream))

    def _near_the_end(self, stream: str, reducer: Reducer, version: int | None, newest: Snapshot) -> Found:
        """Fold what lies beyond the newest snapshot; what is read for that mostly tells where the stream ends, too."""
        enough = None if version is None else version + READ_ALONG
        reading = _Reading(self.store.read(stream, newest.version), enough)
        folded = self._fold(reading, reducer, Within(version), newest)
        ends_at = self._last_version(stream) if reading.is_cut else max(newest.version, reading.version)
        return Found(folded, ends_at)

    def _by_time(self, stream: str, reducer: Reducer, within: Within) -> Found:
        last_version = self._last_version(stream)
        version = last_version if within.version is None else min(within.version, last_version)
        counted = msgspec.structs.replace(within, version=version)
        if version < EVENTS_MIN:
            commits = self.store.read(stream, until=version, at=within.at)
            return Found(self._fold(commits, reducer, counted, NOTHING), last_version)
        bounds = Bounds(version, _micros(within.at), _micros(within.known_at))
        history = self._history(stream)
        covered = history.covered(bounds)
        start = self._before(stream, reducer, covered.version) if covered else NOTHING
        commits = (
            commit
            for run in history.runs(start.version, bounds)
            for commit in self.store.read(stream, run.first - 1, until=run.last, at=within.at)
        )
        return Found(self._fold(commits, reducer, counted, start), last_version)

    def _last_version(self, stream: str) -> int:
        newest = self.store.last(stream)
        return newest.version if newest else 0

    def _fold(self, commits: Iterable[Commit[bytes]], reducer: Reducer, within: Within, start: Snapshot) -> Folded:
        return fold(commits, reducer, within, start=start.folded, opened=self.sealer.opened)

    def _before(self, stream: str, reducer: Reducer, version: int) -> Snapshot:
        """Find the newest snapshot up to *version*."""
        return NOTHING if version < EVENTS_MIN else self._newest(stream, reducer, version)[1]

    # ----- keeping

    def keep(self, stream: str, reducer: Reducer) -> Kept:
        """
        Make the snapshots that are due, from the last one on, as far as the time for it goes.

        May be repeated, and run beside itself: the snapshots are the same.

        Raises:
            Invalid: 422 `state_too_large`; those before are made.
        """
        versions: list[int] = []
        try:
            for version in self._keeping(stream, reducer):
                versions.append(version)
                if len(versions) == KEPT_AT_ONCE_MAX or seconds_left() <= 0:
                    return Kept(tuple(versions), is_done=False)
        except Unavailable as error:
            if error.code != "out_of_time":
                raise
            return Kept(tuple(versions), is_done=False)
        return Kept(tuple(versions), is_done=True)

    def _keeping(self, stream: str, reducer: Reducer) -> Iterator[int]:
        """Make snapshots in one pass over the commits; yield the version of each."""
        chain, before = self._newest(stream, reducer, None)
        if chain is None or self._is_mixed(stream):
            return
        history = self._history(stream)
        commits = self.store.read(stream, before.version, until=history.watermark.open_from - 1)
        for block in history.closed(before.version):
            if not before.is_followed_by(block):
                continue
            folded = self._fold(_up_to(commits, block.version), reducer, Within(), before)
            if len(folded.subjects) > 1:
                self._note_mixed(stream, block.version)
                return
            kept = self._put(_key(chain, self.tenant, stream, reducer, block.version), block, folded)
            if kept is None:
                return
            yield kept.version
            before = kept

    def _is_mixed(self, stream: str) -> bool:
        """Tell whether content of several subjects was met in the stream before."""
        return get(self.database, self.tables.log, _mixed_pk(self.tenant, stream), SOLE) is not None

    def _note_mixed(self, stream: str, version: int) -> None:
        row: Row = {"pk": _mixed_pk(self.tenant, stream), "sk": SOLE, "v": version}
        put_new(self.database, self.tables.log, to_item(row))

    def _history(self, stream: str) -> History:
        watermark = LogReader(self.database, self.tables, self.tenant).watermark(stream)
        return History(self.database, self.tables, self.tenant, stream, watermark)

    # ----- rows

    def _newest(self, stream: str, reducer: Reducer, version: int | None) -> tuple[str | None, Snapshot]:
        """Find the newest snapshot that can be opened, and the chain that it is of; no chain if no further one is."""
        until = None if version is None else ordered(version)
        for chain in CHAINS:
            pk = _key(chain, self.tenant, stream, reducer, 0)["pk"]
            rows = query(
                self.database, self.tables.log, pk, until=until, newest_first=True, limit=LOOKED_AT_MAX, first_page=1
            )
            snapshot = self._first_opened(rows)
            if snapshot is not None:
                return chain, snapshot
        return None, NOTHING

    def _first_opened(self, rows: Iterable[Row]) -> Snapshot | None:
        """Open the first of *rows* that is not damaged; None if nobody can any more, or all that may be are damaged."""
        damaged = 0
        for row in rows:
            try:
                return self._opened(row)
            except (Damaged, Forged) as error:
                self.on_damaged(error)
                damaged += 1
        return None if damaged == LOOKED_AT_MAX else NOTHING

    def _opened(self, row: Row) -> Snapshot | None:
        """
        Open a snapshot; None if nobody can any more.

        Raises:
            Damaged, Forged: it is not what was written.
        """
        subject = row.get("subject")
        key = None if subject is None else self.sealer.keys.peek(subject)
        if subject is not None and not isinstance(key, DataKey):
            return None
        packed = row["state"]
        if packed is None:
            if self.objects is None:
                return None
            packed = self.objects.get(row["object"])
            if packed is None:
                raise Damaged(f"{row['object']} is not there.")
        size_bytes = len(packed)
        if isinstance(key, DataKey):
            packed = unseal(packed, key, self._context(row))
        try:
            folded = _FOLDED.decode(zlib.decompress(packed))
        except (zlib.error, msgspec.MsgspecError) as error:
            raise Damaged(f"The snapshot {row['pk']!r} at version {int(row['sk'])} is no state.") from error
        return Snapshot(int(row["sk"]), row["stored"], size_bytes, folded)

    def _put(self, key: Row, end: Block, folded: Folded) -> Snapshot | None:
        """Write a snapshot; None if it may not be kept, or cannot."""
        packed = zlib.compress(msgspec.json.encode(folded))
        row: Row = {**key, "stored": end.stored_bytes}
        if folded.subjects:
            (row["subject"],) = folded.subjects
            data_key = self.sealer.keys.peek(row["subject"])
            if not isinstance(data_key, DataKey):
                return None
            packed = seal(packed, data_key, self._context(row))
        row["state"] = packed
        if len(packed) > INLINE_BYTES_MAX:
            if self.objects is None:
                return None
            name = sha256(row["pk"].encode()).hexdigest()
            row |= {"state": None, "object": f"snapshots/{self.tenant}/{name}/{row['sk']}"}
            try:
                self.objects.put_new(row["object"], packed)
            except Damaged as error:  # what stands there stays, and the next snapshot is made all the same
                self.on_damaged(error)
        put_new(self.database, self.tables.log, to_item(row))
        return Snapshot(end.version, end.stored_bytes, len(packed), folded)

    def _context(self, row: Row) -> Context:
        return {"tenant": self.tenant, "subject": row["subject"], "snapshot": row["pk"], "version": row["sk"]}


class _Reading:
    """Commits as they are read, up to the one that reaches version *enough*; what has been read is told meanwhile."""

    def __init__(self, commits: Iterator[Commit[bytes]], enough: int | None) -> None:
        self._commits = commits
        self._enough = enough
        self.version = 0
        self.is_cut = False

    def __iter__(self) -> Iterator[Commit[bytes]]:
        for commit in self._commits:
            self.version = commit.version
            yield commit
            if self._enough is not None and commit.version >= self._enough:
                self.is_cut = True
                return


def _up_to(commits: Iterator[Commit[bytes]], version: int) -> Iterator[Commit[bytes]]:
    """Yield the commits up to the one that ends at *version*, and leave the others to be read."""
    for commit in commits:
        yield commit
        if commit.version >= version:
            return


_FOLDED: Final = msgspec.json.Decoder(Folded)


def _key(chain: str, tenant: str, stream: str, reducer: Reducer, version: int) -> Row:
    return {"pk": f"{chain}#{tenant}#{reducer.label}#{stream}", "sk": ordered(version)}


def _mixed_pk(tenant: str, stream: str) -> str:
    return f"NS#{tenant}#{stream}"


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else to_micros(moment)
