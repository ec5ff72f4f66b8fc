"""What the bench writes down: figures beside their peers and targets, the sizes they were taken at, and how."""

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

PERCENT_95: Final = 0.95
PERCENT_99: Final = 0.99


class Wrong(Exception):
    """An answer was wrong: then no figure means anything, and the bench ends."""


class Sizes(msgspec.Struct, frozen=True):
    """How much of everything is measured."""

    repeats: int
    """Measurements of which the median is written; whatever takes minutes says its own count."""
    memory_appends: int
    direct_appends: int
    direct_batches: int
    read_events: int
    history_events: tuple[int, ...]
    """Lengths of the stream whose states are asked for."""
    late_events: int
    """Of these lengths, the one at which a log that follows late is measured as well."""
    states: int
    """Asked for at each length, each compared with the plainest fold."""
    replays: int
    view_events: int
    searches: int
    scans: int
    served: int
    """Calls over HTTP."""
    served_events: int
    """Length of the stream whose states at random times are asked for over HTTP."""
    burst: int
    """Commits appended at once, before it is measured how long read models take to follow."""
    verified_shapes: tuple[tuple[str, int, int], ...]
    """Exports to verify: name, commits, events of each."""


FULL: Final = Sizes(
    repeats=5,
    memory_appends=20_000,
    direct_appends=400,
    direct_batches=40,
    read_events=5_000,
    history_events=(1_000, 10_000, 100_000, 1_000_000),
    late_events=100_000,
    states=200,
    replays=2,
    view_events=100_000,
    searches=100,
    scans=5,
    served=200,
    served_events=100_000,
    burst=400,
    verified_shapes=(("in commits of 250", 4_000, 250), ("in commits of 1", 100_000, 1)),
)
SMALL: Final = Sizes(
    repeats=1,
    memory_appends=2_000,
    direct_appends=40,
    direct_batches=4,
    read_events=1_000,
    history_events=(1_000, 3_000),
    late_events=3_000,
    states=12,
    replays=1,
    view_events=2_000,
    searches=10,
    scans=1,
    served=10,
    served_events=3_000,
    burst=20,
    verified_shapes=(("in commits of 250", 40, 250),),
)
"""To see that the bench itself works; its figures mean nothing."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number, with the peer's where there is one."""

    name: str
    value: float
    unit: str
    repeats: int
    size: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    """How many times better than the peer; where *at_most* is set, how many times as much."""
    target: float | None = None
    """For the ratio, or without a peer for the value; None where it is only reported."""
    at_most: bool = False
    more: dict[str, Any] = {}
    """Percentiles, counts, and whatever else belongs to it."""

    @property
    def compared(self) -> float:
        return self.value if self.ratio is None else self.ratio

    @property
    def is_met(self) -> bool | None:
        """Tell whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        return self.compared <= self.target if self.at_most else self.compared >= self.target


def against(peer: str, ours: float, theirs: float, *, more_is_better: bool = True) -> dict[str, Any]:
    """Give the fields of a figure that stands beside a peer's."""
    ratio = ours / theirs if more_is_better else theirs / ours
    return {"value": rounded(ours), "peer": peer, "peer_value": rounded(theirs), "ratio": rounded(ratio)}


def as_json(figure: Figure) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(figure)
    return {name: value for name, value in told.items() if value not in (None, {}, False)} | (
        {} if figure.is_met is None else {"is_met": figure.is_met}
    )


# ----- measuring


def timed(call: Callable[[], Any]) -> float:
    """Measure what *call* takes, in seconds on the wall."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def cpu_timed(call: Callable[[], Any]) -> float:
    """Measure what *call* takes of one core, in seconds."""
    started = time.process_time()
    call()
    return time.process_time() - started


def median_of(repeats: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(repeats))


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    """Give median, 95th and 99th percentile in milliseconds."""
    ordered = sorted(1_000 * one for one in seconds)

    def at(share: float) -> float:
        return rounded(ordered[min(len(ordered) - 1, round(share * len(ordered)))])

    return {"p50": rounded(statistics.median(ordered)), "p95": at(PERCENT_95), "p99": at(PERCENT_99)}


def rounded(value: float) -> float:
    """Keep four digits that mean something."""
    return float(f"{value:.4g}")


# ----- telling how far it is


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Draw a bar on stderr if that is a terminal; what is yielded is told how much is done by now."""
    from rich.console import Console  # noqa: PLC0415 - only a person at a terminal needs it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)
