"""What subscriptions send, in which order, and where they go on."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from holdfast.errors import Unavailable
from holdfast.log import PARTITIONS, partition_of
from holdfast.outbox import MemoryOutbox
from holdfast.subscriptions import ATTEMPTS_MAX
from holdfast.subscriptions.rules import EVENTS_FIRST, EVENTS_MAX
from tests.subscription_lab import QUEUE, TOPIC, SubscriptionLab, render


def test_events_arrive_whole_in_the_order_of_their_streams(lab):
    made = lab.subscribe()
    for _ in range(3):
        for stream in ("s/1", "s/2", "s/3"):
            lab.append(stream, 4)

    lab.move(made)

    assert lab.arrived() == {stream: list(range(1, 13)) for stream in ("s/1", "s/2", "s/3")}
    lab.check_all_arrived(made)
    body = msgspec.json.decode(lab.outbox.sent[QUEUE][0].body)
    assert {"id", "type", "stream", "streamversion", "recordedat"} <= set(body)


@pytest.mark.parametrize("target", [QUEUE, TOPIC])
def test_what_arrives_says_whose_it_is_and_is_else_as_it_was_written(lab, target):
    """Tenants may share a target; and a writer may have put anything into an event."""
    deliverer = lab.deliverer()

    def posing(tenant: str, stored: Any) -> Any:
        return [
            body[:-1] + b',"tenant":"victim","n":1.50,"big":12345678901234567890}' for body in render(tenant, stored)
        ]

    made = lab.subscribe(target=target)
    lab.append("s/1")
    lab.move(made, type(deliverer)(**{**vars(deliverer), "render": posing}))

    (message,) = lab.outbox.sent[target]
    assert message.body.count('"tenant"') == 1
    assert msgspec.json.decode(message.body)["tenant"] == lab.lab.tenant
    assert '"n":1.50,"big":12345678901234567890' in message.body


def test_messages_of_two_tenants_share_neither_group_nor_id(lab):
    others = SubscriptionLab(outbox=lab.outbox)
    for each in (lab, others):
        made = each.subscribe()
        each.append("s/1", 2)
        each.move(made)

    first, second, third, fourth = lab.outbox.sent[QUEUE]
    assert first.group == second.group != third.group == fourth.group
    assert len({each.id for each in lab.outbox.sent[QUEUE]}) == 4


def test_moving_again_sends_nothing_again(lab):
    made = lab.subscribe()
    lab.append("s/1", 3)
    lab.move(made)
    lab.move(made)

    assert lab.arrived() == {"s/1": [1, 2, 3]}


def test_only_wanted_streams_and_types_are_sent_and_the_rest_is_passed(lab):
    streams = lab.subscribe("streams", stream_prefix="a/")
    types = lab.subscribe("types", types=("other",), target=TOPIC)
    for stream in ("a/1", "b/1", "ab/1"):
        lab.append(stream, 2)

    lab.move(streams)
    lab.move(types)

    assert (lab.arrived(QUEUE), lab.arrived(TOPIC)) == ({"a/1": [1, 2]}, {})
    for made in (streams, types):
        assert [each.lag_events for each in lab.registry().progress(made)] == [0] * PARTITIONS


def test_a_history_longer_than_a_window_arrives_in_one_call(lab):
    made = lab.subscribe()
    lab.append("s/1", 5 * EVENTS_MAX)

    lab.move(made)

    assert lab.arrived() == {"s/1": list(range(1, 5 * EVENTS_MAX + 1))}


def test_what_time_does_not_suffice_for_goes_on_at_the_checkpoint(lab):
    made = lab.subscribe()
    lab.append("s/1", 3 * EVENTS_MAX)
    partition = partition_of("s/1")

    class Slow(MemoryOutbox):
        def to_queue(self, arn: str, messages: Any) -> Any:
            lab.lab.clock.advance(timedelta(seconds=5))
            return lab.outbox.to_queue(arn, messages)

    with pytest.raises(Unavailable, match="unfinished"):
        lab.deliverer(outbox=Slow()).move(made, partition, seconds=7)
    sent = EVENTS_FIRST + 2 * EVENTS_FIRST
    assert lab.arrived() == {"s/1": list(range(1, sent + 1))}
    assert lab.registry().progress(made)[partition].position == sent

    lab.deliverer().move(made, partition)
    assert lab.arrived() == {"s/1": list(range(1, 3 * EVENTS_MAX + 1))}


def test_a_subscription_that_is_changed_while_it_is_moved_goes_no_further_as_it_was(lab):
    made = lab.subscribe()
    lab.append("s/1", 3 * EVENTS_MAX)

    class Changing(MemoryOutbox):
        def to_queue(self, arn: str, messages: Any) -> Any:
            lab.subscribe(target=TOPIC)
            return lab.outbox.to_queue(arn, messages)

    lab.move(made, lab.deliverer(outbox=Changing()))

    assert lab.arrived() == {"s/1": list(range(1, EVENTS_FIRST + 1))}


def test_what_comes_after_a_change_is_not_judged_by_what_was_before(lab):
    """Somebody who still holds the old settings passes nothing that only the new ones want."""
    old = lab.subscribe(types=("other",))
    new = lab.subscribe()
    lab.append("s/1", 2)

    lab.move(old)
    lab.move(new)

    lab.check_all_arrived(new)


def test_a_stream_that_stands_still_is_not_let_go_by_what_was_before(lab):
    lab.poison.add(("s/1", 1))
    old = lab.subscribe()
    lab.append("s/1")
    lab.move(old)
    old = lab.subscribe(types=("other",))
    new = lab.subscribe()
    lab.append("s/1")
    lab.move(new)
    lab.poison.clear()
    lab.wait()

    lab.move(old)
    lab.settle(new)

    lab.check_all_arrived(new)


def test_who_still_holds_a_subscription_that_was_deleted_leaves_no_row(lab):
    made = lab.subscribe()
    lab.append("s/1")
    lab.registry().delete("all")

    lab.move(made)

    assert lab.arrived() == {}
    assert lab.kinds_of_rows() == ["SUB", "SUBS"]


def test_a_target_that_does_not_answer_keeps_the_checkpoint_and_parks_nothing(lab):
    made = lab.subscribe()
    lab.append("s/1", 2)
    lab.outbox.down.add(QUEUE)
    for _ in range(2 * ATTEMPTS_MAX):
        lab.wait()
        with pytest.raises(Unavailable, match="target_unavailable"):
            lab.deliverer().move(made, partition_of("s/1"))

    assert (lab.all_stands(made), lab.told) == ([], [])
    lab.outbox.down.clear()
    lab.move(made)
    lab.check_all_arrived(made)


def test_progress_tells_where_it_is_and_how_far_that_is_behind(lab):
    made = lab.subscribe()
    partition = partition_of("s/1")
    lab.append("s/1", 2)
    lab.move(made)
    lab.wait(timedelta(seconds=30))
    lab.append("s/1", 3)
    lab.wait(timedelta(seconds=30))

    told = lab.registry().progress(made)[partition]

    assert (told.position, told.head, told.lag_events, told.standing, told.parked) == (2, 5, 3, 0, 0)
    assert 60 <= told.lag_seconds < 61
