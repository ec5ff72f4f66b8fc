"""A small world for the archive: streams, their log, objects in memory, and what must always hold of all three."""

import copy
import dataclasses
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from holdfast.archive import Archiver, ArchiveReader, Stuck
from holdfast.archive.format import version_of
from holdfast.dynamodb import DynamoEventStore, DynamoEventStores, Transport
from holdfast.dynamodb.attributes import from_item
from holdfast.dynamodb.reads import Row, query
from holdfast.log import PARTITIONS, Hint, partition_of
from holdfast.log.bodies import Bodies
from holdfast.objects import MemoryObjects, Objects
from holdfast.proofs import leaf_hash
from holdfast.streams import RawCodec
from holdfast.streams.packing import header_of, root_of
from tests.log_lab import LogLab, memory_tables
from tests.memory_dynamodb import MemoryTransport
from tests.promises import event

AGED = timedelta(days=100)


@dataclass
class ArchiveLab(LogLab):
    """One tenant's streams, and an archive of them."""

    objects: MemoryObjects = field(default_factory=MemoryObjects)
    stuck: list[Stuck] = field(default_factory=list)

    def fork(self) -> "ArchiveLab":
        """Make a world that begins where this one stands."""
        assert isinstance(self.transport, MemoryTransport)
        return ArchiveLab(
            self.transport.copy(),
            self.tables,
            self.tenant,
            copy.deepcopy(self.clock),
            defaultdict(int, self.written),
            objects=MemoryObjects(dict(self.objects._bodies)),
        )

    def archiver(self, transport: Transport | None = None, objects: Objects | None = None, **options: Any) -> Archiver:
        """Make an archiver that does one thing after the other, so that a run is the same each time."""
        options = {"workers": 1, **options}
        return Archiver(self.database(transport), self.tables, objects or self.objects, self.stuck.append, **options)

    def reader(self, transport: Transport | None = None, objects: Objects | None = None) -> ArchiveReader:
        return ArchiveReader(self.database(transport), self.tables, objects or self.objects)

    def store(self) -> DynamoEventStore[bytes]:
        return self.store_with(self.reader())

    def store_with(self, archive: ArchiveReader | None, transport: Transport | None = None) -> DynamoEventStore[bytes]:
        stores = DynamoEventStores(self.database(transport), RawCodec(), self.tables, archive)
        return stores.of(self.tenant, "ann")

    def index(self, hints: list[Hint] | None = None) -> None:
        """Index what *hints* name, or everything."""
        everything = [Hint(self.tenant, stream, version) for stream, version in self.written.items() if version]
        self.indexer().index(hints or everything)

    def age(self, by: timedelta = AGED) -> None:
        self.clock.advance(by)

    def hot(self, stream: str) -> list[Row]:
        return list(query(self.database(), self.tables.commits, f"S#{self.tenant}#{stream}"))

    def raw(self, stream: str, sk: int) -> dict[str, Any]:
        key = {"pk": {"S": f"S#{self.tenant}#{stream}"}, "sk": {"N": str(sk)}}
        item = self.transport.call("GetItem", {"TableName": self.tables.commits, "Key": key}).body.get("Item")
        return dict(item) if item else {}

    def put_raw(self, item: dict[str, Any]) -> None:
        self.transport.call("PutItem", {"TableName": self.tables.commits, "Item": item})

    # ----- what must always hold

    def check(self) -> None:
        """Nothing is lost, all is readable by stream and by log, and every stream's end stands in the table."""
        assert self.stuck == []
        for stream, version in self.written.items():
            if version:
                self.check_stream(stream, version)
        self.check_leaves()

    def check_stream(self, stream: str, version: int) -> None:
        expected = [event(n, source=f"urn:{stream}") for n in range(1, version + 1)]
        forward = list(self.store().read(stream))
        assert [one for commit in forward for one in commit.events] == expected
        back = list(self.store().read_back(stream))
        facts = [(commit.first_version, commit.events, commit.hash, commit.fingerprint) for commit in forward]
        assert [(one.first_version, one.events, one.hash, one.fingerprint) for one in reversed(back)] == facts
        hot = self.hot(stream)
        assert hot, f"nothing of {stream} stands in the table"
        assert version_of(hot[-1]) == version, f"the newest commit of {stream} is gone"
        assert [row["sk"] for row in hot[1:]] == [version_of(row) + 1 for row in hot[:-1]]

    def bodies(self, archive: ArchiveReader, transport: Transport | None = None) -> Bodies:
        return Bodies(self.database(transport), self.tables, archive)

    def check_leaves(self) -> None:
        bodies = self.bodies(self.reader())
        for partition in range(PARTITIONS):
            entries = list(self.log().entries(partition))
            found = list(bodies.of(self.tenant, entries))
            assert [entry for entry, _ in found] == entries
            for entry, commit in found:
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

    def hot_commits(self) -> int:
        return sum(len(self.hot(stream)) for stream in self.written)

    def log_rows(self, prefix: str) -> list[Row]:
        return [row for row in self.rows(self.tables.log) if row["pk"].startswith(prefix)]

    def rows(self, table: str) -> list[Row]:
        """Read a table whole, in order."""
        assert isinstance(self.transport, MemoryTransport)
        return sorted(map(from_item, self.transport.rows(table)), key=lambda row: (row["pk"], row["sk"]))


def archive_lab() -> ArchiveLab:
    """Make a lab on a store of its own, with a table for companions."""
    transport = MemoryTransport()
    transport.create_table("balances", "N")
    tables = dataclasses.replace(memory_tables(transport), companions={"balances": "balances"})
    return ArchiveLab(transport, tables)


def streams_together(count: int) -> list[str]:
    """Name streams that lie in one partition."""
    names = (f"s/{number}" for number in range(1_000))
    return [name for name in names if partition_of(name) == 0][:count]
