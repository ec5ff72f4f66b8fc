"""States from snapshots, around blocks and with late arrivals, against the plainest fold there is."""

import itertools
import random
from datetime import timedelta
from typing import Any

import pytest

from holdfast.clock import ManualClock
from holdfast.dynamodb import Database, DynamoEventStores
from holdfast.folds import MERGE_PATCH, Reducer, Within
from holdfast.log import Hint, Indexer
from holdfast.objects import MemoryObjects
from holdfast.snapshots import Snapshots
from holdfast.streams import RawCodec
from tests.generated_history import BEGIN, Change, append_all, changes, state_of
from tests.log_lab import memory_tables
from tests.memory_dynamodb import MemoryTransport
from tests.soak import examples

STREAM = "made/1"
EVENTS = 20_000


class Counting:
    """Counts what a state takes."""

    def __init__(self, inner: MemoryTransport) -> None:
        self._inner = inner
        self.operations: list[str] = []

    def call(self, operation, request):
        self.operations.append(operation)
        return self._inner.call(operation, request)


class World:
    def __init__(self, history: list[Change], *, is_indexed: bool = True, keep: bool = True) -> None:
        self.history = history
        self.clock = ManualClock(BEGIN)
        self.transport = Counting(MemoryTransport())
        self.tables = memory_tables(self.transport._inner)
        self.database = Database.connect(self.transport, self.clock)
        self.stores = DynamoEventStores(self.database, RawCodec(), self.tables)
        self.objects = MemoryObjects()
        self.version = append_all(self.stores, self.clock, STREAM, history)
        if is_indexed:
            broken: list[object] = []
            Indexer(self.database, self.tables, broken.append).index([Hint("made", STREAM, self.version)])
            assert broken == []
        if is_indexed and keep:
            self.keep_along_the_way()

    @property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.database, self.tables, "made", self.stores.of("made", "x"), self.objects)

    def keep_along_the_way(self, reducer: Reducer = MERGE_PATCH) -> None:
        self.snapshots.keep(STREAM, reducer)

    def state(self, within: Within):
        return self.snapshots.state(STREAM, MERGE_PATCH, within, self.version)


def grown(events: int) -> World:
    """A world whose log and snapshots grew with its stream, as they do when nothing waits."""
    history = list(changes(events))
    world = World([], keep=False)
    world.history = history
    store = world.stores.of("made", "maker")
    indexer = Indexer(world.database, world.tables, lambda broken: pytest.fail(repr(broken)))
    for start in range(0, events, 250):
        commit = history[start : start + 250]
        world.clock.advance(commit[-1].recorded_at - world.clock.now())
        answer = store.append(STREAM, start, [change.stored() for change in commit], commit_id=f"c{start}")
        indexer.index([Hint("made", STREAM, answer.first_version)])
        world.snapshots.keep(STREAM, MERGE_PATCH)
    world.version = events
    return world


@pytest.fixture(scope="module")
def world() -> World:
    return grown(EVENTS)


def items(world: World, table: str) -> list[Any]:
    found: list[Any] = []
    start: dict[str, Any] = {}
    while True:
        answer = world.transport.call("Scan", {"TableName": table, **start}).body
        found += answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return found
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def moments(world: World, noise: random.Random) -> Within:
    """Draw a version, an event time and a recorded time, each of them or not."""
    span = timedelta(days=3 * 365 + 20)
    return Within(
        version=noise.choice([None, noise.randrange(EVENTS + 1)]),
        at=noise.choice([None, BEGIN - timedelta(days=5) + span * noise.random()]),
        known_at=noise.choice([None, BEGIN + span * noise.random()]),
    )


@pytest.mark.parametrize("seed", range(examples(40, soak=1_000)))
def test_a_state_is_what_the_plainest_fold_makes(world, seed):
    within = moments(world, random.Random(seed))

    folded = world.state(within)

    assert folded.state == state_of(world.history, version=within.version, at=within.at, known_at=within.known_at)
    counted = [
        change
        for change in world.history
        if (within.version is None or change.version <= within.version)
        and (within.at is None or change.time <= within.at)
        and (within.known_at is None or change.recorded_at <= within.known_at)
    ]
    assert folded.events_applied == len(counted)
    assert folded.version == (counted[-1].version if counted else 0)


def test_a_late_arrival_counts_for_its_own_time(world):
    late = next(
        change
        for change in world.history[5_000:]
        if change.recorded_at - change.time > timedelta(days=4) and change.patch[next(iter(change.patch))]
    )
    name = next(iter(late.patch))

    before = world.state(Within(at=late.time - timedelta(microseconds=1))).state
    after = world.state(Within(at=late.time)).state

    assert after[name]["by"] == late.version
    assert before.get(name, {}).get("by") != late.version


def test_a_state_takes_a_handful_of_requests_however_long_the_stream(world):
    world.transport.operations.clear()
    world.state(Within(at=BEGIN + timedelta(days=500)))

    assert len(world.transport.operations) <= 12


def test_a_snapshot_of_an_older_reducer_is_not_used(world):
    applied = []

    def apply(state, event):
        applied.append(event)
        return MERGE_PATCH.apply(state, event)

    newer = Reducer("merge-patch", 2, apply)
    folded = world.snapshots.state(STREAM, newer, Within(version=9_000), world.version)

    assert folded.state == state_of(world.history, version=9_000)
    assert len(applied) == 9_000


def test_snapshots_lie_apart_and_take_no_more_than_the_stream(world):
    rows = [row for row in items(world, "log") if row["pk"]["S"].startswith("N#")]
    versions = sorted(int(row["sk"]["S"]) for row in rows)

    assert len(versions) > 5
    assert min(b - a for a, b in itertools.pairwise(versions)) >= 500
    stored = sum(len(item["ev"]["B"]) for item in items(world, "commits"))
    assert sum(len(row["state"]["B"]) for row in rows) <= 1.1 * stored


def test_what_is_not_indexed_yet_counts_as_well():
    world = World(list(changes(3_000)), is_indexed=False)

    assert world.state(Within()).state == state_of(world.history)
    assert world.state(Within(version=1_700)).state == state_of(world.history, version=1_700)


def test_keeping_again_keeps_nothing_new():
    world = World(list(changes(3_000)))

    assert world.snapshots.keep(STREAM, MERGE_PATCH) is None


def test_a_stream_of_one_event_commits_has_blocks_of_its_own():
    history = list(changes(700))
    world = World([], keep=False)
    store = world.stores.of("made", "maker")
    for change in history:
        world.clock.advance(change.recorded_at - world.clock.now() + timedelta(microseconds=change.version))
        store.append(STREAM, change.version - 1, [change.stored()], commit_id=str(change.version))
    Indexer(world.database, world.tables, lambda broken: None).index([Hint("made", STREAM, 700)])
    world.version = 700

    kept = world.snapshots.keep(STREAM, MERGE_PATCH)
    assert kept is not None
    assert kept.version == 640
    for version in (1, 127, 128, 129, 639, 640, 641, 700):
        assert world.state(Within(version=version)).state == state_of(history, version=version)
    for change in history[::37]:
        assert world.state(Within(at=change.time)).state == state_of(history, at=change.time)


def test_a_state_too_large_for_a_row_lies_beside_it():
    rand = random.Random(1)
    big = [Change(v, BEGIN, BEGIN, {f"k{v}": {"x": rand.randbytes(1_000).hex()}}) for v in range(1, 1_001)]
    world = World(big)

    assert next(world.objects.keys("snapshots/")) is not None
    assert world.state(Within()).state == state_of(big)
