"""
Rebuilding the view `events` by one worker and by four, each a process, while the live generation is read.

A rebuild must come to what the live generation holds, row for row; no read may fail meanwhile, and no effect happen.
"""

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from functions.audit.domain.views import EVENTS
from holdfast.clock import SystemClock
from holdfast.log.values import PARTITIONS
from holdfast.projections.rebuilds import Rebuild, Rebuilds
from tests.bench.audit.engine import Place, Trail
from tests.bench.audit.figures import Figure, Wrong, against, progress, rounded
from tests.bench.audit.searches import page, read_models
from tests.bench.audit.viewed import Viewed, projector
from tests.generated_history import ACTORS, BEGIN

WORKERS: Final = (1, 4)
FASTER_TOGETHER: Final = 1.6
READ_EVERY_SECONDS: Final = 0.25
SHOWN_EVERY_SECONDS: Final = 0.5
SECONDS_MAX: Final = 3_600.0
"""For one worker; one that hangs is ended."""


def measure(viewed: Viewed) -> list[Figure]:
    trail = Trail(viewed.trail.place, viewed.trail.tenant, SystemClock())
    with live_reads(trail) as reads:
        alone, together = (rebuilt(trail, viewed.events, workers) for workers in WORKERS)
    if not reads.done or reads.failed or reads.different:
        raise Wrong(
            f"Of {reads.done} reads {reads.failed} failed and {reads.different} found something else during a rebuild."
        )
    rows = sum(compared.rows for compared in together.rebuild.compared)
    return [
        Figure(
            name=f"rebuild `{EVENTS.name}` by {WORKERS[1]} workers",
            **against(f"{WORKERS[0]} worker", viewed.events / together.seconds, viewed.events / alone.seconds),
            unit="events/s",
            repeats=1,
            size=f"{viewed.events} events, {rows} rows a generation",
            target=FASTER_TOGETHER,
            more={
                "seconds": [rounded(alone.seconds), rounded(together.seconds)],
                "workers_cpu_seconds": [rounded(alone.cpu_seconds), rounded(together.cpu_seconds)],
                "live_reads_meanwhile": reads.done,
                "live_reads_failed": reads.failed,
                "effects": alone.effects + together.effects,
                "is_equal_to_live": True,
            },
        )
    ]


@dataclass(frozen=True)
class Rebuilt:
    rebuild: Rebuild
    seconds: float
    cpu_seconds: float
    effects: int


def rebuilt(trail: Trail, events: int, workers: int) -> Rebuilt:
    """Rebuild the view by so many *workers*; it must equal the live one."""
    making = rebuilds(trail)
    begun = making.start(
        trail.tenant, EVENTS.name, rebuild_id=str(uuid4()), actor="bench", reason="bench", auto_flip=False
    )
    context = multiprocessing.get_context("spawn")
    effects, cpu_micros = context.Value("q", 0), context.Value("q", 0)
    ready = context.Barrier(workers + 1)
    processes = [
        context.Process(
            target=work,
            args=(
                trail.place,
                trail.tenant,
                begun.rebuild_id,
                range(worker, PARTITIONS, workers),
                (ready, effects, cpu_micros),
            ),
        )
        for worker in range(workers)
    ]
    for process in processes:
        process.start()
    ready.wait(SECONDS_MAX)
    started = time.perf_counter()
    with progress(f"rebuilding by {workers}", events) as show:
        while any(process.is_alive() for process in processes):
            show(sum(checkpoint.position for checkpoint in making.progress(begun)))
            processes_end(processes, SHOWN_EVERY_SECONDS)
            if time.perf_counter() - started > SECONDS_MAX:
                for process in processes:
                    process.kill()
    seconds = time.perf_counter() - started
    if any(process.exitcode for process in processes):
        raise Wrong("A worker of a rebuild failed.")
    done = making.get(trail.tenant, begun.rebuild_id)
    if done.state != "ready" or not all(compared.is_equal for compared in done.compared) or effects.value:
        raise Wrong(f"A rebuild is {done.state}, with {effects.value} effects: {done.compared}")
    return Rebuilt(done, seconds, cpu_micros.value / 1_000_000, effects.value)


def processes_end(processes: Sequence[Any], seconds: float) -> None:
    """Wait until all have ended, or so many seconds are over."""
    until = time.perf_counter() + seconds
    for process in processes:
        process.join(max(0.0, until - time.perf_counter()))


def rebuilds(trail: Trail, effect: Any = None) -> Rebuilds:
    """Wire rebuilds whose steps end by themselves: nobody has to be asked for the next."""
    return Rebuilds(trail.database, trail.tables, projector(trail, effect), lambda *_: None)


def work(place: Place, tenant: str, rebuild_id: str, partitions: Sequence[int], shared: Any) -> None:
    """Be one worker: a process of its own that takes its partitions one after the other."""
    ready, effects, cpu_micros = shared

    def count(_event: Any) -> None:
        with effects.get_lock():
            effects.value += 1

    making = rebuilds(Trail(place, tenant, SystemClock()), count)
    making.get(tenant, rebuild_id)
    ready.wait(SECONDS_MAX)
    started = time.process_time()
    for partition in partitions:
        making.step(tenant, rebuild_id, partition)
    with cpu_micros.get_lock():
        cpu_micros.value += round(1_000_000 * (time.process_time() - started))


@dataclass
class Reads:
    """What came of reading the live generation again and again."""

    done: int = 0
    failed: int = 0
    different: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, trail: Trail) -> None:
        models = read_models(trail)
        expected = page(models, ACTORS[0], BEGIN).items
        while not self.over.wait(READ_EVERY_SECONDS):
            self.done += 1
            try:
                self.different += page(models, ACTORS[0], BEGIN).items != expected
            except Exception:  # noqa: BLE001 - whatever it is, a reader got no answer
                self.failed += 1


@contextmanager
def live_reads(trail: Trail) -> Iterator[Reads]:
    """Read a page of the live generation every now and then, until the block ends."""
    reads = Reads()
    thread = threading.Thread(target=reads.run, args=(trail,))
    thread.start()
    try:
        yield reads
    finally:
        reads.over.set()
        thread.join()
