"""Read models along the log, through crashes, faults and rivals: every event counts once, and no effect is lost."""

import contextlib
import random

import pytest

from holdfast.errors import Unavailable
from holdfast.log import PARTITIONS, partition_of
from holdfast.retry import deadline
from holdfast.testing import FAULTS, Crash, FaultyTransport, Fuse, Killed, at_every_crash
from tests.faults.kernel.projections.work import indexed
from tests.faults.kernel.test_log_faults import RivalTransport
from tests.log_lab import EveryEvent, LogLab, PerStream, log_lab
from tests.soak import until_delivered

CALLS = 66
"""By which both views are moved in all partitions."""

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


def test_killed_at_any_call_a_view_counts_nothing_twice():
    def act(lab: LogLab, fuse: Fuse) -> None:
        lab.project(fuse.wrap(lab.transport))

    def then(crash: Crash[LogLab]) -> None:
        act(crash.world, Fuse())
        crash.world.check_views()

    assert at_every_crash(indexed(log_lab(), 1).fork, act, then) == 2 * CALLS


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("at", range(1, CALLS + 1, 7))
def test_one_fault_at_any_call_is_survived(lab, fault, at):
    indexed(lab, at)
    transport = FaultyTransport(lab.transport, [None] * (at - 1) + [fault])

    lab.project(transport)
    lab.project()

    assert transport.injected.total() == 1
    lab.check_views()


@pytest.mark.parametrize("at", range(1, CALLS + 1, 3))
def test_two_projectors_beside_each_other_count_nothing_twice(lab, at):
    indexed(lab, at)
    transport = RivalTransport(lab.transport, at, lab.project)

    lab.project(transport)
    lab.project()

    assert transport.calls >= at
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


def test_effects_happen_once_for_each_event(lab):
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


@pytest.mark.parametrize(
    ("view", "checkpoint"), [(EveryEvent(), "call PutItem"), (PerStream(), "call TransactWriteItems")]
)
def test_effects_happen_again_after_a_crash_before_the_checkpoint_and_after_no_other(view, checkpoint):
    grown, partition = indexed(log_lab(), 1), partition_of("s/0")
    everything = list(range(1, grown.log().head(partition).position + 1))
    repeated: list[tuple[str, bool]] = []

    def act(world: tuple[LogLab, list[int]], fuse: Fuse) -> None:
        lab, happened = world
        effects = {view.name: lambda event: happened.append(event.position)}
        lab.projector(fuse.wrap(lab.transport), effects, [view]).project(lab.tenant, partition)

    def then(crash: Crash[tuple[LogLab, list[int]]]) -> None:
        act(crash.world, Fuse())
        _, happened = crash.world
        if happened != everything:
            assert happened == everything * 2
            repeated.append((crash.call, crash.after))

    assert at_every_crash(lambda: (grown.fork(), []), act, then) > 10
    assert repeated == [(checkpoint, False)]


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
