"""
The deployed service: appends and states over HTTP, and how soon an event is in the log and in the view `events`.

What is appended stays in the log of the tenant `bench`, as it must, and the rows of its read models with it: after the
long import over a gigabyte of the engine's memory, which `./holdfast reset` gives back. When an event can be seen is
asked of the service's own tables, every few milliseconds: that costs the service less than asking its door.
"""

import random
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from functions.audit.domain.views import EVENTS
from holdfast.clock import SystemClock
from holdfast.dynamodb import Tables
from holdfast.dynamodb.reads import query
from holdfast.folds import MERGE_PATCH
from holdfast.log import LogReader
from holdfast.log.values import partition_of
from holdfast.projections.reader import ViewReader
from holdfast_cli.stacking import target
from holdfast_client import Holdfast
from holdfast_client.audit import Audit
from holdfast_client.events import Event
from holdfast_client.local import find_home, find_local_stack
from stacks.tokens import create_token
from tests.bench.audit.engine import Place, Trail
from tests.bench.audit.figures import Figure, Sizes, Wrong, percentiles, progress, rounded, timed
from tests.bench.audit.states import WARM_MILLISECONDS
from tests.generated_history import BEGIN, YEARS, batched, changes, state_by_newest

TENANT: Final = "bench"
SCOPES: Final = ("audit:append", "audit:read", "audit:search")
BATCH: Final = 250
POLL_SECONDS: Final = 0.005
FOLLOWED_POLL_SECONDS: Final = 1.0
SEEN_SECONDS_MAX: Final = 60.0
"""After which an event that cannot be seen is given up."""
FOLLOWED_SECONDS_MAX: Final = 1_200.0
"""After which what follows a long import is given up: four rows an event of its read models, then snapshots."""
DRAINED_SECONDS: Final = 30.0
KEPT_WITHIN: Final = 3_000
"""Events of a stream behind its newest snapshot, at most, when all that were due are kept."""
SEED: Final = 7
AT_ONCE: Final = 4
"""Writers of the burst."""


def measure(place: Place, sizes: Sizes) -> list[Figure]:
    with audit() as door:
        lags = Lags(place)
        return [*of_the_door(door, sizes), of_history(door, lags, sizes), *of_lags(door, lags, sizes)]


@contextmanager
def audit() -> Iterator[Audit]:
    """Talk to the service as a tenant of the bench's own."""
    local = find_local_stack(find_home())
    token = create_token(target(aws=False), TENANT, "bench", SCOPES)
    with Holdfast(local.url, token, services=local.services) as holdfast:
        yield holdfast.audit


def of_the_door(door: Audit, sizes: Sizes) -> list[Figure]:
    stream = f"bench/{uuid.uuid4().hex[:8]}"
    door.append(f"{stream}-warm", events(0, 1), 0)
    alone = [timed(partial(door.append, f"{stream}-one", events(n, 1), n)) for n in range(sizes.served)]
    batches = max(1, sizes.served // 10)
    together = [
        timed(partial(door.append, f"{stream}-many", events(n * BATCH, BATCH), n * BATCH)) for n in range(batches)
    ]
    step = max(1, batches * BATCH // sizes.served)
    states = [timed(partial(door.state, f"{stream}-many", version=v)) for v in range(1, batches * BATCH, step)]
    return [
        _timing("append over HTTP, one by one", alone, {"events_per_second": rounded(1 / statistics.fmean(alone))}),
        _timing(
            f"append over HTTP, in commits of {BATCH}",
            together,
            {"events_per_second": rounded(BATCH / statistics.fmean(together))},
        ),
        _timing(f"state over HTTP by version, of {batches * BATCH} events", states, {}),
    ]


def events(first: int, count: int) -> list[Event]:
    return [Event(type="bench.happened", data={f"k{number % 500}": number}) for number in range(first, first + count)]


class Lags:
    """When the service's log and its view hold what was appended."""

    def __init__(self, place: Place) -> None:
        names = {role: f"holdfast-audit-{role}" for role in ("commits", "operations", "log", "views")}
        tables = Tables(names["commits"], names["operations"], names["log"], names["views"])
        trail = Trail(Place(place.endpoint_url, place.dynamodb_url, tables, ""), TENANT, SystemClock())
        self._log = LogReader(trail.database, tables, TENANT)
        self._views = ViewReader(trail.database, tables, TENANT)

    def until_logged(self, stream: str, version: int) -> float:
        return _until(lambda: self._is_logged(stream, version))

    def until_viewed(self, stream: str) -> float:
        """Wait for the stream's newest event in the log."""
        position = self._log.watermark(stream).position
        return _until(lambda: self._is_viewed(stream, position))

    def until_followed(self, stream: str, version: int) -> None:
        """Wait until log, view and snapshots hold a long import, so that what comes after it waits for itself alone."""
        for is_there in (
            lambda: self._is_logged(stream, version),
            lambda: self._is_viewed(stream, self._log.watermark(stream).position),
            lambda: self._is_kept(stream, version),
        ):
            _until(is_there, FOLLOWED_SECONDS_MAX, FOLLOWED_POLL_SECONDS)

    def _is_logged(self, stream: str, version: int) -> bool:
        return self._log.watermark(stream).version >= version

    def _is_viewed(self, stream: str, position: int) -> bool:
        return self._views.standing(EVENTS.name).positions[partition_of(stream)] >= position

    def _is_kept(self, stream: str, version: int) -> bool:
        """Tell whether there is a snapshot near the stream's end."""
        pk = f"N#{TENANT}#{MERGE_PATCH.label}#{stream}"
        newest = next(query(self._log.database, self._log.tables.log, pk, newest_first=True, limit=1), None)
        return newest is not None and version - int(newest["sk"]) < KEPT_WITHIN


def _until(
    is_seen: Callable[[], bool], seconds_max: float = SEEN_SECONDS_MAX, poll_seconds: float = POLL_SECONDS
) -> float:
    started = time.perf_counter()
    while not is_seen():
        if time.perf_counter() - started > seconds_max:
            raise Wrong(f"What was appended could not be seen for {seconds_max:.0f} s.")
        time.sleep(poll_seconds)
    return time.perf_counter() - started


def of_history(door: Audit, lags: Lags, sizes: Sizes) -> Figure:
    """Import three years, let the log follow, and compare states at random times with what the history says."""
    stream = f"bench/{uuid.uuid4().hex[:8]}-years"
    history, version = list(changes(sizes.served_events, early_share=0.0)), 0
    with progress(f"importing {len(history):,} events", len(history)) as show:
        for commit in batched(history):
            happened = [Event(type="bench.happened", time=each.time, data=each.patch) for each in commit]
            version = door.append(stream, happened, version).version
            show(version)
    lags.until_followed(stream, version)
    noise, seconds = random.Random(SEED), list[float]()
    for _ in range(sizes.served):
        at = BEGIN + YEARS * noise.random()
        started = time.perf_counter()
        found = door.state(stream, at=at)
        seconds.append(time.perf_counter() - started)
        if found.state != state_by_newest(history, at=at):
            raise Wrong(f"The state of {stream} at {at} is not what its events say.")
    told = percentiles(seconds)
    return Figure(
        name="state over HTTP at a random time, 95th percentile",
        value=told["p95"],
        unit="ms",
        repeats=len(seconds),
        size=f"{len(history)} events, one client",
        target=WARM_MILLISECONDS,
        at_most=True,
        more=told,
    )


def of_lags(door: Audit, lags: Lags, sizes: Sizes) -> list[Figure]:
    stream = f"bench/{uuid.uuid4().hex[:8]}"
    logged, viewed = [], []
    for number in range(sizes.served):
        door.append(stream, events(number, 1), number)
        in_log = lags.until_logged(stream, number + 1)
        logged.append(in_log)
        viewed.append(in_log + lags.until_viewed(stream))
    return [
        _timing("from acknowledgement to log", logged, {}, key="p99"),
        _timing(f"from acknowledgement to the view `{EVENTS.name}`", viewed, {}, key="p99"),
        _drained(door, lags, sizes.burst),
    ]


def _drained(door: Audit, lags: Lags, burst: int) -> Figure:
    """Append without a pause, then measure until log and view hold all of it."""
    streams = [f"bench/{uuid.uuid4().hex[:8]}" for _ in range(AT_ONCE)]

    def write(stream: str) -> None:
        for number in range(burst // AT_ONCE):
            door.append(stream, events(number, 1), number)

    with ThreadPoolExecutor(AT_ONCE) as writers:
        list(writers.map(write, streams))
    waited = sum(lags.until_logged(stream, burst // AT_ONCE) + lags.until_viewed(stream) for stream in streams)
    return Figure(
        name="log and view drained after a burst",
        value=rounded(waited),
        unit="s",
        repeats=1,
        size=f"{burst} commits by {AT_ONCE} writers",
        target=DRAINED_SECONDS,
        at_most=True,
    )


def _timing(name: str, seconds: list[float], more: dict[str, Any], key: str = "p50") -> Figure:
    told = percentiles(seconds)
    return Figure(
        name=name,
        value=told[key],
        unit=f"ms ({key})",
        repeats=len(seconds),
        size=f"{len(seconds)} calls, one client",
        more=told | more,
    )
