"""Appending, one by one and many at once: in memory beside POPO, on the local engine beside a SQLite file."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Final

from holdfast.clock import SystemClock
from holdfast.streams import Boundary, EventStore, MemoryEventStores, RawCodec
from tests.bench.audit import peers
from tests.bench.audit.engine import Place, Trail
from tests.bench.audit.figures import Figure, Sizes, against, median_of, timed
from tests.generated_history import changes

PEER_BATCH: Final = 100
BATCH: Final = 250
_NUMBERS = count()


def measure(place: Place, sizes: Sizes) -> list[Figure]:
    stored = [change.stored() for change in changes(sizes.memory_appends)]
    return [*in_memory(stored, sizes), *on_the_engine(place, stored, sizes)]


def in_memory(stored: list[bytes], sizes: Sizes) -> list[Figure]:
    figures = []
    for name, batch, target in (("one by one", 1, 0.2), (f"in commits of {PEER_BATCH}", PEER_BATCH, 0.4)):

        def ours(batch: int = batch) -> float:
            store = MemoryEventStores(RawCodec()).of("bench", "bench")
            return timed(partial(append, store, stored, batch))

        def theirs(batch: int = batch) -> float:
            recorder, lists = peers.popo(), peers.batches(stored, batch)
            return timed(partial(peers.append, recorder, lists))

        rates = [len(stored) / median_of(sizes.repeats, each) for each in (ours, theirs)]
        figures.append(
            Figure(
                name=f"append in memory, {name}",
                **against(f"{peers.NAME} POPO", *rates),
                unit="events/s",
                repeats=sizes.repeats,
                size=f"{len(stored)} events",
                target=target,
            )
        )
    return figures


def on_the_engine(place: Place, stored: list[bytes], sizes: Sizes) -> list[Figure]:
    trail = Trail(place, clock=SystemClock())
    one_by_one, batched = stored[: sizes.direct_appends], (stored * 5)[: sizes.direct_batches * BATCH]
    alone = [
        len(one_by_one) / median_of(sizes.repeats, _direct(trail, one_by_one, 1)),
        len(one_by_one) / median_of(sizes.repeats, _sqlite(one_by_one, 1)),
    ]
    together = [
        len(batched) / median_of(sizes.repeats, _direct(trail, batched, BATCH)),
        len(batched) / median_of(sizes.repeats, _sqlite(batched, PEER_BATCH)),
    ]
    return [
        Figure(
            name="append on the engine, one by one",
            **against(f"{peers.NAME} SQLite file", *alone),
            unit="events/s",
            repeats=sizes.repeats,
            size=f"{len(one_by_one)} events",
            target=1.2,
        ),
        Figure(
            name=f"append on the engine, in commits of {BATCH}",
            **against(f"{peers.NAME} SQLite file in {PEER_BATCH}s", *together),
            unit="events/s",
            repeats=sizes.repeats,
            size=f"{len(batched)} events",
            target=1.0,
        ),
    ]


def _direct(trail: Trail, stored: list[bytes], batch: int) -> Callable[[], float]:
    store = trail.store()
    store.last("bench/warm")
    return lambda: timed(partial(append, store, stored, batch))


def _sqlite(stored: list[bytes], batch: int) -> Callable[[], float]:
    def measured() -> float:
        with peers.sqlite() as recorder:
            return timed(partial(peers.append, recorder, peers.batches(stored, batch)))

    return measured


def append(store: EventStore[bytes], stored: list[bytes], batch: int, stream: str = "") -> str:
    """Write a stream as one writer that holds its boundary from commit to commit; return its name."""
    stream = stream or f"bench/{next(_NUMBERS)}"
    boundary: Boundary | int = 0
    for start in range(0, len(stored), batch):
        answer = store.append(stream, boundary, stored[start : start + batch], commit_id=f"{stream}@{start}")
        boundary = answer.boundary or answer.version
    return stream
