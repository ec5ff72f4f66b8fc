"""Requests that arrive when nobody waits for them any more: they are never told as refused."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from holdfast.clock import ManualClock
from holdfast.dynamodb import Database, update_guarded
from holdfast.dynamodb.transport import Answer, Refused
from holdfast.dynamodb.writes import CALLS
from holdfast.errors import Uncertain
from holdfast.streams import AtLeast, Is, Missing, StaleStream, Update, transact
from holdfast.streams.companions import Change
from holdfast.testing import FaultyTransport
from tests.dynamo_tables import row_reader
from tests.faults.kernel.event_store.acts import balance_key
from tests.faults.kernel.event_store.transports import Delays
from tests.promises import event, events_of


def test_a_request_that_arrives_late_is_never_told_as_refused(database, calm, tenant):
    """The balance is short when the second attempt asks, and topped up when the first one arrives after all."""
    late: list[Callable[[], Answer]] = []
    key = balance_key(tenant)
    spend = Update("balances", key, (AtLeast("amount", 100),), add={"amount": -100})
    store = database.stores(ManualClock(), Delays(database.transport, late, "TransactWriteItems")).of(tenant, "ann")

    with pytest.raises(Uncertain):
        store.append("a", 1, [event(2)], commit_id="mine", companions=[spend])
    calm.append(
        "b", 0, [event(7)], commit_id="top-up", companions=[Update("balances", key, (Is("v", 1),), add={"amount": 90})]
    )
    for arrive in late:
        arrive()

    assert events_of(list(calm.read("a"))) == [event(1), event(2)]  # so "refused" would have been untrue
    again = calm.append("a", 1, [event(2)], commit_id="mine", companions=[spend])
    assert again.is_replay
    row = row_reader(database)("balances", key)
    assert row is not None
    assert row["amount"] == 0


def test_a_late_request_that_can_never_be_granted_is_told_as_refused(database, calm, tenant):
    """Another's commit took the key: a put that is still on its way cannot take it any more."""
    late: list[Callable[[], Answer]] = []
    delays = Delays(database.transport, late, "PutItem")
    delays.meanwhile = lambda: calm.append("a", 1, [event(9)], commit_id="other")
    store = database.stores(ManualClock(), delays).of(tenant, "ann")

    with pytest.raises(StaleStream) as refused:
        store.append("a", 1, [event(2)], commit_id="mine")
    with pytest.raises(Refused):
        late[0]()

    assert refused.value.winner is not None
    assert refused.value.winner.commit_id == "other"
    assert events_of(list(calm.read("a"))) == [event(1), event(9)]


def test_who_expects_a_place_beyond_the_end_is_not_told_of_a_winner_who_came_later(database, calm, tenant):
    """A last version and a winner are told of one moment: nobody wins at version 3 of a stream that ends at 1."""

    class Overtaken:
        def call(self, operation: str, request: Any) -> Answer:
            answer = database.transport.call(operation, request)
            if calm.last("a").version == 1:
                calm.append("a", 1, [event(2)], commit_id="second")
                calm.append("a", 2, [event(3)], commit_id="third")
            return answer

    with pytest.raises(StaleStream) as refused:
        database.stores(ManualClock(), Overtaken()).of(tenant, "ann").append("a", 2, [event(9)], commit_id="mine")

    assert (refused.value.last_version, refused.value.winner) == (1, None)


def test_a_guarded_update_that_may_still_arrive_is_uncertain(database, calm, tenant):
    late: list[Callable[[], Answer]] = []
    key = balance_key(tenant)
    slow = Database.connect(Delays(database.transport, late, "UpdateItem"), ManualClock())
    spend = Change(key, (AtLeast("amount", 100), Missing("spent")), set={"spent": "me"}, add={"amount": -100})

    with pytest.raises(Uncertain):
        update_guarded(
            slow, spend, table=database.tables.of_role("balances"), is_applied=lambda row: row.get("spent") == "me"
        )


def test_a_guarded_update_recognises_itself(database, calm, tenant):
    key, table = balance_key(tenant), database.tables.of_role("balances")
    spend = Change(key, (Missing("spent"),), set={"spent": "me"}, add={"amount": -4})

    def spent(plan: list[str | None], who: str = "me") -> tuple[bool, Any]:
        transport = FaultyTransport(database.transport, plan)
        connection = Database.connect(transport, ManualClock())
        return update_guarded(connection, spend, table=table, is_applied=lambda row: row.get("spent") == who)

    assert spent(["lost_reply"])[0]
    assert spent([])[0]
    stands, row = spent([], who="another")
    assert not stands
    assert row is not None
    assert (row["amount"], row["spent"]) == (6, "me")


@pytest.mark.parametrize(("stream", "reads"), [("a", 1), ("b", 2)], ids=["begun", "empty"])
def test_a_decision_whose_commit_arrives_late_is_met_by_its_repeat_and_not_made_twice(
    database, calm, tenant, stream, reads
):
    silence = ["lost_request"] * (CALLS.attempts_max - 1)
    plan = [*[None] * reads, "delay", *silence]
    transport, clock = FaultyTransport(database.transport, plan, late_by=100), ManualClock()
    store = database.stores(clock, transport).of(tenant, "ann")

    def decide(_: list[bytes]) -> list[bytes]:
        transport.arrive()  # nothing yet, and then what the first call sent
        clock.advance(timedelta(seconds=1))
        return [event(9, now=str(clock.now()))]

    def ask() -> list[bytes]:
        return transact(store, stream, list, decide, commit_id="mine", clock=clock)

    before = events_of(list(calm.read(stream)))
    with pytest.raises(Uncertain):
        ask()
    assert events_of(list(calm.read(stream))) == before
    state = ask()

    assert len(state) == len(before) + 1
    assert state == events_of(list(calm.read(stream))) == ask()
