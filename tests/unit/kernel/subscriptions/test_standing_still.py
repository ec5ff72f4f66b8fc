"""Streams behind an event that a target refuses: they stand still, are parked, and go on."""

import itertools
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from holdfast.clock import MICROSECOND
from holdfast.dynamodb.writes import update_guarded
from holdfast.errors import NotFound, Unavailable
from holdfast.log import partition_of
from holdfast.subscriptions import ATTEMPTS_MAX
from holdfast.subscriptions.delivering import CATCHING_UP_MAX
from holdfast.subscriptions.rows import Track
from tests.subscription_lab import TOPIC, SubscriptionLab


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
