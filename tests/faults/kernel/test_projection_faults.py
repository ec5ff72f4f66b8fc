"""Read models through crashes at every call, lost replies, rivals, poison and rebuilds: every event counts once."""

import contextlib
import random
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any

import pytest

from holdfast.errors import Conflict, Unavailable
from holdfast.log import PARTITIONS, partition_of
from holdfast.projections import Generation, Key, Projector, redrive
from holdfast.projections.pointers import read_pointers
from holdfast.projections.rebuilds import STILL, Rebuild, Rebuilds
from holdfast.projections.redrive import Redrive
from holdfast.projections.retirement import Retirement
from holdfast.retry import deadline
from holdfast.testing import FAULTS, FaultyTransport, Fuse, Killed, Turns
from tests.archive_lab import streams_together
from tests.faults.kernel.test_log_faults import RivalTransport
from tests.log_lab import EveryEvent, LogLab, PerStream, log_lab
from tests.soak import examples, until_delivered

STEPS_MAX = 200


@pytest.fixture
def lab() -> LogLab:
    return log_lab()


def indexed(lab: LogLab, seed: int, commits: int = 14) -> LogLab:
    lab.indexer().index(lab.grow(random.Random(seed), commits))
    return lab


class Slow:
    """A transport whose every call takes a second."""

    def __init__(self, lab: LogLab) -> None:
        self._lab = lab

    def call(self, operation: str, request: Any) -> Any:
        self._lab.clock.advance(timedelta(seconds=1))
        return self._lab.transport.call(operation, request)


class Work:
    """The queue between a rebuild and its workers, which repeats and reorders."""

    def __init__(self, lab: LogLab, noise: random.Random, effects: Any = None, views: Any = None) -> None:
        self.lab = lab
        self.noise = noise
        self.effects = effects
        self.views = views
        self.messages: list[tuple[str, str, int]] = []

    def rebuilds(self, transport: Any = None) -> Rebuilds:
        projector = self.lab.projector(transport, self.effects, self.views)
        return Rebuilds(projector.database, projector.tables, projector, lambda *step: self.messages.append(step))

    def drain(self, transport: Any = None) -> None:
        for _ in range(STEPS_MAX):
            if not self.messages:
                return
            step = self.messages.pop(self.noise.randrange(len(self.messages)))
            for _ in range(self.noise.choice((1, 1, 2))):
                if self.rebuilds(transport).step(*step):
                    self.messages.append(step)
        raise AssertionError(f"There is work after {STEPS_MAX} steps.")

    def start(self, rebuild_id: str = "r1", view: str = "per-stream", **more: Any) -> Rebuild:
        return self.rebuilds().start(self.lab.tenant, view, rebuild_id=rebuild_id, actor="ann", reason="a test", **more)

    def state(self, rebuild_id: str = "r1") -> str:
        return self.rebuilds().get(self.lab.tenant, rebuild_id).state


# ----- moving along the log


def test_records_that_are_lost_repeated_and_cut_off_leave_views_that_hold_what_a_fold_of_the_log_holds():
    def run(seed: int) -> int:
        lab, noise, delivered = log_lab(), random.Random(seed), 0
        for _ in range(8):
            lab.indexer().index(lab.grow(noise, 2))
            for _ in range(noise.randrange(16)):
                transport = Fuse(noise.choice((None, noise.randrange(1, 15)))).wrap(lab.transport)
                with contextlib.suppress(Killed):
                    lab.projector(transport).project(lab.tenant, noise.randrange(PARTITIONS))
                delivered += 1
        lab.project()  # as the sweep does, once a minute
        lab.check_views()
        return delivered

    until_delivered(run)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 26))
def test_killed_at_any_call_a_view_counts_nothing_twice(lab, at, after):
    indexed(lab, at)
    transport = Fuse(at, after=after).wrap(lab.transport)
    with contextlib.suppress(Killed):
        lab.project(transport)

    lab.project()

    lab.check_views()


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("at", range(1, 20, 2))
def test_one_fault_at_any_call_is_survived(lab, fault, at):
    indexed(lab, at)

    lab.project(FaultyTransport(lab.transport, [None] * (at - 1) + [fault]))
    lab.project()

    lab.check_views()


@pytest.mark.parametrize("at", range(1, 26))
def test_two_projectors_beside_each_other_count_nothing_twice(lab, at):
    indexed(lab, at)

    lab.project(RivalTransport(lab.transport, at, lab.project))
    lab.project()

    lab.check_views()


def test_a_projection_is_unfinished_when_time_is_over_and_says_so(lab):
    indexed(lab, 1)
    with deadline(0, lab.clock), pytest.raises(Unavailable) as refused:
        lab.project()

    assert refused.value.code in ("unfinished", "out_of_time")
    lab.project()
    lab.check_views()


def test_who_stands_behind_is_told_without_moving_anything(lab):
    indexed(lab, 1)
    everywhere = [(lab.tenant, head.partition) for head in lab.log().heads() if head.size]
    assert lab.projector().survey(lab.log().heads()).behind == set(everywhere)

    lab.projector().project(*everywhere[0])
    assert lab.projector().survey(lab.log().heads()).behind == set(everywhere[1:])


# ----- effects


def test_effects_happen_once_for_each_event_and_again_after_a_crash_before_the_checkpoint(lab):
    indexed(lab, 1)
    happened: list[tuple[int, int]] = []
    effects = {"every": lambda event: happened.append((event.partition, event.position))}
    everything = [
        (partition, position)
        for partition in range(PARTITIONS)
        for position in range(1, lab.log().head(partition).position + 1)
    ]

    for partition in range(PARTITIONS):
        lab.projector(effects=effects).project(lab.tenant, partition)
    for partition in range(PARTITIONS):
        lab.projector(effects=effects).project(lab.tenant, partition)

    assert happened == everything


# ----- poison


class Picky(PerStream):
    """A counting view that cannot take some events, and cannot say which rows others change."""

    def __init__(self, refused: set[tuple[str, int]], unnamed: AbstractSet[tuple[str, int]] = frozenset()) -> None:
        self.refused = refused
        self.unnamed = unnamed

    def keys(self, event: Any) -> Any:
        if (event.stream, event.version) in self.unnamed:
            raise ValueError(f"no rows of {event.version}")
        return super().keys(event)

    def change(self, key: Any, row: Any, event: Any) -> Any:
        if (event.stream, event.version) in self.refused:
            raise ValueError(f"no {event.version}")
        return super().change(key, row, event)


def picky(
    lab: LogLab,
    refused: set[tuple[str, int]],
    transport: Any = None,
    told: list[Any] | None = None,
    unnamed: AbstractSet[tuple[str, int]] = frozenset(),
) -> tuple[Projector, Picky]:
    view = Picky(refused, unnamed)
    plain = lab.projector(transport)
    heard: list[Any] = [] if told is None else told
    views = [plain.views[0], view]
    return Projector(plain.database, plain.tables, plain.bodies, views, {}, lambda *parked: heard.append(parked)), view


def test_an_event_that_cannot_be_taken_stops_its_stream_and_no_other(lab):
    for _ in range(4):
        lab.indexer().index([lab.append("s/1", 2), lab.append("s/2", 2)])
    told: list[Any] = []
    projector, _ = picky(lab, {("s/1", 3)}, told=told)
    for _ in range(2):
        for partition in range(PARTITIONS):
            projector.project(lab.tenant, partition)

    assert [(generation.view, parked.stream) for generation, parked in told] == [("per-stream", "s/1")]
    generation = Generation("per-stream", 1, lab.tenant)
    rows = {stream: dict(lab.views().rows(generation, str(partition_of(stream))))[stream] for stream in lab.written}
    assert rows["s/1"] == {"events": 2, "sum": 3}
    assert rows["s/2"]["events"] == 8
    (parked,) = Redrive(projector).parked(generation, partition_of("s/1"))
    assert (parked.stream, parked.version, parked.reason) == ("s/1", 3, "ValueError: no 3")


@pytest.mark.parametrize("at", range(1, 14))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_redriven_a_stream_goes_on_in_order_and_nothing_is_counted_twice(lab, at, after):
    for _ in range(4):
        lab.indexer().index([lab.append("s/1", 2), lab.append("s/2", 2)])
    projector, _ = picky(lab, {("s/1", 3)})
    for partition in range(PARTITIONS):
        projector.project(lab.tenant, partition)
    lab.indexer().index([lab.append("s/1", 3)])
    for partition in range(PARTITIONS):
        projector.project(lab.tenant, partition)
    generation, partition = Generation("per-stream", 1, lab.tenant), partition_of("s/1")

    mended, view = picky(lab, set(), Fuse(at, after=after).wrap(lab.transport))
    with contextlib.suppress(Killed):
        Redrive(mended).stream(view, generation, partition, "s/1")
    mended, view = picky(lab, set())
    assert Redrive(mended).stream(view, generation, partition, "s/1") is None

    assert list(Redrive(mended).parked(generation, partition)) == []
    lab.check_views()


def test_a_stream_that_is_still_poisoned_stands_still_again_further_on(lab):
    for _ in range(4):
        lab.indexer().index([lab.append("s/1", 2)])
    projector, _ = picky(lab, {("s/1", 3)})
    partition, generation = partition_of("s/1"), Generation("per-stream", 1, lab.tenant)
    projector.project(lab.tenant, partition)

    second, view = picky(lab, {("s/1", 7)})
    parked = Redrive(second).stream(view, generation, partition, "s/1")
    assert parked is not None
    assert parked.version == 7
    assert dict(lab.views().rows(generation, str(partition)))["s/1"] == {"events": 6, "sum": 21}

    third, view = picky(lab, set())
    assert Redrive(third).stream(view, generation, partition, "s/1") is None
    lab.check_views()


@pytest.mark.parametrize("unnamed_at_first", [{("s/1", 4)}, set()], ids=["by both", "by one"])
def test_a_stream_that_two_events_stop_in_two_ways_stands_still_at_the_first(lab, unnamed_at_first):
    lab.indexer().index([lab.append("s/1") for _ in range(5)])
    partition, generation = partition_of("s/1"), Generation("per-stream", 1, lab.tenant)
    projector, _ = picky(lab, {("s/1", 2)}, unnamed=unnamed_at_first)
    projector.project(lab.tenant, partition)

    second, view = picky(lab, {("s/1", 2)}, unnamed={("s/1", 4)})
    again = Redrive(second).stream(view, generation, partition, "s/1")

    (parked,) = Redrive(second).parked(generation, partition)
    assert (again, parked.version) == (parked, 2)
    assert second.checkpoint(generation, partition).parked == 1
    third, view = picky(lab, set(), unnamed={("s/1", 4)})
    further = Redrive(third).stream(view, generation, partition, "s/1")
    assert further is not None
    assert (further.version, further.reason) == (4, "ValueError: no rows of 4")
    assert [further] == list(Redrive(third).parked(generation, partition))
    fourth, view = picky(lab, set())
    assert Redrive(fourth).stream(view, generation, partition, "s/1") is None
    lab.check_views()


@pytest.mark.parametrize("poisoned", [1, 3])
def test_a_redrive_that_is_cut_off_has_come_further_by_what_it_looked_through(lab, monkeypatch, poisoned):
    """However much of other streams lies between the events of the one that is redriven."""
    monkeypatch.setattr(redrive, "COMMITS_MAX", 5, raising=False)
    ours, *others = streams_together(6)
    for _ in range(3):
        for stream in (ours, *others, *others, *others):
            lab.indexer().index([lab.append(stream)])
    partition, generation = partition_of(ours), Generation("per-stream", 1, lab.tenant)
    projector, _ = picky(lab, {(ours, poisoned)})
    projector.project(lab.tenant, partition)
    mended, view = picky(lab, set(), Slow(lab))

    ends: list[Any] = ["unfinished"]
    while ends[-1] == "unfinished" and len(ends) < 30:
        try:
            with deadline(8, lab.clock):
                ends.append(Redrive(mended).stream(view, generation, partition, ours))
        except Unavailable as error:
            ends.append(error.code)

    assert len(ends) > 2
    assert ends[-1] is None
    assert list(Redrive(mended).parked(generation, partition)) == []
    lab.project()
    lab.check_views()


# ----- rows that no table takes


class Weighty(PerStream):
    """A counting view whose rows hold what a test says, beside what they count."""

    def __init__(self, extra: dict[str, dict[str, Any]], rows: int = 1) -> None:
        self.extra = extra
        self.rows_of_each = rows

    def keys(self, event: Any) -> Any:
        return [Key(str(event.partition), f"{event.stream}#{number}") for number in range(self.rows_of_each)]

    def change(self, key: Any, row: Any, event: Any) -> Any:
        return {**super().change(key, row, event), **self.extra.get(event.stream, {})}


class WeightyEvents(EveryEvent):
    """A listing view of such rows."""

    def __init__(self, extra: dict[str, dict[str, Any]]) -> None:
        self.extra = extra

    def rows(self, event: Any) -> Any:
        for key, row in super().rows(event):
            yield key, {**row, **self.extra.get(event.stream, {})}


def nested(levels: int) -> Any:
    return {"in": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    "extra",
    [{"text": "é" * 205_000}, {"n": 2**70}, {"n": 0.5}, nested(34)],
    ids=["bytes", "number", "kind", "levels"],
)
def test_a_row_that_cannot_be_kept_stops_its_stream_and_no_other(lab, extra):
    ours, other = streams_together(2)
    lab.indexer().index([lab.append(stream, 2) for stream in (ours, other)])
    projector = lab.projector(views=[WeightyEvents({ours: extra}), Weighty({ours: extra})])

    projector.project(lab.tenant, 0)

    for view, rows in (("every", 2), ("per-stream", 1)):
        generation = Generation(view, 1, lab.tenant)
        (parked,) = Redrive(projector).parked(generation, 0)
        assert (parked.stream, parked.version) == (ours, 1)
        assert projector.checkpoint(generation, 0).position == lab.log().head(0).position
        assert len(list(lab.views().rows(generation, "0"))) == rows


def test_rows_that_are_too_much_for_one_transaction_are_written_in_several(lab):
    streams = streams_together(30)
    lab.indexer().index([lab.append(stream) for stream in streams])
    large = Weighty({stream: {"text": "x" * 300_000} for stream in streams})
    projector, generation = lab.projector(views=[large]), Generation("per-stream", 1, lab.tenant)

    projector.project(lab.tenant, 0)
    lab.indexer().index([lab.append(stream) for stream in streams])
    small = lab.projector(views=[Weighty({})])  # as rows that were large weigh, too
    small.project(lab.tenant, 0)

    rows = dict(lab.views().rows(generation, "0"))
    assert {row["events"] for row in rows.values()} == {2}
    assert len(rows) == 30
    checkpoint = projector.checkpoint(generation, 0)
    assert (checkpoint.position, checkpoint.tally.rows, checkpoint.parked) == (60, 30, 0)


def test_an_event_that_changes_more_than_a_transaction_takes_stops_its_stream_and_no_other(lab):
    ours, other = streams_together(2)
    lab.indexer().index([lab.append(stream) for stream in (other, ours, other)])
    view = Weighty({ours: {"text": "x" * 300_000}}, rows=20)
    projector, generation = lab.projector(views=[view]), Generation("per-stream", 1, lab.tenant)

    projector.project(lab.tenant, 0)

    assert [parked.stream for parked in Redrive(projector).parked(generation, 0)] == [ours]
    assert {row["events"] for _, row in lab.views().rows(generation, "0")} == {2}
    assert projector.checkpoint(generation, 0).position == 3


def test_what_keeps_one_view_from_moving_keeps_no_other(lab):
    lab.indexer().index([lab.append("s/1", 2)])

    def untold(_event: Any) -> None:
        raise Unavailable("bus_unavailable", "The bus does not answer.")

    with pytest.raises(Unavailable, match="bus_unavailable"):
        lab.projector(effects={"every": untold}).project(lab.tenant, partition_of("s/1"))

    lab.check_views_of("per-stream", 1)
    lab.project()
    lab.check_views()


def test_more_poison_than_one_batch_parks_is_parked_in_the_next(lab):
    lab.indexer().index([lab.append(f"s/{n}") for n in range(80)])
    projector, _ = picky(lab, {(f"s/{n}", 1) for n in range(80)})
    for partition in range(PARTITIONS):
        projector.project(lab.tenant, partition)

    generation = Generation("per-stream", 1, lab.tenant)
    parked = [each for partition in range(PARTITIONS) for each in Redrive(projector).parked(generation, partition)]
    assert len(parked) == 80


# ----- rebuilding


def test_rebuilds_whose_messages_are_repeated_and_cut_off_end_equal_and_are_swapped_in():
    def run(seed: int) -> int:
        lab, noise, delivered = log_lab(), random.Random(seed), 0
        indexed(lab, seed, 8)
        work = Work(lab, noise)
        for number in range(9):
            view = ("every", "per-stream")[number % 2]
            work.start(str(number), view)
            while work.messages:
                if noise.random() < 0.05:  # the live view goes on meanwhile
                    lab.indexer().index(lab.grow(noise, 1))
                    lab.project()
                message = noise.choice(work.messages)
                transport = Fuse(noise.choice((None, noise.randrange(1, 8), noise.randrange(1, 20)))).wrap(
                    lab.transport
                )
                with contextlib.suppress(Killed):
                    if not work.rebuilds(transport).step(*message) and noise.random() < 0.7:
                        work.messages.remove(message)
                delivered += 1
            assert work.state(str(number)) == "flipped"
        lab.project()
        for view in ("every", "per-stream"):
            lab.check_views_of(view, lab.views().pointer(view).live)
        return delivered

    until_delivered(run)


def test_a_rebuild_beside_a_live_view_that_goes_on_ends_equal_and_is_swapped_in(lab):
    noise = random.Random(1)
    indexed(lab, 1, 20)
    lab.project()
    work = Work(lab, noise)
    work.start()
    for _ in range(6):
        lab.indexer().index(lab.grow(noise, 2))
        lab.project()
        if work.messages:
            work.rebuilds().step(*work.messages.pop(noise.randrange(len(work.messages))))
    work.drain()

    assert work.state() == "flipped"
    assert lab.views().pointer("per-stream").live == 2
    lab.project()
    lab.check_views_of("per-stream", 2)


@pytest.mark.parametrize("view", ["every", "per-stream"])
@pytest.mark.parametrize("seed", range(examples(4, soak=200)))
def test_two_workers_that_take_turns_at_every_call_make_the_same_rows(lab, seed, view):
    indexed(lab, seed)
    lab.project()
    work = Work(lab, random.Random(seed))
    work.start(view=view)
    steps, turns = list(work.messages), Turns(random.Random(seed))
    transport = turns.wrap(lab.transport)

    def worker() -> None:
        for step in steps:
            for _ in range(STEPS_MAX):
                if not work.rebuilds(transport).step(*step):
                    break

    turns.run([worker, worker])

    assert work.state() == "flipped"
    lab.check_views_of(view, 2)


@pytest.mark.parametrize("view", ["every", "per-stream"])
@pytest.mark.parametrize("at", range(1, 13, 2))
def test_a_worker_that_comes_back_when_all_is_done_changes_nothing(lab, at, view):
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start(view=view)
    step = work.messages[partition_of("s/0")]
    ended: list[Rebuild] = []

    def others_end_it() -> None:
        work.drain()
        ended.append(work.rebuilds().get(lab.tenant, "r1"))
        indexed(lab, 2)
        lab.project()

    assert not work.rebuilds(RivalTransport(lab.transport, at, others_end_it)).step(*step)

    assert [rebuild.state for rebuild in ended] == ["flipped"]
    assert work.rebuilds().get(lab.tenant, "r1") == ended[0]
    lab.check_views_of(view, 2)


@pytest.mark.parametrize("view", ["every", "per-stream"])
@pytest.mark.parametrize("at", range(1, 13, 2))
def test_a_worker_of_a_rebuild_that_was_given_up_touches_nothing_of_the_next_one(lab, at, view):
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start(view=view)
    step, work.messages = work.messages[partition_of("s/0")], []
    given_up: list[Rebuild] = []

    def others_make_another() -> None:
        given_up.append(work.rebuilds().abandon(lab.tenant, "r1"))
        work.start("r2", view)
        work.drain()
        indexed(lab, 2)
        lab.project()

    assert not work.rebuilds(RivalTransport(lab.transport, at, others_make_another)).step(*step)

    assert work.rebuilds().get(lab.tenant, "r1") == given_up[0]
    assert (work.state("r2"), lab.views().pointer(view).live) == ("flipped", 3)
    lab.check_views_of(view, 3)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 40, 3))
def test_a_rebuild_killed_at_any_call_goes_on(lab, at, after):
    indexed(lab, at)
    lab.project()
    work = Work(lab, random.Random(at))
    work.start()
    steps = list(work.messages)
    transport = Fuse(at, after=after).wrap(lab.transport)
    with contextlib.suppress(Killed):
        work.drain(transport)
    work.messages += steps  # a queue delivers again what was not done

    work.drain()

    assert work.state() == "flipped"
    lab.project()
    lab.check_views_of("per-stream", 2)


@pytest.mark.parametrize("seconds", range(1, 9))
def test_a_step_whose_time_is_over_anywhere_asks_for_another(lab, seconds):
    indexed(lab, 1, 40)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start()
    step = work.messages[1]

    with deadline(seconds, lab.clock):
        assert work.rebuilds(Slow(lab)).step(*step)
    work.drain()
    assert work.state() == "flipped"


def test_giving_up_a_rebuild_that_was_swapped_in_changes_nothing(lab):
    work = replaced(lab)

    with pytest.raises(Conflict) as refused:
        work.rebuilds().abandon(lab.tenant, "r1")

    assert refused.value.code == "rebuild_over"
    assert work.state() == "flipped"
    lab.clock.advance(timedelta(days=8))
    walk(lab)
    lab.check_views_of("per-stream", 2)


def test_a_rebuild_that_waited_too_long_cannot_become_live(lab):
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start(auto_flip=False)
    work.drain()
    assert work.state() == "ready"
    lab.clock.advance(timedelta(days=8))

    with pytest.raises(Conflict) as refused:
        work.rebuilds().flip(lab.tenant, "r1")

    assert refused.value.code == "rebuild_not_ready"


def test_each_rebuild_is_rolled_back_to_what_it_followed(lab):
    work = replaced(lab)
    work.start("r2")
    work.drain()
    assert lab.views().pointer("per-stream").live == 3

    work.rebuilds().rollback(lab.tenant, "r2")
    assert lab.views().pointer("per-stream").live == 2
    work.rebuilds().rollback(lab.tenant, "r1")
    assert lab.views().pointer("per-stream").live == 1
    lab.check_views_of("per-stream", 1)


def test_starting_again_with_the_same_id_is_one_rebuild(lab):
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))

    assert work.start() == work.start()
    work.drain()
    assert work.start().state == "flipped"
    assert lab.views().pointer("per-stream").newest == 2


def test_one_rebuild_of_a_view_at_a_time(lab):
    indexed(lab, 1)
    work = Work(lab, random.Random(1))
    work.start()

    with pytest.raises(Conflict) as refused:
        work.start("r2")

    assert (refused.value.code, refused.value.facts) == ("rebuild_running", {"rebuild_id": "r1"})
    work.rebuilds().abandon(lab.tenant, "r1")
    assert work.start("r2").generation == 3


# ----- messages that were lost


def asked(work: Work) -> list[int]:
    """Look after the rebuild as somebody does once a minute; return for which partitions a step was asked for."""
    work.messages.clear()
    work.rebuilds().ask_again([(work.lab.tenant, "r1")])
    return sorted(partition for _, _, partition in work.messages)


def test_a_rebuild_whose_steps_were_never_asked_for_is_asked_for_again(lab):
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start()
    assert asked(work) == []

    lab.clock.advance(STILL)

    assert asked(work) == list(range(PARTITIONS))
    steps = list(work.messages)
    assert asked(work) == []  # once, however often somebody looks
    work.messages = steps
    work.drain()
    assert work.state() == "flipped"
    lab.clock.advance(STILL)
    assert asked(work) == []


def test_only_partitions_that_stand_still_are_asked_for_again(lab):
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    rebuild = work.start()
    work.rebuilds().step(lab.tenant, "r1", 1)  # it has arrived
    generation = Generation("per-stream", rebuild.generation, lab.tenant)
    work.rebuilds().projector.advance(PerStream(), generation, 2, until=1)  # it moves

    lab.clock.advance(STILL)
    assert asked(work) == [0, 3]
    lab.clock.advance(STILL)
    assert asked(work) == [0, 2, 3]


def test_a_rebuild_of_which_only_the_end_was_lost_is_ended(lab):
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start()

    class KilledBeforeTheSwap:
        def call(self, operation: str, request: Any) -> Any:
            if any("ConditionCheck" in action for action in request.get("TransactItems", ())):
                raise Killed
            return lab.transport.call(operation, request)

    with pytest.raises(Killed):
        work.drain(KilledBeforeTheSwap())
    lab.clock.advance(STILL)

    assert asked(work) == [0]
    work.drain()
    assert work.state() == "flipped"


def test_a_rebuild_has_no_effects_and_those_missed_by_nobody(lab):
    """Effects of the log up to the swap were had by the generation before; those after it are had once."""
    indexed(lab, 3)
    happened: list[tuple[int, int]] = []
    effects = {"every": lambda event: happened.append((event.partition, event.position))}

    def project() -> None:
        for partition in range(PARTITIONS):
            lab.projector(effects=effects).project(lab.tenant, partition)

    project()
    lab.indexer().index(lab.grow(random.Random(9), 4))  # not projected yet when the rebuild runs
    before = len(happened)
    work = Work(lab, random.Random(3), effects)
    work.start(view="every")
    work.drain()
    assert len(happened) == before
    project()
    lab.indexer().index(lab.grow(random.Random(10), 4))
    project()

    positions = sum(head.position for head in lab.log().heads())
    assert len(happened) == len(set(happened)) == positions


def test_effects_had_while_a_rebuild_was_ending_are_not_had_again(lab):
    indexed(lab, 3)
    happened: list[tuple[int, int]] = []
    effects = {"every": lambda event: happened.append((event.partition, event.position))}

    def project() -> None:
        for partition in range(PARTITIONS):
            lab.projector(effects=effects).project(lab.tenant, partition)

    project()
    work = Work(lab, random.Random(3), effects)
    work.start(view="every")
    *most, last = work.messages
    for step in most:
        assert not work.rebuilds().step(*step)
    lab.indexer().index(lab.grow(random.Random(9), 6))
    project()  # by the generation that is still the live one
    work.messages = [last]
    work.drain()
    project()

    assert work.state() == "flipped"
    assert len(happened) == len(set(happened)) == sum(head.position for head in lab.log().heads())


def test_a_rebuild_that_differs_waits_for_somebody_to_look(lab):
    indexed(lab, 1)
    lab.project()
    generation = Generation("per-stream", 1, lab.tenant)
    partition = partition_of("s/0")
    lab.corrupt(generation, partition)
    work = Work(lab, random.Random(1))
    work.start()
    work.drain()

    assert work.state() == "needs_review"
    assert lab.views().pointer("per-stream").live == 1
    assert work.rebuilds().flip(lab.tenant, "r1").state == "flipped"
    lab.project()
    lab.check_views_of("per-stream", 2)


def test_a_swap_can_be_rolled_back_and_the_old_generation_catches_up(lab):
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start()
    work.drain()
    lab.indexer().index(lab.grow(random.Random(2), 5))
    lab.project()

    assert work.rebuilds().rollback(lab.tenant, "r1").state == "rolled_back"
    lab.project()
    lab.check_views_of("per-stream", 1)


def positions(lab: LogLab) -> dict[int, int]:
    return lab.views().standing("per-stream").positions


@pytest.mark.parametrize("change", ["flip", "rollback"])
@pytest.mark.parametrize("at", range(1, 32, 6))
def test_whoever_reads_a_view_never_goes_back_when_generations_are_swapped(lab, at, change):
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start(auto_flip=change == "rollback")
    work.drain()
    indexed(lab, 2)
    lab.project()
    seen: dict[int, int] = {}

    def others_write_and_read() -> None:
        for stream in ("s/0", "s/1", "s/2", "s/3"):
            lab.indexer().index([lab.append(stream)])
        lab.project()
        seen.update(positions(lab))

    swapped = getattr(work.rebuilds(RivalTransport(lab.transport, at, others_write_and_read)), change)
    assert swapped(lab.tenant, "r1").state in ("flipped", "rolled_back")

    assert len(seen) == PARTITIONS
    assert positions(lab) == seen
    lab.check_views_of("per-stream", lab.views().pointer("per-stream").live)


def test_a_swap_is_given_up_for_now_when_the_live_view_moves_on_all_the_time(lab):
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start(auto_flip=False)
    work.drain()

    class Busy:
        def call(self, operation: str, request: Any) -> Any:
            if operation == "TransactWriteItems":
                lab.indexer().index([lab.append("s/1")])
                lab.project()
            return lab.transport.call(operation, request)

    with pytest.raises(Unavailable) as refused:
        work.rebuilds(Busy()).flip(lab.tenant, "r1")

    assert refused.value.code == "contended"
    assert work.rebuilds().flip(lab.tenant, "r1").state == "flipped"


def test_a_view_as_it_was_known_at_a_past_time(lab):
    indexed(lab, 1, 10)
    known_at = lab.clock.now()
    expected = lab.expected_rows()
    indexed(lab, 2, 10)
    lab.project()
    work = Work(lab, random.Random(1))
    rebuild = work.start(known_at=known_at)
    work.drain()

    assert work.state() == "ready"
    assert lab.views().pointer("per-stream").live == 1
    generation = Generation("per-stream", rebuild.generation, lab.tenant)
    for partition in range(PARTITIONS):
        assert dict(lab.views().rows(generation, str(partition))) == expected[partition]
    with pytest.raises(Conflict):
        work.rebuilds().flip(lab.tenant, "r1")


# ----- versions of a view


class PerStreamBetter(PerStream):
    """The next version of the view."""

    version = 2

    def change(self, key: Any, row: Any, event: Any) -> Any:
        return {**super().change(key, row, event), "better": True}


NEXT = [PerStreamBetter()]
BOTH = [PerStream(), PerStreamBetter()]


def project(lab: LogLab, views: Any) -> list[Any]:
    """Move along the log with some versions registered; return which live generations were told to stand still."""
    told: list[Any] = []
    plain = lab.projector(views=views)
    projector = Projector(
        plain.database, plain.tables, plain.bodies, views, {}, on_outdated=lambda *outdated: told.append(outdated)
    )
    for partition in range(PARTITIONS):
        projector.project(lab.tenant, partition)
    return told


def made_by(lab: LogLab, number: int) -> set[bool]:
    """Say by which versions the rows of a generation were made."""
    generation = Generation("per-stream", number, lab.tenant)
    rows = [row for partition in range(PARTITIONS) for _, row in lab.views().rows(generation, str(partition))]
    return {"better" in row for row in rows}


def test_a_generation_is_not_carried_on_by_another_version_of_its_view(lab):
    indexed(lab, 1)
    project(lab, [PerStream()])
    before = positions(lab)
    indexed(lab, 2)

    told = project(lab, NEXT)

    assert told == [(Generation("per-stream", 1, lab.tenant), 1)] * PARTITIONS
    assert positions(lab) == before
    assert made_by(lab, 1) == {False}
    assert lab.projector(views=NEXT).survey(lab.log().heads()).behind

    work = Work(lab, random.Random(1), views=NEXT)
    assert work.start().version == 2
    work.drain()
    assert work.state() == "flipped"
    assert project(lab, NEXT) == []
    assert positions(lab) == {head.partition: head.position for head in lab.log().heads()}
    assert made_by(lab, 2) == {True}


def test_a_version_that_stays_registered_moves_its_generation_until_the_next_one_has_taken_its_place(lab):
    indexed(lab, 1)
    project(lab, [PerStream()])
    work = Work(lab, random.Random(1), views=BOTH)
    work.start()
    indexed(lab, 2)
    assert project(lab, BOTH) == []
    lab.check_views_of("per-stream", 1)
    work.drain()
    indexed(lab, 3)
    project(lab, BOTH)
    assert (lab.views().pointer("per-stream").live, made_by(lab, 2)) == (2, {True})

    with pytest.raises(Conflict) as refused:
        Work(lab, random.Random(1), views=NEXT).rebuilds().rollback(lab.tenant, "r1")
    assert refused.value.code == "rebuild_not_live"
    work.rebuilds().rollback(lab.tenant, "r1")
    indexed(lab, 4)
    assert project(lab, BOTH) == []
    lab.check_views_of("per-stream", 1)


def test_the_first_generation_is_made_by_the_newest_version(lab):
    indexed(lab, 1)
    project(lab, BOTH)
    assert made_by(lab, 1) == {True}

    other = log_lab()
    Work(other, random.Random(1), views=NEXT).start()
    indexed(other, 1)
    assert project(other, [PerStream()]) != []


# ----- generations that nobody comes back to


def walk(lab: LogLab, transport: Any = None) -> int:
    retirement = Retirement(lab.database(transport), lab.tables)
    pointers = read_pointers(lab.database(), lab.tables, [lab.tenant], ["every", "per-stream"])
    return retirement.walk(retirement.due(pointers))


def rows_of(lab: LogLab, number: int) -> int:
    generation = Generation("per-stream", number, lab.tenant)
    return sum(len(list(lab.views().rows(generation, str(partition)))) for partition in range(PARTITIONS))


def replaced(lab: LogLab) -> Work:
    """Replace generation 1 by generation 2."""
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start()
    work.drain()
    assert work.state() == "flipped"
    return work


def test_a_generation_that_was_replaced_stays_for_a_week_and_then_goes(lab):
    replaced(lab)
    lab.clock.advance(timedelta(days=6, hours=23))
    assert walk(lab) == 0
    assert rows_of(lab, 1) > 0

    lab.clock.advance(timedelta(hours=1))

    assert walk(lab) > 0
    assert rows_of(lab, 1) == 0
    assert lab.views().pointer("per-stream").going == ()
    assert walk(lab) == 0
    lab.check_views_of("per-stream", 2)
    lab.check_views_of("every", 1)


def test_a_generation_that_came_back_does_not_go(lab):
    work = replaced(lab)
    work.rebuilds().rollback(lab.tenant, "r1")
    lab.clock.advance(timedelta(days=8))

    assert walk(lab) > 0
    lab.check_views_of("per-stream", 1)
    assert rows_of(lab, 2) == 0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 10))
def test_a_retirement_killed_at_any_call_goes_on(lab, at, after):
    replaced(lab)
    lab.clock.advance(timedelta(days=8))
    with contextlib.suppress(Killed):
        walk(lab, Fuse(at, after=after).wrap(lab.transport))

    walk(lab)
    walk(lab)

    assert rows_of(lab, 1) == 0
    assert lab.views().pointer("per-stream").kept == ()
    lab.check_views_of("per-stream", 2)


def test_nobody_comes_back_to_a_generation_that_is_gone(lab):
    work = replaced(lab)
    lab.clock.advance(timedelta(days=8))
    walk(lab)

    with pytest.raises(Conflict) as refused:
        work.rebuilds().rollback(lab.tenant, "r1")
    assert refused.value.code == "rebuild_not_live"


def test_what_was_given_up_goes_too(lab):
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start()
    work.rebuilds().step(*work.messages[1])
    work.rebuilds().abandon(lab.tenant, "r1")
    work.drain()
    lab.clock.advance(timedelta(days=8))

    walk(lab)

    assert rows_of(lab, 2) == 0


# ----- reading one's own writes


def test_a_reader_waits_until_the_view_holds_what_it_wrote(lab):
    hint = lab.append("s/1", 2)
    indexer, projector = lab.indexer(), lab.projector()
    waits = []

    def work_goes_on(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            indexer.index([hint])
        if len(waits) == 4:
            projector.project(lab.tenant, partition_of("s/1"))

    lab.clock.sleep = work_goes_on
    lab.views().wait_for("per-stream", "s/1", 2)

    assert len(waits) == 4


def test_a_reader_waits_no_longer_than_it_said(lab):
    lab.append("s/1", 2)
    started = lab.clock.monotonic()

    with pytest.raises(Unavailable) as refused:
        lab.views().wait_for("per-stream", "s/1", 2)

    assert refused.value.code == "view_behind"
    assert 5 <= lab.clock.monotonic() - started < 6
