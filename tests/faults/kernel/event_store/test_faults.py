"""Faults, crashes and unknown outcomes: what was appended is there once, and nothing unknown is told as failed."""

import itertools

import msgspec
import pytest

from holdfast.clock import ManualClock
from holdfast.dynamodb import BotocoreTransport
from holdfast.errors import Throttled, Unavailable, Uncertain
from holdfast.testing import FAULTS, Crash, FaultyTransport, Fuse, at_every_crash
from tests.dynamo_tables import REGION, TestTables, memory_stores
from tests.faults.kernel.event_store.acts import (
    ACTS,
    ATTEMPTS_COVERED,
    TENANT,
    append_expected,
    append_with_companion,
    applied_once,
    begun,
    found_at,
)
from tests.faults.kernel.event_store.transports import LosesWrites, MeetsANeighbour, Recorder
from tests.unit.kernel.test_transport import NOON, error, says
from tests.unit.kernel.test_transport import store as listening


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", range(ATTEMPTS_COVERED))
def test_one_fault_at_any_attempt_is_survived(database, calm, tenant, act, fault, at):
    transport = FaultyTransport(database.transport, [None] * at + [fault])

    act(database.stores(ManualClock(), transport).of(tenant, "ann"), tenant)

    assert applied_once(database, calm, tenant, act)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("faults", list(itertools.product(["lost_reply", "throttle", "conflict"], repeat=3)))
def test_three_faults_in_a_row_are_survived(database, calm, tenant, act, faults):
    transport = FaultyTransport(database.transport, [None, *faults])

    act(database.stores(ManualClock(), transport).of(tenant, "ann"), tenant)

    assert transport.injected.total() == 3
    assert applied_once(database, calm, tenant, act)


@pytest.mark.parametrize("act", ACTS)
def test_no_append_makes_more_calls_than_the_faults_cover(database, calm, tenant, act):
    transport = FaultyTransport(database.transport)

    act(database.stores(ManualClock(), transport).of(tenant, "ann"), tenant)

    assert transport.attempts <= ATTEMPTS_COVERED


@pytest.mark.parametrize("act", ACTS)
def test_killed_before_or_after_any_call_and_asked_again_it_is_applied_once(act):
    def make() -> TestTables:
        database = memory_stores()
        begun(database, TENANT)
        return database

    def append(database: TestTables, fuse: Fuse) -> None:
        act(database.stores(ManualClock(), fuse.wrap(database.transport)).of(TENANT, "ann"), TENANT)

    def then(crash: Crash[TestTables]) -> None:
        append(crash.world, Fuse())
        calm = crash.world.stores(ManualClock()).of(TENANT, "ann")
        assert applied_once(crash.world, calm, TENANT, act)

    assert at_every_crash(make, append, then) >= 4


@pytest.mark.parametrize("act", ACTS)
def test_an_outcome_that_stays_unknown_is_never_told_as_failed(database, calm, tenant, act):
    writes_lost = FaultyTransport(LosesWrites(database.transport))
    with pytest.raises(Uncertain):
        act(database.stores(ManualClock(), writes_lost).of(tenant, "ann"), tenant)

    assert applied_once(database, calm, tenant, act)  # it had been written all the time
    act(calm, tenant)
    assert applied_once(database, calm, tenant, act)


def test_a_throttle_after_an_unknown_attempt_leaves_the_outcome_unknown(database, calm, tenant):
    transport = FaultyTransport(database.transport, [None, "lost_reply", *["throttle"] * 50])

    with pytest.raises(Uncertain):
        append_expected(database.stores(ManualClock(), transport).of(tenant, "ann"), tenant)


def test_throttled_all_the_way_nothing_happened(database, calm, tenant):
    transport = FaultyTransport(database.transport, [None, *["throttle"] * 50])

    with pytest.raises(Throttled):
        append_expected(database.stores(ManualClock(), transport).of(tenant, "ann"), tenant)

    assert calm.last("a").version == 1
    assert transport.attempts <= 1 + 8


@pytest.mark.parametrize("times", [1, 3])
def test_a_transaction_that_met_a_neighbour_is_not_stale(database, calm, tenant, monkeypatch, times):
    """
    The cancellation as DynamoDB sends it: the key of the commit is taken and the balance in conflict, since one's own
    earlier attempt is half-way through, or a neighbour who will be rolled back.
    """
    taken = msgspec.json.encode(found_at(database, tenant, 1)).decode()
    reasons = f"""[{{"Code": "ConditionalCheckFailed", "Message": "The conditional request failed", "Item": {taken}}},
        {{"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}}]"""
    cancelled = error("TransactionCanceledException", "Transaction cancelled", CancellationReasons=reasons)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with listening(says(400, cancelled)) as (url, requests):
        meeting = MeetsANeighbour(database.transport, BotocoreTransport(REGION, url), times)
        answer = append_with_companion(database.stores(ManualClock(NOON), meeting).of(tenant, "ann"), tenant)

    assert (answer.first_version, answer.version) == (2, 3)
    assert len(requests) == times
    assert applied_once(database, calm, tenant, append_with_companion)


def test_conflicts_with_neighbours_without_an_end_are_not_stale_either(database, calm, tenant):
    transport = FaultyTransport(database.transport, [None, *["conflict"] * 50])

    with pytest.raises(Unavailable) as told:
        append_with_companion(database.stores(ManualClock(), transport).of(tenant, "ann"), tenant)

    assert told.value.code == "store_unavailable"
    assert calm.last("a").version == 1


def test_repeats_are_the_same_to_the_byte(database, calm, tenant):
    recorder = Recorder(FaultyTransport(database.transport, [None, "lost_request", "lost_request", None]))

    append_with_companion(database.stores(ManualClock(), recorder).of(tenant, "ann"), tenant)

    writes = [request for operation, request in recorder.calls if operation == "TransactWriteItems"]
    assert len(writes) == 3
    assert writes[0] == writes[1] == writes[2]
