"""
What each operation costs: requests, and capacity units as AWS counts them. Exact, so asserted by a test and not timed.

Counted on a DynamoDB in memory. A world is grown first, and only then is the one operation counted; what comes for the
first time (the first commit of a stream, of a partition) may cost a row more and is counted apart.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec

from functions.audit.domain.views import VIEWS
from functions.audit.service import AuditTrail
from functions.audit.service.proving import Prover
from holdfast.clock import ManualClock, to_text
from holdfast.dynamodb import Database, DynamoEventStores
from holdfast.folds import MERGE_PATCH
from holdfast.log import Hint, Indexer, LogReader
from holdfast.log.bodies import Bodies
from holdfast.log.heads import heads
from holdfast.log.tiles import Tiles
from holdfast.log.values import partition_of
from holdfast.objects import MemoryObjects
from holdfast.projections import Generation, Projector
from holdfast.projections.views import View
from holdfast.snapshots import Snapshots
from holdfast.streams import RawCodec
from tests.capacity import Capacity, Cost
from tests.log_lab import memory_sealer, memory_tables
from tests.memory_dynamodb import MemoryTransport

TENANT: Final = "acme"
STREAM: Final = "orders/1"
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
BATCH: Final = 250
"""Events of a large commit."""
STREAMS_AT_ONCE: Final = 10
"""Streams of one batch of the indexer's."""
PROOF_LEAVES: Final = 700
"""Commits in the log that a proof is made in: two full tiles and one that is open."""
STATE_COMMITS: Final = 13
"""Of BATCH events each, in the stream whose state is asked for; its last snapshot lies one commit before its end."""


def event(number: int) -> bytes:
    """Make an event of the usual size: some 300 bytes stored."""
    return msgspec.json.encode(
        {
            "actor": "ann",
            "data": {f"position-{number % 500}": {"amount": number, "currency": "EUR"}},
            "id": f"5f2b8c1e-0000-4000-8000-{number:012d}",
            "source": "urn:shop",
            "specversion": "1.0",
            "subject": STREAM,
            "time": to_text(BEGIN + timedelta(seconds=number)),
            "type": "order.position.changed",
        },
        order="sorted",
    )


class World:
    """One tenant's trail on a store that counts."""

    def __init__(self) -> None:
        memory = MemoryTransport()
        self.clock = ManualClock(BEGIN)
        self.capacity = Capacity(memory)
        self.tables = memory_tables(memory)
        self.database = Database.connect(self.capacity, self.clock)
        self.store = DynamoEventStores(self.database, RawCodec(), self.tables).of(TENANT, "ann")
        self.sealer = memory_sealer(self.database, self.tables, TENANT)
        self.bodies = Bodies(self.database, self.tables)
        self.versions: dict[str, int] = {}

    # ----- what is counted

    def append(self, stream: str = STREAM, count: int = 1, *, expected: Any = None) -> None:
        before = self.versions.get(stream, 0)
        events = [event(before + number) for number in range(1, count + 1)]
        self.clock.advance(timedelta(seconds=1))
        wished = before if expected is None else expected
        self.newest = self.store.append(stream, wished, events, commit_id=f"5f2b8c1e-{stream}-{before:012d}")
        self.versions[stream] = before + count

    def index(self, streams: Sequence[str] = (STREAM,)) -> None:
        broken: list[object] = []
        Indexer(self.database, self.tables, broken.append).index(
            Hint(TENANT, stream, self.versions[stream]) for stream in streams
        )
        if broken:
            raise RuntimeError(broken)

    def project(self, view: View, stream: str = STREAM) -> None:
        projector = Projector(self.database, self.tables, self.bodies, VIEWS, {})
        projector.advance(view, Generation(view.name, 1, TENANT), partition_of(stream))

    def project_all(self, stream: str = STREAM) -> None:
        Projector(self.database, self.tables, self.bodies, VIEWS, {}).project(TENANT, partition_of(stream))

    def state(self, **within: Any) -> None:
        """Answer a state as its route does."""
        AuditTrail(self.store, self.sealer, self.snapshots).state(STREAM, **within)

    def changes(self, from_version: int) -> None:
        AuditTrail(self.store, self.sealer, self.snapshots).changes(STREAM, from_version, None)

    def prove(self, version: int, stream: str = STREAM) -> None:
        Prover(self.store, LogReader(self.database, self.tables, TENANT)).prove(
            partition_of(stream), stream, version, None
        )

    @property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.database, self.tables, TENANT, self.store, MemoryObjects(), self.sealer)

    # ----- counting

    def cost(self, operation: Callable[[], None]) -> Cost:
        self.capacity.take()
        operation()
        return self.capacity.take()

    def settle(self, streams: Sequence[str] = (STREAM,)) -> None:
        """Let log and views take what was appended."""
        self.index(streams)
        for stream in streams:
            self.project_all(stream)


def measured() -> dict[str, Cost]:
    """Count every operation, each in a world where nothing of it happens for the first time."""
    return {**_of_appends(), **_of_one_event(), **_of_batches(), **_of_reads()}


def _grown(count: int = 1) -> World:
    world = World()
    world.append(count=count)
    world.settle()
    return world


def _of_appends() -> dict[str, Cost]:
    world = _grown()
    costs = {
        "append": world.cost(world.append),
        "append, boundary held": world.cost(lambda: world.append(expected=world.newest.boundary)),
        "append, any version": world.cost(lambda: world.append(expected="any")),
        f"append of {BATCH}": world.cost(partial(world.append, count=BATCH)),
        "append, first of a stream": world.cost(partial(world.append, "orders/2")),
    }
    world.append("orders/3")
    world.versions["orders/3"] = 0
    return costs | {"append, repeated": world.cost(partial(world.append, "orders/3"))}


def _of_one_event() -> dict[str, Cost]:
    """One event alone, with everything that follows from it."""
    world = _grown()
    return {
        "one event: append": world.cost(world.append),
        "one event: log": world.cost(world.index),
        **{f"one event: view {view.name}": world.cost(partial(world.project, view)) for view in VIEWS},
    }


def _of_batches() -> dict[str, Cost]:
    """A commit of BATCH events on one stream; and a batch of the indexer's over several streams."""
    world = _grown(BATCH)
    costs = {
        f"{BATCH} events: append": world.cost(partial(world.append, count=BATCH)),
        f"{BATCH} events: log": world.cost(world.index),
        **{f"{BATCH} events: view {view.name}": world.cost(partial(world.project, view)) for view in VIEWS},
    }
    world.append(count=BATCH)
    costs["log, closing a block"] = world.cost(world.index)
    names = (f"orders/{number}" for number in range(1, 1_000))
    streams = [name for name in names if partition_of(name) == partition_of(STREAM)][:STREAMS_AT_ONCE]
    world = World()
    for _ in range(2):
        for stream in streams:
            world.append(stream)
        costs[f"log of {STREAMS_AT_ONCE} streams"] = world.cost(partial(world.index, streams))
    return costs


def _of_reads() -> dict[str, Cost]:
    world, costs = World(), dict[str, Cost]()
    for number in range(1, STATE_COMMITS + 1):
        world.append(count=BATCH)
        world.index()
        world.snapshots.keep(STREAM, MERGE_PATCH)
        if number == STATE_COMMITS - 1:
            costs = {"state, newest, as its snapshot": world.cost(world.state)}
    newest = world.versions[STREAM]
    past = newest // 2 + BATCH
    costs |= {
        "state, newest": world.cost(world.state),
        "state, by version near the end": world.cost(partial(world.state, version=newest - BATCH // 2)),
        "state, by version in the past": world.cost(partial(world.state, version=past)),
        "state, by time": world.cost(partial(world.state, at=BEGIN + timedelta(seconds=past))),
        "state, as known": world.cost(partial(world.state, known_at=BEGIN + timedelta(seconds=STATE_COMMITS // 2))),
        "diff, to the newest": world.cost(partial(world.changes, past)),
    }
    world = World()
    for _ in range(PROOF_LEAVES):
        world.append()
        world.index()
    for head in heads(world.database, world.tables):
        Tiles(world.database, world.tables, TENANT, head.partition).extend(head)
    return costs | {
        "proof, of an old event": world.cost(partial(world.prove, 10)),
        "proof, of the newest event": world.cost(partial(world.prove, PROOF_LEAVES)),
    }


def total(costs: dict[str, Cost], what: str) -> float:
    """Add up the write units of all that belongs to *what*."""
    return sum(cost.write_units for name, cost in costs.items() if name.startswith(f"{what}: "))


def figures() -> dict[str, Any]:
    """Give the counts as the bench writes them."""
    costs = measured()
    return {
        "operations": {
            name: {
                "requests": dict(sorted(cost.requests.items())),
                "read_units": cost.read_units,
                "write_units": cost.write_units,
            }
            for name, cost in costs.items()
        },
        "one_event_alone_write_units": total(costs, "one event"),
        f"write_units_an_event_in_{BATCH}s": round(total(costs, f"{BATCH} events") / BATCH, 2),
    }
