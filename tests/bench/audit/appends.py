"""Appending, one by one and many at once: in memory beside POPO, on the local engine beside a SQLite file."""

from functools import partial
from itertools import count as counted
from itertools import cycle, islice
from typing import Final

from holdfast.clock import SystemClock
from holdfast.streams import Boundary, EventStore, MemoryEventStores, RawCodec
from tests.bench.audit import peers
from tests.bench.audit.engine import Place, Trail
from tests.bench.audit.figures import Figure, Sizes, against, median_of, rounded, timed
from tests.generated_history import Change, changes

PEER_BATCH: Final = 100
BATCH: Final = 250
_NUMBERS = counted()


def measure(place: Place, sizes: Sizes) -> list[Figure]:
    history = list(changes(sizes.memory_appends))
    return [*in_memory(history, sizes), *on_the_engine(place, history, sizes)]


def in_memory(history: list[Change], sizes: Sizes) -> list[Figure]:
    stored = [change.stored() for change in history]

    def ours(batch: int) -> float:
        return timed(partial(append, MemoryEventStores(RawCodec()).of("bench", "bench"), stored, batch))

    def theirs(batch: int) -> float:
        return timed(partial(peers.append, peers.popo(), peers.batches(stored, batch)))

    return [
        Figure(
            name=f"append in memory, {name}",
            **against(
                f"{peers.NAME} POPO",
                len(stored) / median_of(sizes.repeats, partial(ours, batch)),
                len(stored) / median_of(sizes.repeats, partial(theirs, batch)),
            ),
            unit="events/s",
            repeats=sizes.repeats,
            size=f"{len(stored)} events",
            target=target,
            more=saved("popo", history, batch, sizes),
        )
        for name, batch, target in (("one by one", 1, 0.2), (f"in commits of {PEER_BATCH}", PEER_BATCH, 0.4))
    ]


def on_the_engine(place: Place, history: list[Change], sizes: Sizes) -> list[Figure]:
    store = Trail(place, clock=SystemClock()).store()
    store.last("bench/warm")

    def theirs(stored: list[bytes], batch: int) -> float:
        with peers.sqlite() as recorder:
            return timed(partial(peers.append, recorder, peers.batches(stored, batch)))

    figures = []
    for name, batch, peer_batch, count, target in (
        ("one by one", 1, 1, sizes.direct_appends, 1.2),
        (f"in commits of {BATCH}", BATCH, PEER_BATCH, sizes.direct_batches * BATCH, 1.0),
    ):
        written = list(islice(cycle(history), count))
        stored = [change.stored() for change in written]
        rates = (
            count / median_of(sizes.repeats, partial(timed, partial(append, store, stored, batch))),
            count / median_of(sizes.repeats, partial(theirs, stored, peer_batch)),
        )
        figures.append(
            Figure(
                name=f"append on the engine, {name}",
                **against(f"{peers.NAME} SQLite file" + (f" in {peer_batch}s" if peer_batch > 1 else ""), *rates),
                unit="events/s",
                repeats=sizes.repeats,
                size=f"{count} events",
                target=target,
                more=saved("sqlite", written, peer_batch, sizes),
            )
        )
    return figures


def saved(module: str, history: list[Change], batch: int, sizes: Sizes) -> dict[str, float]:
    """Tell what the peer's aggregates take, which its recorders leave out."""

    def measured() -> float:
        with peers.application(module) as saving:
            return timed(partial(peers.save, saving, [change.patch for change in history], batch))

    return {"peer_application_save": rounded(len(history) / median_of(sizes.repeats, measured))}


def append(store: EventStore[bytes], stored: list[bytes], batch: int, stream: str = "") -> str:
    """Write a stream as one writer that holds its boundary from commit to commit; return its name."""
    stream = stream or f"bench/{next(_NUMBERS)}"
    boundary: Boundary | int = 0
    for start in range(0, len(stored), batch):
        answer = store.append(stream, boundary, stored[start : start + batch], commit_id=f"{stream}@{start}")
        boundary = answer.boundary or answer.version
    return stream
