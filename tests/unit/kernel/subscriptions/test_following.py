"""All subscriptions moved along: where the log has grown, and where no hint told of it."""

from datetime import timedelta
from typing import Any

from holdfast.dynamodb import Transport
from holdfast.log import partition_of
from holdfast.outbox import MemoryOutbox
from holdfast.retry import deadline
from holdfast.subscriptions.rules import EVENTS_FIRST, EVENTS_MAX
from tests.log_lab import LogLab
from tests.subscription_lab import QUEUE, TOPIC, SubscriptionLab


def test_where_the_log_has_grown_subscriptions_are_moved(lab):
    lab.subscribe("a")
    lab.subscribe("b", target=TOPIC)
    lab.append("s/1", 2)
    lab.append("s/2", 2)

    followed = lab.follower().follow([(lab.lab.tenant, partition_of("s/1")), ("nobody", 0)])

    assert (followed.tracks, followed.failed) == (2, 0)
    assert {"s/1"} <= set(lab.arrived(QUEUE)) == set(lab.arrived(TOPIC))


def test_the_sweep_moves_what_no_hint_told_of_and_leaves_alone_what_moves(lab):
    lab.subscribe()
    lab.append("s/1")
    assert lab.follower().sweep().tracks == 1
    lab.append("s/1")
    assert lab.follower().sweep().tracks == 0  # somebody moved it just now

    lab.wait(timedelta(seconds=11))
    assert lab.follower().sweep().tracks == 1
    lab.wait(timedelta(seconds=11))
    assert lab.follower().sweep().tracks == 0
    assert lab.arrived() == {"s/1": [1, 2]}


def test_the_sweep_tries_again_what_stands_still(lab):
    lab.poison.add(("s/1", 1))
    lab.subscribe()
    lab.append("s/1")
    for _ in range(6):
        lab.follower().sweep()
        lab.wait()
    assert len(lab.told) == 1


def test_a_sweep_that_cannot_look_after_everybody_looks_after_some(lab):
    labs = [lab, *(SubscriptionLab(LogLab(lab.lab.transport, lab.lab.tables), lab.outbox) for _ in range(19))]
    for each in labs:
        each.subscribe()
        each.append("s/1")

    class Slow(Transport):
        def call(self, operation: str, request: Any) -> Any:
            lab.lab.clock.advance(timedelta(seconds=1))
            return lab.lab.transport.call(operation, request)

    moved = 0
    for _ in range(10):
        lab.wait()
        with deadline(60, lab.lab.clock):
            moved += lab.follower(Slow()).sweep().tracks

    assert moved
    assert len(lab.outbox.sent[QUEUE]) >= moved


def test_one_that_is_held_up_holds_up_no_other(lab):
    lab.subscribe("down")
    lab.subscribe("up", target=TOPIC)
    lab.append("s/1")
    lab.outbox.down.add(QUEUE)

    followed = lab.follower().sweep()

    assert (followed.tracks, followed.failed) == (2, 1)
    assert lab.arrived(TOPIC) == {"s/1": [1]}


def test_a_slow_target_takes_its_share_of_the_time_and_no_more(lab):
    for number in range(5):
        lab.subscribe(f"slow-{number}", target=f"{QUEUE}-{number}")
    lab.append("s/1", 10 * EVENTS_MAX)

    class Slow(MemoryOutbox):
        def to_queue(self, arn: str, messages: Any) -> Any:
            lab.lab.clock.advance(timedelta(seconds=3))
            return lab.outbox.to_queue(arn, messages)

    for _ in range(4):
        lab.wait()
        with deadline(20, lab.lab.clock):
            followed = lab.follower(outbox=Slow()).sweep()
            assert (followed.failed, followed.unfinished) == (0, 5)

    assert all(lab.arrived(f"{QUEUE}-{number}")["s/1"] for number in range(5))
    positions = [lab.registry().progress(each)[partition_of("s/1")].position for each in lab.registry().all()]
    assert min(positions) >= EVENTS_FIRST
