"""Generations that are swapped in, rolled back, or wait for somebody: no reader goes back, no effect is had twice."""

import random
from datetime import timedelta
from typing import Any

import pytest

from holdfast.errors import Conflict, Unavailable
from holdfast.log import PARTITIONS, partition_of
from holdfast.projections import Generation
from holdfast.projections.rebuilds import Rebuild
from holdfast.testing import Crash, Fuse, at_every_crash
from tests.faults.kernel.projections.work import Work, indexed, positions, replaced
from tests.faults.kernel.test_log_faults import RivalTransport
from tests.log_lab import LogLab


class Effects:
    """What the effects of a view have been had of: each event once, if all is well."""

    def __init__(self, lab: LogLab) -> None:
        self.lab = lab
        self.had: list[tuple[int, int]] = []
        self.of = {"every": lambda event: self.had.append((event.partition, event.position))}

    def project(self) -> None:
        for partition in range(PARTITIONS):
            self.lab.projector(effects=self.of).project(self.lab.tenant, partition)


def test_a_rebuild_has_no_effects_and_those_missed_by_nobody(lab):
    """Effects of the log up to the swap were had by the generation before; those after it are had once."""
    indexed(lab, 3)
    effects = Effects(lab)
    effects.project()
    lab.indexer().index(lab.grow(random.Random(9), 4))  # not projected yet when the rebuild runs
    before = len(effects.had)
    work = Work(lab, random.Random(3), effects.of)
    work.start(view="every")
    work.drain()
    assert len(effects.had) == before
    effects.project()
    lab.indexer().index(lab.grow(random.Random(10), 4))
    effects.project()

    positions = sum(head.position for head in lab.log().heads())
    assert len(effects.had) == len(set(effects.had)) == positions


def test_effects_had_while_a_rebuild_was_ending_are_not_had_again(lab):
    indexed(lab, 3)
    effects = Effects(lab)
    effects.project()
    work = Work(lab, random.Random(3), effects.of)
    work.start(view="every")
    *most, last = work.messages
    for step in most:
        assert not work.rebuilds().step(*step)
    lab.indexer().index(lab.grow(random.Random(9), 6))
    effects.project()  # by the generation that is still the live one
    work.messages = [last]
    work.drain()
    effects.project()

    assert work.state() == "flipped"
    assert len(effects.had) == len(set(effects.had)) == sum(head.position for head in lab.log().heads())


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


@pytest.mark.parametrize(
    ("change", "state", "live"), [("flip", "flipped", 2), ("rollback", "rolled_back", 1)], ids=["flip", "rollback"]
)
def test_a_swap_killed_at_any_call_is_made_or_not_and_goes_on(lab, change, state, live):
    indexed(lab, 1)
    lab.project()
    ready = Work(lab, random.Random(1))
    ready.start(auto_flip=change == "rollback")
    ready.drain()
    indexed(lab, 2)
    lab.project()  # what is to be the live one has something to catch up with
    read = positions(lab)

    def swap(work: Work, fuse: Fuse) -> Rebuild:
        swapped: Rebuild = getattr(work.rebuilds(fuse.wrap(work.lab.transport)), change)(lab.tenant, "r1")
        return swapped

    def then(crash: Crash[Work]) -> None:
        work, view = crash.world, crash.world.lab.views()
        assert (view.pointer("per-stream").live == live) == (work.state() == state)
        assert positions(work.lab) == read
        assert swap(work, Fuse()).state == state
        work.lab.check_views_of("per-stream", live)

    assert at_every_crash(ready.fork, swap, then) > 40


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
