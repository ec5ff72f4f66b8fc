"""
Reading one tenant's streams, from the table and from the archive, as if all of it were one.

The table holds the end of every stream, and the archive what came before. Where the versions that the table shows do
not follow each other, the archive is asked for what lies between; it has it from before the moment the table lost it.
"""

import math
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from itertools import chain
from typing import Final, Generic, Protocol, TypeVar

from holdfast.clock import EPOCH, Clock, Instant, from_micros, to_micros
from holdfast.dynamodb.reads import Row, get, query
from holdfast.dynamodb.tables import stream_key
from holdfast.dynamodb.writes import Database
from holdfast.streams.packing import unpack
from holdfast.streams.values import Commit, check_stream

E = TypeVar("E")

SUPERSEDED: Final = Instant(EPOCH, float("-inf"))
"""
When the end of a stream was read at a commit that was not its end: never, so nothing is appended to it unread. What
stands behind an old commit may be archived, and its key is free.
"""


class StreamArchive(Protocol):
    """Where commits are that have left the table, as the rows that they were."""

    def read(self, tenant: str, stream: str, first: int, last: int) -> Iterator[Row]:
        """Yield the archived commits that hold versions *first* to *last*, in order."""

    def read_back(self, tenant: str, stream: str, first: int, last: int) -> Iterator[Row]:
        """Yield the archived commits that hold versions *first* to *last*, the newest first."""


class NoStreamArchive:
    """The archive of a service that has none."""

    def read(self, tenant: str, stream: str, first: int, last: int) -> Iterator[Row]:  # noqa: ARG002
        yield from ()

    def read_back(self, tenant: str, stream: str, first: int, last: int) -> Iterator[Row]:  # noqa: ARG002
        yield from ()


class Hole(Exception):
    """Versions of a stream are neither in the table nor in the archive."""

    def __init__(self, stream: str, first: int, last: int) -> None:
        super().__init__(f"versions {first} to {last} of {stream!r} are missing")


class StreamReader(Generic[E]):
    """One tenant's streams. See `EventStore` for the promises."""

    def __init__(
        self, database: Database, table: str, tenant: str, decode: Callable[[bytes], E], archive: StreamArchive
    ) -> None:
        self._database = database
        self._table = table
        self._tenant = tenant
        self._decode = decode
        self._archive = archive

    def read(self, stream: str, after: int, until: int | None, at: datetime | None = None) -> Iterator[Commit[E]]:
        asked_at, latest = instant(self._database.clock), math.inf if at is None else to_micros(at)
        held: Row | None = None
        for row in self._rows(stream, after, until):
            if held and held["tlo"] <= latest:
                yield self._commit(stream, held, SUPERSEDED)
            held = row
        if held and held["tlo"] <= latest:
            is_end = until is None or _version(held) < until
            yield self._commit(stream, held, asked_at if is_end else SUPERSEDED)

    def read_back(self, stream: str, before: int | None) -> Iterator[Commit[E]]:
        asked_at = instant(self._database.clock) if before is None else SUPERSEDED
        for row in self._rows_back(stream, before):
            yield self._commit(stream, row, asked_at)
            asked_at = SUPERSEDED

    def last(self, stream: str) -> Commit[E] | None:
        asked_at = instant(self._database.clock)
        row = next(query(self._database, self._table, self._key(stream), newest_first=True, limit=1), None)
        return self._commit(stream, row, asked_at) if row else None

    def at(self, stream: str, first_version: int) -> Commit[E] | None:
        """Find the commit that begins at *first_version*; one that begins elsewhere is another."""
        row = get(self._database, self._table, self._key(stream), first_version)
        row = row or next(self._archive.read(self._tenant, stream, first_version, first_version), None)
        return self._commit(stream, row, SUPERSEDED) if row and row["sk"] == first_version else None

    # ----- rows

    def _rows(self, stream: str, after: int, until: int | None) -> Iterator[Row]:
        key, wanted = self._key(stream), after + 1
        last = None if until is None else max(until, wanted)
        standing = self._standing(key, wanted, until)
        nearest = next(standing, None)
        if after > 0 and (nearest is None or nearest["sk"] > wanted):
            # The commit that holds the version wanted may begin before it.
            around = next(query(self._database, self._table, key, until=after, newest_first=True, limit=1), None)
            if around and _version(around) > after:
                if until is not None and around["sk"] > until:
                    return
                yield around
                wanted = _version(around) + 1
        for row in chain([nearest] if nearest else (), standing):
            if row["sk"] > wanted:
                wanted = yield from self._archived(stream, wanted, row["sk"] - 1, is_due=True)
            yield row
            wanted = _version(row) + 1
        if last is not None and wanted <= last:
            # Either all of it is archived, or the stream ends before.
            for row in self._archived(stream, wanted, last, is_due=False):
                if until is not None and row["sk"] > until:
                    return
                yield row

    def _standing(self, key: str, first: int, until: int | None) -> Iterator[Row]:
        if until is None:
            return query(self._database, self._table, key, first=first)
        return query(self._database, self._table, key, first=first, until=until) if first <= until else iter(())

    def _archived(self, stream: str, first: int, last: int, *, is_due: bool) -> Generator[Row, None, int]:
        """
        Yield the archived commits from version *first* on, and return the version behind them.

        They are all there, or, unless they are due, none of them.
        """
        wanted = first
        for row in self._archive.read(self._tenant, stream, first, last):
            if not row["sk"] <= wanted <= _version(row):
                raise Hole(stream, wanted, row["sk"] - 1)
            yield row
            wanted = _version(row) + 1
        if wanted <= last and (is_due or wanted > first):
            raise Hole(stream, wanted, last)
        return wanted

    def _rows_back(self, stream: str, before: int | None) -> Iterator[Row]:
        wanted = None if before is None else before - 1
        is_begun = False
        for row in query(self._database, self._table, self._key(stream), after=before, newest_first=True):
            if wanted is not None and _version(row) < wanted:
                yield from self._archived_back(stream, _version(row) + 1, wanted, is_due=is_begun)
            yield row
            wanted, is_begun = row["sk"] - 1, True
        if wanted:
            yield from self._archived_back(stream, 1, wanted, is_due=is_begun)

    def _archived_back(self, stream: str, first: int, last: int, *, is_due: bool) -> Iterator[Row]:
        wanted = last
        for row in self._archive.read_back(self._tenant, stream, first, last):
            if not row["sk"] <= wanted <= _version(row):
                raise Hole(stream, _version(row) + 1, wanted)
            yield row
            wanted = row["sk"] - 1
        if wanted >= first and (is_due or wanted < last):
            raise Hole(stream, first, wanted)

    def _key(self, stream: str) -> str:
        return stream_key(self._tenant, check_stream(stream))

    def _commit(self, stream: str, row: Row, read_at: Instant) -> Commit[E]:
        return commit_of(self._tenant, stream, row, self._decode, read_at)


def instant(clock: Clock) -> Instant:
    """Say when something is asked for: what the answer tells is no older, however late it is looked at."""
    return Instant.of(clock)


def commit_of(tenant: str, stream: str, row: Row, decode: Callable[[bytes], E], read_at: Instant) -> Commit[E]:
    return Commit(
        tenant=tenant,
        stream=stream,
        first_version=row["sk"],
        events=tuple(decode(event) for event in unpack(row["ev"])),
        commit_id=row["commit_id"],
        fingerprint=row["fp"],
        actor=row["actor"],
        recorded_at=from_micros(row["rt"]),
        previous_hash=row["prev"],
        hash=row["hash"],
        read_at=read_at,
    )


def _version(row: Row) -> int:
    version: int = row["sk"] + row["n"] - 1
    return version
