"""
Snapshots: folds that are kept, so that a state is read and not computed again from the first event.

A snapshot is of a stream, a reducer with its version, and a version at which a block of the stream closed; what it
was made of never changes, so neither does it. It is only ever a shortcut: whoever finds none, or one of an older
reducer, folds more events. Snapshots are made so far apart that they at most double what a stream takes, and so close
that loading one reads about twice its bytes. A stream with sealed events has none: a fold would keep what erasing a
subject's key must destroy.
"""

import zlib
from collections.abc import Iterator
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
from holdfast.folds import Folded, Open, Reducer, Within, fold
from holdfast.log.blocks import EVENTS_CLOSE, Block
from holdfast.log.history import Bounds, History
from holdfast.log.reader import LogReader
from holdfast.log.values import SOLE
from holdfast.objects import Objects
from holdfast.streams import Commit, EventStore

EVENTS_MIN: Final = 500
"""Events between two snapshots of a stream, at least."""
INLINE_BYTES_MAX: Final = 300_000
"""Of a packed state that lies in its row; a larger one is an object."""


class Snapshot(msgspec.Struct, frozen=True):
    """A fold of the first *version* events."""

    version: int
    stored_bytes: int
    """Of the commits it was made of."""
    size_bytes: int
    """Its own."""
    folded: Folded


@dataclass(frozen=True)
class Snapshots:
    """One tenant's snapshots, and states made with their help."""

    database: Database
    tables: Tables
    tenant: str
    store: EventStore[bytes]
    objects: Objects | None
    """Where states lie that no row holds; without it they are not kept."""

    def state(
        self, stream: str, reducer: Reducer, within: Within, last_version: int, *, opened: Open | None = None
    ) -> Folded:
        """
        Fold the events of *stream* that count, from the nearest snapshot on; sealed ones are opened by *opened*.

        Raises:
            Invalid: 422 `state_too_large`.
        """
        version = last_version if within.version is None else min(within.version, last_version)
        bounds = Bounds(version, _micros(within.at), _micros(within.known_at))
        counted = msgspec.structs.replace(within, version=version)
        if version < EVENTS_CLOSE:
            return fold(self.store.read(stream, until=version), reducer, counted, opened=opened)
        history = self._history(stream)
        block = history.covered(bounds)
        start = self._newest(stream, reducer, block.version) if block else None
        commits = self._commits(stream, history, start.version if start else 0, bounds)
        return fold(commits, reducer, counted, start=start.folded if start else None, opened=opened)

    def keep(self, stream: str, reducer: Reducer) -> Snapshot | None:
        """
        Make a snapshot at the newest closed block, if it is time for one; return it then.

        May be repeated, and run beside itself: the snapshot is the same.
        """
        history = self._history(stream)
        end = history.covered(Bounds(history.watermark.version))
        if end is None or self._is_sealed(stream):
            return None
        before = self._newest(stream, reducer, end.version)
        if before and (
            end.version - before.version < EVENTS_MIN or end.stored_bytes - before.stored_bytes < before.size_bytes
        ):
            return None
        start = before.version if before else 0
        commits = self._commits(stream, history, start, Bounds(end.version))
        folded = fold(commits, reducer, Within(end.version), start=before.folded if before else None)
        if folded.events_sealed:
            self._note_sealed(stream, end.version)
            return None
        return self._put(stream, reducer, end, folded)

    def _is_sealed(self, stream: str) -> bool:
        """Tell whether sealed events were met in the stream before: there are some for ever."""
        return get(self.database, self.tables.log, _sealed_pk(self.tenant, stream), SOLE) is not None

    def _note_sealed(self, stream: str, version: int) -> None:
        row: Row = {"pk": _sealed_pk(self.tenant, stream), "sk": SOLE, "v": version}
        put_new(self.database, self.tables.log, to_item(row))

    def _history(self, stream: str) -> History:
        watermark = LogReader(self.database, self.tables, self.tenant).watermark(stream)
        return History(self.database, self.tables, self.tenant, stream, watermark)

    def _commits(self, stream: str, history: History, after: int, bounds: Bounds) -> Iterator[Commit[bytes]]:
        for run in history.runs(after, bounds):
            yield from self.store.read(stream, run.first - 1, until=run.last)

    def _newest(self, stream: str, reducer: Reducer, version: int) -> Snapshot | None:
        pk = _pk(self.tenant, stream, reducer)
        row = next(query(self.database, self.tables.log, pk, until=ordered(version), newest_first=True, limit=1), None)
        return self._snapshot_of(row) if row else None

    def _snapshot_of(self, row: Row) -> Snapshot | None:
        packed = row["state"]
        if packed is None:
            packed = self.objects.get(row["object"]) if self.objects else None
            if packed is None:
                return None
        return Snapshot(
            version=int(row["sk"]),
            stored_bytes=row["stored"],
            size_bytes=len(packed),
            folded=_FOLDED.decode(zlib.decompress(packed)),
        )

    def _put(self, stream: str, reducer: Reducer, end: Block, folded: Folded) -> Snapshot | None:
        packed = zlib.compress(msgspec.json.encode(folded))
        row: Row = {
            "pk": _pk(self.tenant, stream, reducer),
            "sk": ordered(end.version),
            "stored": end.stored_bytes,
            "state": packed,
        }
        if len(packed) > INLINE_BYTES_MAX:
            if self.objects is None:
                return None
            name = sha256(row["pk"].encode()).hexdigest()
            key = f"snapshots/{self.tenant}/{name}/{row['sk']}"
            self.objects.put_new(key, packed)
            row |= {"state": None, "object": key}
        put_new(self.database, self.tables.log, to_item(row))
        return Snapshot(end.version, end.stored_bytes, len(packed), folded)


_FOLDED: Final = msgspec.json.Decoder(Folded)


def _pk(tenant: str, stream: str, reducer: Reducer) -> str:
    return f"N#{tenant}#{reducer.label}#{stream}"


def _sealed_pk(tenant: str, stream: str) -> str:
    return f"NS#{tenant}#{stream}"


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else to_micros(moment)
