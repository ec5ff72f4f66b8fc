"""The commits behind log entries, with their events."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import msgspec

from holdfast.clock import from_micros
from holdfast.dynamodb.reads import Row, RowKey, get_many
from holdfast.dynamodb.tables import Tables, stream_key
from holdfast.dynamodb.writes import Database
from holdfast.log.values import Entry
from holdfast.streams.packing import unpack

COMMITS_MAX: Final = 40
"""Commits fetched at a time: at their largest (380 KB each) they fit the 16 MB of one answer."""


class Stored(msgspec.Struct, frozen=True):
    """A commit as it lies in its table or in the archive: its events still packed."""

    stream: str
    first_version: int
    packed: bytes
    actor: str
    commit_id: str
    recorded_at: int
    previous_hash: bytes
    events_root: bytes
    hash: bytes

    @property
    def events(self) -> tuple[bytes, ...]:
        return unpack(self.packed)

    @property
    def recorded(self) -> datetime:
        return from_micros(self.recorded_at)


def stored_of(stream: str, row: Row) -> Stored:
    return Stored(
        stream=stream,
        first_version=row["sk"],
        packed=row["ev"],
        actor=row["actor"],
        commit_id=row["commit_id"],
        recorded_at=row["rt"],
        previous_hash=row["prev"],
        events_root=row["root"],
        hash=row["hash"],
    )


class LogArchive(Protocol):
    """Where commits are that have left the table."""

    def commits(self, tenant: str, entries: Sequence[Entry]) -> Iterable[Stored]:
        """Fetch what the archive holds of *entries*, in any order."""


class NoLogArchive:
    """The archive of a service that has none."""

    def commits(self, tenant: str, entries: Sequence[Entry]) -> Iterable[Stored]:  # noqa: ARG002 - there is nothing
        return ()


class Lost(Exception):
    """The log names a commit that neither the table nor the archive has."""


@dataclass(frozen=True)
class Bodies:
    """Fetch commits, wherever they lie."""

    database: Database
    tables: Tables
    archive: LogArchive = NoLogArchive()  # noqa: RUF009 - it has no state

    def of(self, tenant: str, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Stored]]:
        """
        Yield each entry with its commit, in order, fetched COMMITS_MAX at a time.

        Raises:
            Lost: a commit is nowhere.
        """
        batch: list[Entry] = []
        for entry in entries:
            batch.append(entry)
            if len(batch) == COMMITS_MAX:
                yield from self._fetched(tenant, batch)
                batch = []
        yield from self._fetched(tenant, batch)

    def _fetched(self, tenant: str, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Stored]]:
        keys: dict[tuple[str, int], RowKey] = {
            _key(entry): (
                self.tables.commits,
                stream_key(tenant, entry.reference.stream),
                entry.reference.first_version,
            )
            for entry in entries
        }
        rows = get_many(self.database, list(keys.values()))
        found = {key: stored_of(key[0], row) for key, place in keys.items() if (row := rows.get(place))}
        missing = [entry for entry in entries if _key(entry) not in found]
        if missing:
            found |= {(each.stream, each.first_version): each for each in self.archive.commits(tenant, missing)}
        for entry in entries:
            if _key(entry) not in found:
                raise Lost(f"{tenant}: commit {entry.reference.first_version} of {entry.reference.stream!r}")
            yield entry, found[_key(entry)]


def _key(entry: Entry) -> tuple[str, int]:
    return entry.reference.stream, entry.reference.first_version
