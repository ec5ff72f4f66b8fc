"""Tickets, connections and cursors under every fault of the store, and two pushers at once."""

import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.dynamodb import Transport
from holdfast.dynamodb.transport import Answer
from holdfast.errors import Denied, ServiceError, Uncertain
from holdfast.log.values import PARTITIONS, partition_of
from holdfast.tailing import TOPIC
from holdfast.testing import FAULTS, FaultyTransport, Fuse, Killed
from tests.broadcast_lab import ANN, BroadcastLab
from tests.soak import IS_SOAK

STREAM = "orders/1"
P = partition_of(STREAM)
PLANS = [
    [first, second]
    for first, second in itertools.product([None, *FAULTS], repeat=2)
    if IS_SOAK or None in (first, second) or first == second
]


@pytest.fixture
def lab() -> BroadcastLab:
    return BroadcastLab()


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_ticket_lets_one_connection_in_whatever_happens_on_the_way(lab: BroadcastLab, plan: list[str | None]):
    ticket = lab.tickets(FaultyTransport(lab.transport, plan)).issue(ANN)

    assert lab.tickets(FaultyTransport(lab.transport, plan)).redeem(ticket, "c1") == ANN
    with pytest.raises((Denied, Uncertain)):
        lab.tickets(FaultyTransport(lab.transport, plan)).redeem(ticket, "c2")
    with pytest.raises(Denied):
        lab.tickets().redeem(ticket, "c2")


def test_a_ticket_whose_use_nobody_answered_is_not_shown_as_refused(lab: BroadcastLab):
    ticket = lab.tickets().issue(ANN)
    lab.tickets().redeem(ticket, "c1")

    with pytest.raises(Uncertain):
        lab.tickets(FaultyTransport(lab.transport, ["lost_request"])).redeem(ticket, "c2")


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_connecting_and_subscribing_survive_every_fault(lab: BroadcastLab, plan: list[str | None]):
    def faulty() -> FaultyTransport:
        return FaultyTransport(lab.transport, plan)

    lab.post.open.add("c1")
    connection = lab.broadcast(faulty()).connect("c1", ANN)
    for number in (1, 2):
        lab.tailing(faulty())(connection, {"type": "subscribe"}, request_id=f"r{number}")

    member = lab.broadcast().member(connection, "log")
    assert member is not None
    assert member.epoch == 2


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_push_sends_each_event_once_whatever_the_store_answers(lab: BroadcastLab, plan: list[str | None]):
    lab.listen()
    lab.log.append(STREAM, b"1", b"2")
    lab.tailing(FaultyTransport(lab.transport, [None, *plan])).push("acme", P)
    lab.tailing().push("acme", P)

    assert [each["position"] for each in lab.post.heard("c1")] == [1, 2]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("attempt", range(1, 4))
def test_a_pusher_that_is_killed_loses_nothing_that_asking_does_not_show(lab: BroadcastLab, attempt: int, after: bool):
    connection = lab.listen()
    lab.log.append(STREAM, b"1")
    with contextlib.suppress(Killed):
        lab.tailing(Fuse(attempt, after=after).wrap(lab.transport)).push("acme", P)
    lab.tailing()(connection, {"type": "ping"}, request_id="r")

    told = lab.post.heard("c1")
    assert [each["position"] for each in told if each["type"] == "event"] in ([1], [])
    assert told[-1]["after"][str(P)] == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("attempt", range(1, 8))
def test_a_connection_that_was_half_forgotten_is_forgotten_by_the_next(lab: BroadcastLab, attempt: int, after: bool):
    lab.listen()
    try:
        lab.broadcast(Fuse(attempt, after=after).wrap(lab.transport)).forget("c1")
    except Killed:
        lab.broadcast().forget("c1")

    assert lab.rows() == []


class Between:
    """A store on which somebody else acts just before the first write of this kind."""

    def __init__(self, inner: Transport, operation: str, act: Any) -> None:
        self._inner = inner
        self._operation = operation
        self._act = act

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        if operation == self._operation and self._act:
            act, self._act = self._act, None
            act()
        return self._inner.call(operation, request)


def test_of_two_pushers_one_sends_each_event(lab: BroadcastLab):
    lab.listen()
    lab.log.append(STREAM, b"1", b"2")

    def other() -> None:
        lab.tailing().push("acme", P)
        lab.log.append(STREAM, b"3")

    lab.tailing(Between(lab.transport, "UpdateItem", other)).push("acme", P)
    lab.tailing().push("acme", P)

    assert [(each["after"], each["position"]) for each in lab.post.heard("c1")] == [(0, 1), (1, 2), (2, 3)]


def test_a_pusher_that_had_seen_less_leaves_the_rest_to_the_other(lab: BroadcastLab):
    lab.listen()
    lab.log.append(STREAM, b"1")

    def other() -> None:
        lab.log.append(STREAM, b"2")
        lab.tailing().push("acme", P)

    lab.tailing(Between(lab.transport, "UpdateItem", other)).push("acme", P)

    assert [each["position"] for each in lab.post.heard("c1")] == [1, 2]


def test_a_push_that_meets_another_subscription_sends_nothing_of_the_old(lab: BroadcastLab):
    connection = lab.listen(prefix="orders/")
    lab.log.append(STREAM, b"1")

    def resubscribe() -> None:
        # Its cursors stand where the old ones stood: they alone would not tell the two apart.
        attributes = {f"{kind}{partition}": 0 for kind in "ce" for partition in range(PARTITIONS)}
        lab.broadcast().subscribe(connection, TOPIC, {"prefix": "users/", **attributes}, request_id="again")

    lab.tailing(Between(lab.transport, "UpdateItem", resubscribe)).push("acme", P)

    assert lab.post.heard("c1") == []


def test_a_push_to_a_connection_that_is_forgotten_meanwhile_brings_no_row_back(lab: BroadcastLab):
    lab.listen()
    lab.log.append(STREAM, b"1")
    lab.tailing(Between(lab.transport, "UpdateItem", lambda: lab.broadcast().forget("c1"))).push("acme", P)

    assert lab.rows() == []
    assert lab.post.heard("c1") == []


def test_a_store_that_is_down_is_told_and_the_connection_stays(lab: BroadcastLab):
    ticket = lab.tickets().issue(ANN)

    with pytest.raises(ServiceError) as told:
        lab.tickets(FaultyTransport(lab.transport, ["throttle"] * 99)).redeem(ticket, "c1")
    assert told.value.retryable
    assert lab.tickets().redeem(ticket, "c1") == ANN
