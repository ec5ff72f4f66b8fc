"""Subscriptions: making and changing them, what they send, what stands still and what goes on."""

import itertools
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from holdfast.clock import MICROSECOND
from holdfast.dynamodb import Transport
from holdfast.dynamodb.reads import get
from holdfast.dynamodb.writes import update_guarded
from holdfast.errors import Conflict, Denied, Invalid, NotFound, ServiceError, Unavailable
from holdfast.log import PARTITIONS, partition_of
from holdfast.outbox import MemoryOutbox
from holdfast.retry import deadline
from holdfast.subscriptions import ATTEMPTS_MAX, AllowList, Settings, Subscriptions
from holdfast.subscriptions import registry as module
from holdfast.subscriptions.delivering import CATCHING_UP_MAX
from holdfast.subscriptions.rows import Track, subscription_key
from holdfast.subscriptions.rules import EVENTS_FIRST, EVENTS_MAX, TYPES_MAX
from holdfast.testing import FaultyTransport
from tests.log_lab import LogLab
from tests.subscription_lab import ALLOWED, QUEUE, TOPIC, SubscriptionLab, render


@pytest.fixture
def lab() -> SubscriptionLab:
    return SubscriptionLab()


# ----- making, changing, ending


def test_a_subscription_is_read_as_it_was_made(lab):
    made = lab.subscribe("orders", types=("a", "b"), stream_prefix="orders/", target=TOPIC)

    found = lab.registry().get("orders")

    assert found == made
    assert found.settings == Settings(TOPIC, ("a", "b"), "orders/")
    assert (found.created_by, found.begins, found.starts) == ("ann", "start", (0,) * PARTITIONS)
    assert lab.registry().all() == [made]


def test_asking_for_the_same_again_changes_nothing(lab):
    made = lab.subscribe()
    lab.wait(timedelta(hours=1))

    assert lab.subscribe() == made
    assert lab.subscribe(begins="now") == made


def test_a_changed_subscription_goes_on_from_where_it_was(lab):
    made = lab.subscribe()
    lab.append("s/1", 3)
    lab.move(made)

    changed = lab.subscribe(target=TOPIC)
    lab.append("s/1")
    lab.move(changed)

    assert (changed.id, changed.version) == (made.id, made.version + 1)
    assert (lab.arrived(QUEUE), lab.arrived(TOPIC)) == ({"s/1": [1, 2, 3]}, {"s/1": [4]})


def test_a_deleted_subscription_is_gone_and_one_made_anew_begins_anew(lab):
    made = lab.subscribe()
    lab.append("s/1", 2)
    lab.move(made)

    lab.registry().delete("all")

    assert lab.registry().find("all") is None
    assert lab.registry().all() == []
    with pytest.raises(NotFound):
        lab.registry().delete("all")

    again = lab.subscribe()
    lab.move(again)

    assert again.id != made.id
    assert lab.arrived() == {"s/1": [1, 2, 1, 2]}


def test_a_deleted_subscription_leaves_a_row_that_goes_by_itself_and_nothing_else(lab):
    lab.poison.add(("s/1", 1))
    made = lab.subscribe()
    lab.append("s/1")
    lab.move(made)

    lab.registry().delete("all")

    rows = list(lab.lab.transport.rows("operations"))
    assert lab.kinds_of_rows() == ["SUB", "SUBS"]
    (gone,) = (row for row in rows if row["pk"]["S"].startswith("SUB#"))
    assert int(gone["expires"]["N"]) == int((lab.lab.clock.now() + timedelta(days=1)).timestamp())


def test_a_subscription_begins_with_what_comes_or_with_what_is_there(lab):
    lab.append("s/1", 2)
    later, earlier = lab.subscribe("later", begins="now"), lab.subscribe("earlier", target=TOPIC)
    lab.append("s/1")

    lab.move(later)
    lab.move(earlier)

    assert (lab.arrived(QUEUE), lab.arrived(TOPIC)) == ({"s/1": [3]}, {"s/1": [1, 2, 3]})


@pytest.mark.parametrize(
    ("target", "is_allowed"),
    [
        (QUEUE, True),
        (f"{QUEUE}-2", True),
        (TOPIC, True),
        (f"{TOPIC}-2", False),
        (QUEUE.replace("us-east-1", "eu-west-1"), False),
        (QUEUE.replace("123456789012", "210987654321"), False),
    ],
)
def test_only_targets_of_the_list_are_allowed(lab, target, is_allowed):
    if is_allowed:
        assert lab.subscribe(target=target).settings.target == target
    else:
        with pytest.raises(Denied, match="target_not_allowed"):
            lab.subscribe(target=target)


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_an_empty_list_allows_nothing(text):
    with pytest.raises(Denied):
        AllowList.of(text).check(QUEUE)


def test_a_target_that_is_no_longer_allowed_gets_nothing(lab):
    made = lab.subscribe()
    lab.append("s/1")
    deliverer = lab.deliverer()
    narrowed = type(deliverer)(**{**vars(deliverer), "allowed": AllowList.of(TOPIC)})

    with pytest.raises(Denied, match="target_not_allowed"):
        narrowed.move(made, partition_of("s/1"))
    assert lab.arrived() == {}


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 65, "a#b", "a\n"])
def test_what_is_no_name_is_refused(lab, name):
    with pytest.raises(Invalid, match="invalid_subscription"):
        lab.subscribe(name)


@pytest.mark.parametrize(
    "settings",
    [
        {"target": "arn:aws:s3:::bucket"},
        {"target": f"{QUEUE}\n"},
        {"target": "https://example.com"},
        {"types": ("t",) * (TYPES_MAX + 1)},
        {"types": ("",)},
        {"types": ("é" * 257,)},
        {"stream_prefix": "a b"},
        {"stream_prefix": "x" * 201},
    ],
)
def test_settings_that_nothing_could_meet_are_refused(lab, settings):
    with pytest.raises(Invalid):
        lab.subscribe(**settings)


def test_a_tenant_has_no_more_subscriptions_than_the_bound(lab, monkeypatch):
    monkeypatch.setattr(module, "SUBSCRIPTIONS_MAX", 2)
    lab.subscribe("a")
    lab.subscribe("b")

    with pytest.raises(Conflict, match="too_many_subscriptions"):
        lab.subscribe("c")
    lab.registry().delete("a")
    lab.subscribe("c")


def test_tenants_do_not_see_each_others(lab):
    lab.subscribe()
    other = Subscriptions(lab.lab.database(), lab.lab.tables, "other", ALLOWED)

    assert other.all() == []
    assert other.find("all") is None


@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize("fault", ["lost_reply", "lost_request", "duplicate", "server_error", "throttle"])
def test_making_and_ending_survive_a_fault_at_any_call(lab, fault, at):
    transport = FaultyTransport(lab.lab.transport, [None] * (at - 1) + [fault])
    registry = lab.registry(transport)

    made = registry.put("all", Settings(QUEUE), begins="start", by="ann")

    assert lab.registry().all() == [made]
    registry.delete("all")
    assert lab.registry().all() == []


# ----- what is sent


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


# ----- what stands still


def test_behind_a_refused_event_its_stream_stands_still_and_the_others_go_on(lab):
    lab.poison.add(("s/1", 3))
    made = lab.subscribe()
    for _ in range(3):
        lab.append("s/1", 2)
        lab.append("s/2", 2)

    lab.move(made)

    assert lab.arrived() == {"s/1": [1, 2], "s/2": [1, 2, 3, 4, 5, 6]}
    (stand,) = lab.all_stands(made)
    assert (stand.stream, stand.version, stand.attempts, stand.reason) == ("s/1", 3, 1, "poison")
    lab.check(made)


def test_an_event_that_is_taken_later_lets_its_stream_go_on_by_itself(lab):
    lab.poison.add(("s/1", 2))
    made = lab.subscribe()
    lab.append("s/1", 4)
    lab.move(made)
    lab.append("s/1", 2)
    lab.move(made)
    assert lab.arrived() == {"s/1": [1]}

    lab.poison.clear()
    lab.wait()
    lab.move(made)

    assert lab.arrived() == {"s/1": [1, 2, 3, 4, 5, 6]}
    assert lab.all_stands(made) == []
    lab.check_all_arrived(made)


def test_a_refused_event_is_tried_again_less_and_less_often(lab):
    lab.poison.add(("s/1", 1))
    made = lab.subscribe()
    lab.append("s/1")
    lab.move(made)
    for attempts, seconds in enumerate([5, 15, 45, 135], start=1):
        lab.wait(timedelta(seconds=seconds) - MICROSECOND)
        lab.move(made)
        assert lab.all_stands(made)[0].attempts == attempts
        lab.wait(MICROSECOND)
        lab.move(made)
        assert lab.all_stands(made)[0].attempts == attempts + 1
    lab.wait(timedelta(days=1))
    lab.move(made)

    assert lab.all_stands(made)[0].attempts == ATTEMPTS_MAX


def test_a_stream_is_parked_after_five_refusals_and_that_is_told_once(lab):
    lab.poison.add(("s/1", 1))
    made = lab.subscribe()
    lab.append("s/1")

    lab.settle(made)

    (stand,) = lab.all_stands(made)
    assert (stand.attempts, stand.is_parked, stand.is_told) == (ATTEMPTS_MAX, True, True)
    assert [(name, told.stream, told.version) for name, told in lab.told] == [("all", "s/1", 1)]
    (told,) = (each for each in lab.registry().progress(made) if each.standing)
    assert (told.standing, told.parked) == (1, 1)


def test_what_could_not_be_told_of_is_told_later(lab):
    lab.poison.add(("s/1", 1))
    made = lab.subscribe()
    lab.append("s/1")

    def refuse(*_: Any) -> None:
        raise Unavailable("bus_unavailable", "The bus does not answer.")

    silent = type(lab.deliverer())(**{**vars(lab.deliverer()), "on_parked": refuse})
    for _ in range(8):
        lab.wait()
        lab.move(made, silent)
    assert not lab.all_stands(made)[0].is_told

    lab.append("s/2")
    lab.move(made)

    assert len(lab.told) == 1
    assert lab.arrived() == {"s/2": [1]}


def test_a_late_word_that_a_stream_was_told_of_does_not_hide_that_it_is_parked_again(lab):
    lab.poison.add(("s/1", 1))
    lab.can_tell = False
    made = lab.subscribe()
    lab.append("s/1")
    lab.settle(made)
    (stand,) = lab.all_stands(made)
    told = msgspec.structs.replace(stand, is_told=True)
    late = Track(made, partition_of("s/1")).stand_change(stand, told)
    lab.registry().redrive(made)
    lab.settle(made)

    update_guarded(lab.lab.database(), late, table="operations", is_applied=lambda _: False)
    lab.can_tell = True
    lab.move(made)

    assert [told.version for _, told in lab.told] == [1]


def test_where_nobody_can_be_told_that_is_tried_once_a_call(lab):
    """It may take seconds to fail, and deliveries wait for it."""
    streams = [f"s/{number}" for number in range(12)]
    lab.poison |= {(stream, 1) for stream in streams}
    made = lab.subscribe()
    for stream in streams:
        lab.append(stream)
    tried: list[str] = []

    def refuse(_: Any, stand: Any) -> None:
        tried.append(stand.stream)
        raise Unavailable("bus_unavailable", "The bus does not answer.")

    silent = type(lab.deliverer())(**{**vars(lab.deliverer()), "on_parked": refuse})
    for _ in range(6):
        lab.wait()
        lab.move(made, silent)
    assert all(stand.is_parked for stand in lab.all_stands(made))
    tried.clear()
    lab.move(made, silent)

    assert len(tried) == len({partition_of(stream) for stream in streams})


def test_a_redrive_lets_a_parked_stream_go_on_in_order(lab):
    lab.poison.add(("s/1", 2))
    made = lab.subscribe()
    lab.append("s/1", 3)
    lab.settle(made)
    lab.append("s/1", 3)
    lab.append("s/2")
    lab.settle(made)
    lab.poison.clear()
    lab.settle(made)
    assert lab.arrived() == {"s/1": [1], "s/2": [1]}

    (stand,) = lab.registry().redrive(made, "s/1")
    lab.move(made)

    assert stand.version == 2
    assert lab.arrived() == {"s/1": [1, 2, 3, 4, 5, 6], "s/2": [1]}
    lab.check_all_arrived(made)


def test_a_redriven_stream_may_stand_still_again_further_on(lab):
    lab.poison |= {("s/1", 2), ("s/1", 4)}
    made = lab.subscribe()
    lab.append("s/1", 6)
    lab.settle(made)
    lab.poison.remove(("s/1", 2))

    lab.registry().redrive(made)
    lab.settle(made)

    (stand,) = lab.all_stands(made)
    assert (stand.version, stand.attempts) == (4, ATTEMPTS_MAX)
    assert [told.version for _, told in lab.told] == [2, 4]
    assert lab.arrived() == {"s/1": [1, 2, 3]}


@pytest.fixture
def far_behind(lab, monkeypatch) -> SubscriptionLab:
    """A stream was redriven that has missed much of its partition's log, every step through which takes a second."""
    monkeypatch.setattr("holdfast.subscriptions.rules.PASSED_MAX", 1)
    monkeypatch.setattr("holdfast.subscriptions.delivering.STRETCH_COMMITS", 1)
    lab.poison.add(("s/1", 1))
    made = lab.subscribe()
    lab.append("s/1", 1)
    lab.settle(made)
    for _ in range(20):
        lab.append(neighbour_of("s/1"))
    lab.append("s/1", 1)
    lab.move(made)
    lab.poison.clear()
    lab.registry().redrive(made)
    seconds = itertools.count()
    monkeypatch.setattr(lab.lab.clock, "monotonic", lambda: float(next(seconds)))
    return lab


def neighbour_of(stream: str) -> str:
    """Name another stream of the same partition."""
    return next(name for n in range(2, 99) if partition_of(name := f"s/{n}") == partition_of(stream))


def test_a_stream_that_missed_much_comes_through_it_step_by_step(far_behind):
    made = far_behind.registry().get("all")
    for _ in range(20):
        with suppress(Unavailable):
            far_behind.deliverer().move(made, partition_of("s/1"), seconds=12)

    assert far_behind.all_stands(made) == []
    assert far_behind.arrived()["s/1"] == [1, 2]
    far_behind.check_all_arrived(made)


def test_a_stream_that_missed_much_holds_up_no_other(far_behind):
    made = far_behind.registry().get("all")
    far_behind.append(neighbour_of("s/1"))

    with pytest.raises(Unavailable, match="unfinished"):
        far_behind.deliverer().move(made, partition_of("s/1"), seconds=12)

    assert far_behind.arrived()[neighbour_of("s/1")] == list(range(1, 22))
    assert len(far_behind.all_stands(made)) == 1


def test_a_stream_that_is_not_parked_cannot_be_redriven(lab):
    made = lab.subscribe()
    lab.append("s/1")
    lab.move(made)

    with pytest.raises(NotFound, match="not_parked"):
        lab.registry().redrive(made, "s/1")
    assert lab.registry().redrive(made) == []


def test_many_streams_stand_still_and_go_on_together(lab):
    """More of one partition than are caught up together."""
    streams = [name for n in range(400) if partition_of(name := f"s/{n}") == 0][: CATCHING_UP_MAX + 5]
    lab.poison |= {(stream, 2) for stream in streams}
    made = lab.subscribe()
    lab.append_all(*[(stream, 3) for stream in streams])
    lab.settle(made)
    assert len(lab.all_stands(made)) == len(streams) == len(lab.told)
    lab.check(made)

    lab.poison.clear()
    lab.registry().redrive(made)
    lab.settle(made)

    lab.check_all_arrived(made)
    assert lab.all_stands(made) == []


def test_where_too_many_streams_stand_still_the_subscription_does(lab, monkeypatch):
    monkeypatch.setattr("holdfast.subscriptions.delivering.STANDING_MAX", 1)
    lab.poison.add(("s/1", 1))
    made = lab.subscribe()
    neighbour = neighbour_of("s/1")
    lab.append("s/1")
    lab.move(made)
    lab.append(neighbour)
    for _ in range(ATTEMPTS_MAX):
        lab.wait()
        lab.move(made)
    assert lab.arrived() == {}

    lab.poison.clear()
    lab.registry().redrive(made)
    lab.move(made)
    lab.check_all_arrived(made)


def test_a_commit_that_cannot_be_read_keeps_its_stream_and_no_other(lab):
    made = lab.subscribe()
    lab.append("s/1", 2)
    lab.append("s/1", 2)
    lab.append("s/2", 2)
    deliverer = lab.deliverer()

    def forged(tenant: str, stored: Any) -> Any:
        if (stored.stream, stored.first_version) == ("s/1", 3):
            raise ValueError("it is not what was sealed there")
        return deliverer.render(tenant, stored)

    lab.move(made, type(deliverer)(**{**vars(deliverer), "render": forged}))

    assert lab.arrived() == {"s/1": [1, 2], "s/2": [1, 2]}
    (stand,) = lab.all_stands(made)
    assert (stand.stream, stand.version, stand.reason) == ("s/1", 3, "ValueError: it is not what was sealed there")
    lab.wait()
    lab.move(made)
    lab.check_all_arrived(made)


def test_an_event_too_large_for_its_target_is_parked(lab):
    made = lab.subscribe(target=TOPIC)
    lab.append("s/1", 2)
    deliverer = lab.deliverer()

    def large(tenant: str, stored: Any) -> Any:
        return [body[:-1] + b',"pad":"' + b"x" * 256 * 1024 + b'"}' for body in deliverer.render(tenant, stored)]

    for _ in range(8):
        lab.wait()
        lab.move(made, type(deliverer)(**{**vars(deliverer), "render": large}))

    assert [(stand.version, stand.is_parked) for stand in lab.all_stands(made)] == [(1, True)]


def test_an_unwanted_event_keeps_no_stream_standing(lab):
    lab.poison.add(("s/1", 1))
    made = lab.subscribe()
    lab.append("s/1", 2)
    lab.settle(made)

    changed = lab.subscribe(types=("other",))
    lab.registry().redrive(changed)
    lab.settle(changed)

    assert lab.all_stands(changed) == []


# ----- all of them


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


def test_a_subscription_is_found_by_its_name_alone(lab):
    made = lab.subscribe("orders")
    key = subscription_key(lab.lab.tenant, "orders")

    row = get(lab.lab.database(), "operations", key["pk"], key["sk"])

    assert row is not None
    assert (row["name"], row["id"]) == ("orders", made.id)
    assert len(str(key["sk"])) <= 38


def test_errors_say_what_to_do(lab):
    with pytest.raises(ServiceError, match="subscription_not_found"):
        lab.registry().get("none")
