"""Rebuilds beside the live view: through crashes, rivals and lost messages they end equal and are swapped in."""

import contextlib
import random
from typing import Any

import pytest

from holdfast.errors import Conflict
from holdfast.log import PARTITIONS, partition_of
from holdfast.projections import Generation
from holdfast.projections.rebuilds import STILL, Rebuild
from holdfast.retry import deadline
from holdfast.testing import Crash, Fuse, Killed, Turns, at_every_crash
from tests.faults.kernel.projections.work import STEPS_MAX, Slow, Work, indexed
from tests.faults.kernel.test_log_faults import RivalTransport
from tests.log_lab import PerStream, log_lab
from tests.soak import examples, until_delivered

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


def test_a_rebuild_killed_at_any_call_goes_on(lab):
    indexed(lab, 1)
    lab.project()
    begun = Work(lab, random.Random(1))
    begun.start()

    def then(crash: Crash[Work]) -> None:
        work = crash.world
        work.messages = list(begun.messages)  # a queue delivers again what was not done
        work.drain()
        assert work.state() == "flipped"
        work.lab.project()
        work.lab.check_views_of("per-stream", 2)

    assert at_every_crash(begun.fork, lambda work, fuse: work.drain(fuse.wrap(work.lab.transport)), then) > 100


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
