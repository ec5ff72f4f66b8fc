"""Connections, topics and tails, with a DynamoDB, a post and a log in memory."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdfast.auth import Principal
from holdfast.broadcast import Broadcast, Connection, Door, Gone, Tickets
from holdfast.clock import ManualClock
from holdfast.dynamodb import Database, Tables, Transport
from holdfast.dynamodb.reads import Row, query
from holdfast.log.values import PARTITIONS, partition_of
from holdfast.tailing import Tailed, Tailing
from tests.memory_dynamodb import MemoryTransport

ANN = Principal("acme", "ann", frozenset({"audit:read"}), "jti-ann", expires=2**40)

_NUMBERS = itertools.count()


@dataclass
class MemoryPost:
    """Takes frames for the connections that are open; what else it shall do is told by the test."""

    open: set[str] = field(default_factory=set)
    taken: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    before: Callable[[str], None] = lambda _connection_id: None

    def send(self, connection_id: str, frame: bytes) -> None:
        self.before(connection_id)
        if connection_id not in self.open:
            raise Gone(connection_id)
        self.taken[connection_id].append(frame)

    def close(self, connection_id: str) -> None:
        self.open.discard(connection_id)

    def heard(self, connection_id: str) -> list[Any]:
        """Give the messages that a connection was sent, and forget them."""
        frames = self.taken.pop(connection_id, [])
        return [msgspec.json.decode(line) for frame in frames for line in frame.split(b"\n")]


@dataclass
class MemoryLog:
    """A log of one tenant: a `TailLog`."""

    entries: dict[int, list[Tailed]] = field(default_factory=lambda: defaultdict(list))
    read: int = 0

    def append(self, stream: str, *events: bytes) -> None:
        partition = partition_of(stream)
        held = self.entries[partition]
        held += [Tailed(partition, position, stream, each) for position, each in enumerate(events, len(held) + 1)]

    def positions(self, tenant: str) -> Sequence[int]:
        return [len(self.entries[partition]) for partition in range(PARTITIONS)]

    def events(
        self, tenant: str, partition: int, *, after: int, until: int, wanted: Callable[[str], bool]
    ) -> Iterator[Tailed]:
        for event in self.entries[partition][after:until]:
            if wanted(event.stream):
                self.read += 1
                yield event


def views_table(name: str) -> MemoryTransport:
    made = MemoryTransport()
    made.create_table(name, "S")
    return made


@dataclass
class BroadcastLab:
    """One service's connections, in a table of their own."""

    transport: Transport = field(default_factory=lambda: views_table("views"))
    table: str = "views"
    clock: ManualClock = field(default_factory=ManualClock)
    post: MemoryPost = field(default_factory=MemoryPost)
    log: MemoryLog = field(default_factory=MemoryLog)
    revoked: set[str] = field(default_factory=set)

    def database(self, transport: Transport | None = None) -> Database:
        return Database.connect(transport or self.transport, self.clock)

    @property
    def tables(self) -> Tables:
        return Tables(commits="", operations="", views=self.table)

    def tickets(self, transport: Transport | None = None) -> Tickets:
        return Tickets(self.database(transport), self.tables)

    def broadcast(self, transport: Transport | None = None) -> Broadcast:
        return Broadcast(self.database(transport), self.tables, self.post, is_revoked=self.revoked.__contains__)

    def tailing(self, transport: Transport | None = None) -> Tailing:
        return Tailing(self.broadcast(transport), self.log, scope="audit:read")

    def door(self, transport: Transport | None = None) -> Door:
        return Door(self.tickets(transport), self.broadcast(transport), self.tailing(transport))

    def connect(self, connection_id: str = "c1", principal: Principal = ANN) -> Connection:
        self.post.open.add(connection_id)
        return self.broadcast().connect(connection_id, principal)

    def listen(self, connection_id: str = "c1", principal: Principal = ANN, **message: Any) -> Connection:
        """Connect and subscribe; what this answers is heard already."""
        connection = self.connect(connection_id, principal)
        self.tailing()(connection, {"type": "subscribe", **message}, request_id=f"r-{next(_NUMBERS)}")
        self.post.heard(connection_id)
        return connection

    def rows(self) -> list[tuple[str, str]]:
        """List what stands in the table, by key."""
        scanned = self.transport.call("Scan", {"TableName": self.table}).body["Items"]
        return sorted((row["pk"]["S"], row["sk"]["S"]) for row in scanned)

    def row(self, pk: str) -> list[Row]:
        return list(query(self.database(), self.table, pk))
