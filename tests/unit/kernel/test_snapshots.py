"""States from snapshots, around blocks and with late arrivals, against the plainest fold there is."""

import itertools
import random
import zlib
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from holdfast import snapshots
from holdfast.clock import ManualClock
from holdfast.dynamodb import Database, DynamoEventStores
from holdfast.dynamodb.attributes import ordered, to_item
from holdfast.dynamodb.reads import get
from holdfast.folds import MERGE_PATCH, Folded, Reducer, Reducers, Within
from holdfast.log import Hint, Indexer
from holdfast.objects import Damaged, MemoryObjects
from holdfast.retry import deadline
from holdfast.snapshots import Kept, Snapshots
from holdfast.streams import RawCodec
from tests.generated_history import BEGIN, COMMIT_EVENTS, Change, append_all, changes, state_of
from tests.log_lab import memory_sealer, memory_tables
from tests.memory_dynamodb import MemoryTransport
from tests.soak import examples

STREAM = "made/1"
EVENTS = examples(20_000, soak=100_000)


class Counting:
    """Counts what a state takes."""

    def __init__(self, inner: MemoryTransport) -> None:
        self.inner: Any = inner
        self.operations: list[str] = []

    def call(self, operation: str, request: Any) -> Any:
        self.operations.append(operation)
        return self.inner.call(operation, request)


class Slow:
    """Takes a second for each write."""

    def __init__(self, inner: Any, clock: ManualClock) -> None:
        self.inner = inner
        self.clock = clock

    def call(self, operation: str, request: Any) -> Any:
        self.clock.advance(timedelta(seconds=operation == "PutItem"))
        return self.inner.call(operation, request)


class World:
    def __init__(self, history: list[Change], *, is_indexed: bool = True, keep: bool = True) -> None:
        self.history = history
        self.clock = ManualClock(BEGIN)
        self.transport = Counting(MemoryTransport())
        self.tables = memory_tables(self.transport.inner)
        self.database = Database.connect(self.transport, self.clock)
        self.stores = DynamoEventStores(self.database, RawCodec(), self.tables)
        self.objects = MemoryObjects()
        self.damaged: list[Exception] = []
        self.sealer = memory_sealer(self.database, self.tables, "made")
        self.version = append_all(self.stores, self.clock, STREAM, history)
        if is_indexed:
            self.index()
        if is_indexed and keep:
            assert self.snapshots.keep(STREAM, MERGE_PATCH).is_done

    @property
    def snapshots(self) -> Snapshots:
        store = self.stores.of("made", "x")
        return Snapshots(self.database, self.tables, "made", store, self.objects, self.sealer, self.damaged.append)

    def index(self) -> None:
        broken: list[object] = []
        Indexer(self.database, self.tables, broken.append).index([Hint("made", STREAM, self.version)])
        assert broken == []

    def state(self, within: Within, reducer: Reducer = MERGE_PATCH) -> Folded:
        found = self.snapshots.state(STREAM, reducer, within)
        assert found.last_version == self.version
        return found.folded

    def kept(self, chain: str = "N", reducer: Reducer = MERGE_PATCH) -> list[int]:
        """List the versions at which there are snapshots."""
        pk = f"{chain}#made#{reducer.label}#{STREAM}"
        return sorted(int(row["sk"]["S"]) for row in items(self, "log") if row["pk"]["S"] == pk)


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


class Applied(list[int]):
    """A reducer that lists what it is given."""

    def reducer(self, version: int = 1) -> Reducer:
        def apply(state: Any, event: Any) -> Any:
            self.append(1)
            return MERGE_PATCH.apply(state, event)

        return Reducer("merge-patch", version, apply)


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


@pytest.mark.parametrize("seed", range(examples(40, soak=200)))
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

    assert len(world.transport.operations) <= 8


def test_a_snapshot_of_an_older_reducer_is_not_used(world):
    applied = Applied()

    folded = world.state(Within(version=9_000), applied.reducer(version=2))

    assert folded.state == state_of(world.history, version=9_000)
    assert len(applied) == 9_000


def test_a_snapshot_made_before_an_upcaster_was_added_is_not_used(world):
    reducers = Reducers()
    assert reducers.of(STREAM).label == MERGE_PATCH.label
    for type_of in ("stock.moved", "stock.counted"):
        reducers.upcaster(type_of, version=1)(
            lambda event: msgspec.structs.replace(event, type="upcast", data={"upcast": True})
        )
    version = world.kept()[0] + 1

    assert world.state(Within(version=version), reducers.of(STREAM)) == Folded({"upcast": True}, version, version, ())


def test_snapshots_lie_apart_and_take_no_more_than_the_stream(world):
    rows = [row for row in items(world, "log") if row["pk"]["S"].startswith("N#")]
    versions = world.kept()

    assert len(versions) > 5
    assert min(b - a for a, b in itertools.pairwise([0, *versions])) >= 500
    stored = sum(len(item["ev"]["B"]) for item in items(world, "commits"))
    assert sum(len(row["state"]["B"]) for row in rows) <= 1.1 * stored


@pytest.fixture(scope="module")
def late() -> World:
    """A world of which everything was appended first, and indexed at once; then snapshots were kept."""
    return World(list(changes(EVENTS)))


def test_a_log_that_follows_late_has_the_snapshots_of_one_that_followed_along_the_way(world, late):
    assert late.kept() == world.kept()


def test_any_version_folds_two_snapshots_worth_at_most_however_late_the_log_followed(late):
    gap = max(after - before for before, after in itertools.pairwise([0, *late.kept()]))
    noise = random.Random(5)

    for version in [1, EVENTS, *(noise.randrange(1, EVENTS + 1) for _ in range(20))]:
        applied = Applied()
        folded = late.state(Within(version=version), applied.reducer())
        assert folded.state == state_of(late.history, version=version)
        assert len(applied) <= gap + COMMIT_EVENTS <= 2_500


def test_snapshots_are_kept_in_one_pass_a_bounded_number_at_a_time(monkeypatch):
    monkeypatch.setattr(snapshots, "KEPT_AT_ONCE_MAX", 2)
    world, applied, calls = World(list(changes(4_000)), keep=False), Applied(), []

    while not (kept := world.snapshots.keep(STREAM, applied.reducer())).is_done:
        calls.append(kept.versions)

    assert all(len(versions) == 2 for versions in calls)
    assert [*itertools.chain(*calls), *kept.versions] == world.kept()
    assert len(calls) >= 2
    # What one call has folded the next one goes on from.
    assert len(applied) == world.kept()[-1]


def test_snapshots_are_kept_as_far_as_the_time_goes():
    world = World(list(changes(4_000)), keep=False)

    with deadline(0.0, world.clock):
        assert world.snapshots.keep(STREAM, MERGE_PATCH) == Kept((), is_done=False)
    assert world.kept() == []
    world.transport.inner = Slow(world.transport.inner, world.clock)
    with deadline(1.0, world.clock):
        begun = world.snapshots.keep(STREAM, MERGE_PATCH)
    world.transport.inner = world.transport.inner.inner

    assert not begun.is_done
    assert len(begun.versions) == 1
    rest = world.snapshots.keep(STREAM, MERGE_PATCH)
    assert rest.is_done
    assert [*begun.versions, *rest.versions] == world.kept() == World(world.history).kept()


def test_a_new_version_of_a_reducer_gets_all_the_snapshots_that_the_old_one_had(late):
    newer = Reducer("merge-patch", 3, MERGE_PATCH.apply)

    assert late.kept(reducer=newer) == []
    assert late.snapshots.keep(STREAM, newer).is_done
    assert late.kept(reducer=newer) == late.kept()


def test_a_version_near_the_end_or_in_the_past_tells_where_the_stream_ends(late):
    for version in (0, 1, 499, 500, EVENTS // 2, EVENTS - 600, EVENTS - 1, EVENTS, EVENTS + 1, EVENTS + 10_000):
        assert late.snapshots.state(STREAM, MERGE_PATCH, Within(version=version)).last_version == EVENTS
        at = Within(version=version, at=BEGIN)
        assert late.snapshots.state(STREAM, MERGE_PATCH, at).last_version == EVENTS


@pytest.mark.parametrize("within", [Within(), Within(version=9), Within(version=900), Within(at=BEGIN)])
def test_there_is_no_end_where_there_is_no_stream(within):
    found = World([], is_indexed=False).snapshots.state("made/none", MERGE_PATCH, within)

    assert (found.last_version, found.folded) == (0, Folded({}, 0, 0, ()))


def test_what_is_not_indexed_yet_counts_as_well():
    world = World(list(changes(3_000)), is_indexed=False)

    assert world.state(Within()).state == state_of(world.history)
    assert world.state(Within(version=1_700)).state == state_of(world.history, version=1_700)


def test_keeping_again_keeps_nothing_new():
    world = World(list(changes(3_000)))

    assert world.kept() != []
    assert world.snapshots.keep(STREAM, MERGE_PATCH) == Kept((), is_done=True)


def test_a_stream_of_one_event_commits_has_blocks_of_its_own():
    history = list(changes(700))
    world = World([], keep=False)
    store = world.stores.of("made", "maker")
    for change in history:
        world.clock.advance(change.recorded_at - world.clock.now() + timedelta(microseconds=change.version))
        store.append(STREAM, change.version - 1, [change.stored()], commit_id=str(change.version))
    Indexer(world.database, world.tables, lambda broken: None).index([Hint("made", STREAM, 700)])
    world.version = 700

    assert world.snapshots.keep(STREAM, MERGE_PATCH) == Kept((512,), is_done=True)
    for version in (1, 127, 128, 129, 511, 512, 513, 639, 640, 641, 700):
        assert world.state(Within(version=version)).state == state_of(history, version=version)
    for change in history[::37]:
        assert world.state(Within(at=change.time)).state == state_of(history, at=change.time)


def damage(world: World, version: int, **attributes: Any) -> None:
    """Change a snapshot behind everybody's back."""
    pk = f"N#made#{MERGE_PATCH.label}#{STREAM}"
    row = get(world.database, world.tables.log, pk, ordered(version))
    assert row is not None
    world.transport.call("PutItem", {"TableName": "log", "Item": to_item(row | attributes)})


def folded_of(world: World) -> int:
    """Say how many events the newest state takes, and check it."""
    applied = Applied()
    assert world.state(Within(), applied.reducer()).state == state_of(world.history)
    return len(applied)


@pytest.mark.parametrize("state", [b"no packed bytes", zlib.compress(b"no state"), zlib.compress(b'{"state": 1}')])
def test_a_snapshot_that_is_damaged_is_told_of_and_the_one_before_it_is_used(state):
    world = World(list(changes(4_000)))
    *_, before, newest = world.kept()
    damage(world, newest, state=state)

    assert folded_of(world) == 4_000 - before
    assert [type(error) for error in world.damaged] == [Damaged]
    assert str(newest) in str(world.damaged[0])
    assert world.snapshots.keep(STREAM, MERGE_PATCH).is_done
    assert world.kept()[-1] == newest


def test_so_many_damaged_snapshots_are_looked_at_and_then_others_are_made_beside_them(monkeypatch):
    monkeypatch.setattr(snapshots, "LOOKED_AT_MAX", 2)
    world = World(list(changes(4_000)))
    for version in world.kept():
        damage(world, version, state=b"")

    assert folded_of(world) == 4_000
    assert len(world.damaged) == 2
    assert world.snapshots.keep(STREAM, MERGE_PATCH).is_done
    assert world.kept("NE") == world.kept()
    assert folded_of(world) == 4_000 - world.kept()[-1]


@pytest.mark.parametrize("body", [None, b"other bytes"], ids=["gone", "changed"])
def test_a_snapshot_whose_object_is_damaged_is_told_of_and_the_one_before_it_is_used(monkeypatch, body):
    class Strict(MemoryObjects):
        """As a bucket, whose objects carry digests."""

        def get(self, key: str) -> bytes | None:
            if super().get(key) == b"other bytes":
                raise Damaged(f"{key} is not what was written under this key.")
            return super().get(key)

        def put_new(self, key: str, body: bytes) -> bool:
            return super().put_new(key, body) or self.get(key) == body

    monkeypatch.setattr(snapshots, "INLINE_BYTES_MAX", 10)
    world = World(list(changes(4_000)), keep=False)
    world.objects = Strict()
    world.snapshots.keep(STREAM, MERGE_PATCH)
    *_, before, newest = world.kept()
    key = max(world.objects.keys("snapshots/"))
    del world.objects._bodies[key]
    if body:
        world.objects._bodies[key] = body

    assert folded_of(world) == 4_000 - before
    assert [type(error) for error in world.damaged] == [Damaged]
    assert world.snapshots.keep(STREAM, MERGE_PATCH).is_done
    assert world.kept()[-1] == newest


def test_a_state_too_large_for_a_row_lies_beside_it():
    rand = random.Random(1)
    big = [Change(v, BEGIN, BEGIN, {f"k{v}": {"x": rand.randbytes(1_000).hex()}}) for v in range(1, 1_001)]
    world = World(big)

    assert next(world.objects.keys("snapshots/")) is not None
    assert world.state(Within()).state == state_of(big)
