"""A small world for the log and what moves along it: tables, a clock, streams to write, and what must always hold."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from holdfast import proofs
from holdfast.clock import ManualClock
from holdfast.dynamodb import Database, DynamoEventStores, Tables, Transport
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.reads import get
from holdfast.envelope import MemoryKeyRing
from holdfast.log import PARTITIONS, Broken, Entry, Hint, Indexer, LogReader
from holdfast.log.bodies import Bodies
from holdfast.log.repair import Repair
from holdfast.projections import Generation, Key, Projector, Recorded, Tally, View
from holdfast.projections.reader import ViewReader
from holdfast.projections.rows import checkpoint_key
from holdfast.proofs import leaf_hash
from holdfast.sealing import Sealer
from holdfast.streams import RawCodec
from holdfast.streams.packing import header_of, root_of
from holdfast.subjects import ROLE as SUBJECTS_ROLE
from holdfast.subjects import KeyCache, SubjectKeys
from holdfast.switches import ROLE as SWITCHES_ROLE
from tests.memory_dynamodb import MemoryTransport
from tests.promises import event

_TENANTS = itertools.count()


@dataclass
class LogLab:
    """One tenant's streams, log and views on a fresh store."""

    transport: Transport
    tables: Tables
    tenant: str = field(default_factory=lambda: f"lab{next(_TENANTS)}")
    clock: ManualClock = field(default_factory=ManualClock)
    written: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    broken: list[Broken] = field(default_factory=list)

    def database(self, transport: Transport | None = None) -> Database:
        return Database.connect(transport or self.transport, self.clock)

    def fork(self) -> "LogLab":
        """Make a lab on a store in memory that stands where this one does, and goes its own way."""
        assert isinstance(self.transport, MemoryTransport)
        written = defaultdict(int, self.written)
        return replace(self, transport=self.transport.copy(), clock=copy(self.clock), written=written, broken=[])

    def append(self, stream: str, count: int = 1) -> Hint:
        """Append *count* events as one commit; return the hint of it."""
        store = DynamoEventStores(self.database(), RawCodec(), self.tables).of(self.tenant, "ann")
        before = self.written[stream]
        self.clock.advance(timedelta(milliseconds=7))
        events = [event(before + n, source=f"urn:{stream}") for n in range(1, count + 1)]
        answer = store.append(stream, before, events, commit_id=f"{stream}@{before}")
        self.written[stream] = answer.version
        return Hint(self.tenant, stream, answer.first_version)

    def grow(self, noise: random.Random, commits: int, streams: int = 5) -> list[Hint]:
        return [self.append(f"s/{noise.randrange(streams)}", noise.randrange(1, 5)) for _ in range(commits)]

    def indexer(self, transport: Transport | None = None) -> Indexer:
        return Indexer(self.database(transport), self.tables, self.broken.append)

    def repair(self) -> Repair:
        return Repair(self.database(), self.tables, self.indexer())

    def log(self, transport: Transport | None = None) -> LogReader:
        return LogReader(self.database(transport), self.tables, self.tenant)

    def views(self) -> ViewReader:
        return ViewReader(self.database(), self.tables, self.tenant)

    def projector(
        self, transport: Transport | None = None, effects: Any = None, views: Sequence[View] | None = None
    ) -> Projector:
        database, views = self.database(transport), views or [EveryEvent(), PerStream()]
        return Projector(database, self.tables, Bodies(database, self.tables), views, effects or {})

    def project(self, transport: Transport | None = None) -> None:
        projector = self.projector(transport)
        for partition in range(PARTITIONS):
            projector.project(self.tenant, partition)

    def entries(self) -> dict[int, list[Entry]]:
        return {partition: list(self.log().entries(partition)) for partition in range(PARTITIONS)}

    # ----- what must always hold

    def check_log(self) -> None:
        """The log is the union of its streams, each commit once, in order, without gaps, under its root."""
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for partition, entries in self.entries().items():
            head = self.log().head(partition)
            position = 1
            for leaf, entry in enumerate(entries):
                assert (entry.leaf, entry.position) == (leaf, position)
                position += entry.reference.events
                found[entry.reference.stream].append((entry.reference.first_version, entry.reference.events))
            assert (head.size, head.position) == (len(entries), position - 1)
            assert head.root == proofs.root(entry.reference.leaf_hash for entry in entries)
        for stream, version in self.written.items():
            expected = 1
            for first_version, events in found[stream]:
                assert first_version == expected, f"{stream} in the log: {found[stream]}"
                expected += events
            assert expected == version + 1
        assert set(found) == {stream for stream, version in self.written.items() if version}

    def check_leaves(self) -> None:
        """Every leaf is made of what the table holds, to the byte."""
        bodies = Bodies(self.database(), self.tables)
        for entries in self.entries().values():
            for entry, commit in bodies.of(self.tenant, entries):
                header = header_of(
                    tenant=self.tenant,
                    stream=commit.stream,
                    first_version=commit.first_version,
                    count=len(commit.events),
                    events_root=root_of(commit.events),
                    commit_id=commit.commit_id,
                    actor=commit.actor,
                    recorded_at=commit.recorded,
                    previous_hash=commit.previous_hash,
                )
                assert leaf_hash(header) == entry.reference.leaf_hash

    def check_views(self) -> None:
        for view in ("every", "per-stream"):
            self.check_views_of(view, 1)

    def check_views_of(self, view: str, number: int) -> None:
        """A view holds what a fold of the whole log from nothing holds, and its checkpoint counts it."""
        generation = Generation(view, number, self.tenant)
        for partition, expected in self._expected()[view].items():
            assert dict(self.views().rows(generation, str(partition))) == expected
            checkpoint = self.projector().checkpoint(generation, partition)
            tally = Tally()
            for sk, attributes in expected.items():
                tally = tally.plus(Key(str(partition), sk), attributes)
            assert checkpoint.tally == tally
            assert checkpoint.position == self.log().head(partition).position

    def corrupt(self, generation: Generation, partition: int) -> None:
        """Change a row behind the view's back, and what its checkpoint says of it."""
        pk, sk = checkpoint_key(generation, partition)
        row = get(self.database(), self.tables.views, pk, sk)
        assert row is not None
        item = to_item(row | {"rows": row["rows"] + 1})
        self.transport.call("PutItem", {"TableName": self.tables.views, "Item": item})

    def expected_rows(self) -> dict[int, dict[str, Any]]:
        return self._expected()["per-stream"]

    def _expected(self) -> dict[str, dict[int, dict[str, Any]]]:
        every: dict[int, dict[str, Any]] = {partition: {} for partition in range(PARTITIONS)}
        per_stream: dict[int, dict[str, Any]] = {partition: {} for partition in range(PARTITIONS)}
        for partition, entries in self.entries().items():
            for entry in entries:
                stream, first = entry.reference.stream, entry.reference.first_version
                for offset in range(entry.reference.events):
                    every[partition][f"{entry.position + offset:09d}"] = {"stream": stream, "v": first + offset}
                last = first + entry.reference.events - 1
                per_stream[partition][stream] = {"events": last, "sum": last * (last + 1) // 2}
        return {"every": every, "per-stream": per_stream}


class EveryEvent:
    """A listing view."""

    name, version = "every", 1

    def rows(self, event: Recorded) -> Iterator[tuple[Key, dict[str, Any]]]:
        yield Key(str(event.partition), f"{event.position:09d}"), {"stream": event.stream, "v": event.version}


class PerStream:
    """A counting view: counting anything twice shows in its sums."""

    name, version = "per-stream", 1

    def keys(self, event: Recorded) -> Sequence[Key]:
        return [Key(str(event.partition), event.stream)]

    def change(self, key: Key, row: Any, event: Recorded) -> dict[str, Any]:
        before = row or {"events": 0, "sum": 0}
        return {"events": before["events"] + 1, "sum": before["sum"] + event.version}


def memory_tables(transport: MemoryTransport) -> Tables:
    """Make a service's four tables."""
    transport.create_table("commits", "N")
    transport.create_table("operations", "N")
    transport.create_table("log", "S")
    transport.create_table("views", "S")
    roles = dict.fromkeys((SWITCHES_ROLE, SUBJECTS_ROLE), "operations")
    return Tables("commits", "operations", "log", "views", companions=roles)


def memory_sealer(database: Database, tables: Tables, tenant: str) -> Sealer:
    """Make a sealer whose ring is in this process's memory, and which has read no key yet."""
    return Sealer(SubjectKeys(database, tables, MemoryKeyRing(), tenant, KeyCache(database.clock)), tenant)


def log_lab() -> LogLab:
    """Make a lab on a store of its own."""
    transport = MemoryTransport()
    return LogLab(transport, memory_tables(transport))
