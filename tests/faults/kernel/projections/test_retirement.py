"""Generations that nobody comes back to: they stay for a week, and then they go."""

import random
from datetime import timedelta
from typing import Any

import pytest

from holdfast.errors import Conflict
from holdfast.log import PARTITIONS
from holdfast.projections import Generation
from holdfast.projections.pointers import read_pointers
from holdfast.projections.retirement import Retirement
from holdfast.testing import Crash, at_every_crash
from tests.faults.kernel.projections.work import Work, indexed, replaced
from tests.log_lab import LogLab


def walk(lab: LogLab, transport: Any = None) -> int:
    retirement = Retirement(lab.database(transport), lab.tables)
    pointers = read_pointers(retirement.database, lab.tables, [lab.tenant], ["every", "per-stream"])
    return retirement.walk(retirement.due(pointers))


def rows_of(lab: LogLab, number: int) -> int:
    generation = Generation("per-stream", number, lab.tenant)
    return sum(len(list(lab.views().rows(generation, str(partition)))) for partition in range(PARTITIONS))


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


def test_giving_up_a_rebuild_that_was_swapped_in_changes_nothing(lab):
    work = replaced(lab)

    with pytest.raises(Conflict) as refused:
        work.rebuilds().abandon(lab.tenant, "r1")

    assert refused.value.code == "rebuild_over"
    assert work.state() == "flipped"
    lab.clock.advance(timedelta(days=8))
    walk(lab)
    lab.check_views_of("per-stream", 2)


def test_a_retirement_killed_at_any_call_goes_on(lab):
    replaced(lab)
    lab.clock.advance(timedelta(days=8))

    def then(crash: Crash[LogLab]) -> None:
        for _ in range(2):
            walk(crash.world)
        assert rows_of(crash.world, 1) == 0
        assert crash.world.views().pointer("per-stream").kept == ()
        crash.world.check_views_of("per-stream", 2)

    assert at_every_crash(lab.fork, lambda world, fuse: walk(world, fuse.wrap(world.transport)), then) > 16


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
