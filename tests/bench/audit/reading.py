"""Reading one stream, packed and unpacked; and making a state of it, beside the peer's replay."""

from functools import partial
from typing import Final

from holdfast.clock import SystemClock
from holdfast.dynamodb.attributes import from_item
from holdfast.dynamodb.stream_reader import commit_of, instant
from holdfast.folds import MERGE_PATCH, Within, fold
from holdfast.streams import EventStore
from tests.bench.audit import peers
from tests.bench.audit.appends import BATCH, append
from tests.bench.audit.engine import Place, Trail
from tests.bench.audit.figures import Figure, Sizes, Wrong, against, cpu_timed, median_of, timed
from tests.dynamo_tables import memory_stores
from tests.generated_history import changes, state_of
from tests.memory_dynamodb import MemoryTransport

TENANT: Final = "bench"
PEER_BATCH: Final = 100


def measure(place: Place, sizes: Sizes) -> list[Figure]:
    return [packed(place, sizes), reconstructed(sizes)]


def packed(place: Place, sizes: Sizes) -> Figure:
    store = Trail(place, clock=SystemClock()).store()
    stored = [change.stored() for change in changes(sizes.read_events)]
    rates = []
    for batch in (BATCH, 1):
        stream = append(store, stored, batch)
        rates.append(len(stored) / median_of(sizes.repeats, partial(timed, partial(read, store, stream, len(stored)))))
    return Figure(
        name="read one stream",
        **against("one event an item", *rates),
        unit="events/s",
        repeats=sizes.repeats,
        size=f"{len(stored)} events, {BATCH} a commit",
        target=8.0,
    )


def read(store: EventStore[bytes], stream: str, count: int) -> None:
    if sum(len(commit.events) for commit in store.read(stream)) != count:
        raise Wrong(f"{stream} was not read whole.")


def reconstructed(sizes: Sizes) -> Figure:
    """Make the state of a stream of the items that DynamoDB answers, on one core; the peer makes its aggregate."""
    history = list(changes(sizes.read_events))
    world = memory_stores()
    stream = append(world.stores().of(TENANT, TENANT), [change.stored() for change in history], BATCH)
    transport = world.transport
    assert isinstance(transport, MemoryTransport)
    items, now = list(transport.rows(world.tables.commits)), instant(SystemClock())

    def ours() -> None:
        commits = (commit_of(TENANT, stream, from_item(item), bytes, now) for item in items)
        if fold(commits, MERGE_PATCH, Within()).state != expected:
            raise Wrong("A state was made wrongly.")

    expected = state_of(history)
    with peers.application("sqlite") as application:
        stock_id = peers.save(application, [change.patch for change in history], PEER_BATCH)

        def theirs() -> None:
            stock: peers.Stock = application.repository.get(stock_id)
            if stock.members != expected:
                raise Wrong("The peer's state is another one: the two do not do the same.")

        rates = [len(history) / median_of(sizes.repeats, partial(cpu_timed, make)) for make in (ours, theirs)]
    return Figure(
        name="reconstruct: decode and apply",
        **against(f"{peers.NAME} SQLite repository.get", *rates),
        unit="events/s per core",
        repeats=sizes.repeats,
        size=f"{len(history)} events",
        target=5.0,
    )
