"""Each kind of fault does to an attempt what its name says, and a plan says to which."""

import itertools
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.transport import Answer, Busy, Refused, Told, Unknown
from holdfast.testing import FAULTS, FaultyTransport, at_random


class Counting:
    """A store of one number, to which every attempt that arrives adds one, up to a bound."""

    def __init__(self, most: int = 100) -> None:
        self.most = most
        self.arrived: list[str] = []

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        self.arrived.append(operation)
        if len(self.arrived) > self.most:
            raise Refused(to_item({"n": self.most}))
        return Answer({"n": len(self.arrived)}, None)


ARRIVE_AT_ONCE = {"lost_request": 0, "lost_reply": 1, "duplicate": 2, "delay": 0, "throttle": 0, "conflict": 0} | {
    "server_error": 1
}
TOLD = {"throttle": Busy, "conflict": Busy}


def test_every_kind_is_known_here():
    assert FAULTS.keys() == ARRIVE_AT_ONCE.keys()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_meets_the_attempt_of_its_place_and_no_other(fault):
    store = Counting()
    transport = FaultyTransport(store, [None, fault])

    assert transport.call("first", {}).body == {"n": 1}
    if fault == "duplicate":
        assert transport.call("second", {}).body == {"n": 3}  # the second answer, of two
    else:
        with pytest.raises(TOLD.get(fault, Unknown)):
            transport.call("second", {})
    assert store.arrived == ["first"] + ["second"] * ARRIVE_AT_ONCE[fault]
    assert transport.call("third", {}).body == {"n": 2 + ARRIVE_AT_ONCE[fault]}
    assert (transport.attempts, transport.injected) == (3, Counter({fault: 1}))


@pytest.mark.parametrize("fault", [fault for fault, arriving in ARRIVE_AT_ONCE.items() if arriving])
def test_a_fault_on_the_way_back_loses_a_refusal_as_well(fault):
    transport = FaultyTransport(Counting(most=0), [fault])

    with pytest.raises(Unknown if fault == "lost_reply" else Refused):
        transport.call("once", {})


@pytest.mark.parametrize("late_by", [1, 2, 3])
def test_what_is_delayed_arrives_behind_a_later_attempt(late_by):
    store = Counting()
    transport = FaultyTransport(store, ["delay"], late_by=late_by)
    with pytest.raises(Unknown):
        transport.call("late", {})
    for number in range(3):
        transport.call(f"{number}", {})

    assert store.arrived.index("late") == late_by
    assert len(store.arrived) == 4


def test_what_is_still_under_way_arrives_when_told_to_and_its_refusal_is_heard_by_nobody():
    store = Counting(most=0)
    transport = FaultyTransport(store, ["delay", "delay"], late_by=5)
    for name in ("a", "b"):
        with pytest.raises(Unknown):
            transport.call(name, {})

    transport.arrive()
    transport.arrive()

    assert store.arrived == ["a", "b"]


def test_a_plan_drawn_at_random_is_the_same_for_the_same_seed_and_meets_every_kind():
    def drawn(seed: int, share: float) -> list[str | None]:
        return list(itertools.islice(at_random(random.Random(seed), share), 500))

    assert drawn(1, 0.3) == drawn(1, 0.3) != drawn(2, 0.3)
    assert set(drawn(1, 0.3)) == {None, *FAULTS}
    assert set(drawn(1, 0)) == {None}
    assert set(itertools.islice(at_random(random.Random(1), 1, ["delay"]), 50)) == {"delay"}


def test_a_transport_without_a_plan_is_the_one_it_wraps():
    transport = FaultyTransport(Counting(most=0))

    with pytest.raises(Told):
        transport.call("once", {})
