"""Clocks that are wrong, and boundaries that have grown old: neither is built on."""

from datetime import timedelta
from typing import Any

import pytest

from holdfast.clock import MICROSECOND, ManualClock
from holdfast.dynamodb import Database, DynamoEventStores
from holdfast.dynamodb.transport import Answer, Rejected, Unknown
from holdfast.errors import Unavailable, Uncertain
from holdfast.streams import Boundary, RawCodec, StaleStream
from tests.faults.kernel.event_store.acts import ACTS, BACK, append_expected
from tests.faults.kernel.event_store.transports import DatedTransport, SleepingTransport
from tests.promises import event


def test_a_clock_far_from_the_stores_may_not_append(database, calm, tenant):
    clock = ManualClock()
    dated = DatedTransport(database.transport, clock, ahead=timedelta(seconds=61))
    store = DynamoEventStores(Database.connect(dated, clock), RawCodec(), database.tables).of(tenant, "ann")

    with pytest.raises(Unavailable) as refused:
        append_expected(store, tenant)

    assert refused.value.code == "clock_skew"
    assert calm.last("a").version == 1


@pytest.mark.parametrize("earlier", [[], [Unknown("lost")]])
def test_a_signature_out_of_time_is_told_as_a_clock_fault(database, calm, tenant, earlier):
    answers = [*earlier, Rejected("InvalidSignatureException", "Signature expired: …")]

    class Untimely:
        def call(self, operation: str, request: Any) -> Answer:
            if operation != "PutItem":
                return database.transport.call(operation, request)
            raise answers.pop(0)

    with pytest.raises(Uncertain if earlier else Unavailable) as told:
        append_expected(database.stores(ManualClock(), Untimely()).of(tenant, "ann"), tenant)

    assert told.value.code == ("outcome_unknown" if earlier else "clock_skew")


def test_a_clock_set_back_between_two_appends_may_not_append_while_the_store_knows_better(database, calm, tenant):
    clock = ManualClock()
    dated = DatedTransport(database.transport, clock)
    store = DynamoEventStores(Database.connect(dated, clock), RawCodec(), database.tables).of(tenant, "ann")
    first = store.append("a", 1, [event(2)], commit_id="first")
    dated.ahead -= BACK
    clock.jump(-BACK)

    with pytest.raises(Unavailable) as refused:
        store.append("a", 2, [event(3)], commit_id="second")

    assert refused.value.code == "clock_skew"
    assert calm.last("a").version == 2
    dated.ahead += BACK
    clock.jump(BACK)
    assert store.append("a", 2, [event(3)], commit_id="second").recorded_at > first.recorded_at


@pytest.mark.parametrize("act", ACTS)
def test_a_clock_set_back_unseen_never_turns_the_time_of_a_stream(database, calm, tenant, act):
    before = calm.last("a").recorded_at
    clock = ManualClock()
    clock.jump(-BACK)

    act(database.stores(clock).of(tenant, "ann"), tenant)

    assert [commit.recorded_at for commit in calm.read("a")] == [before, before + MICROSECOND]


@pytest.mark.parametrize("act", ACTS)
def test_a_clock_set_back_in_the_middle_of_an_append_writes_nothing(database, calm, tenant, act):
    """How old the end is that was read, nobody can say any more."""
    clock = ManualClock()

    class SetsBack:
        def call(self, operation: str, request: Any) -> Answer:
            answer = database.transport.call(operation, request)
            if operation == "Query":
                clock.jump(-BACK)
            return answer

    store = database.stores(clock, SetsBack()).of(tenant, "ann")
    with pytest.raises(Unavailable) as refused:
        act(store, tenant)

    assert refused.value.code == "boundary_expired"
    assert calm.last("a").version == 1


def test_a_clock_within_the_bound_may_append(database, calm, tenant):
    clock = ManualClock()
    dated = DatedTransport(database.transport, clock, ahead=timedelta(seconds=-59))
    store = DynamoEventStores(Database.connect(dated, clock), RawCodec(), database.tables).of(tenant, "ann")

    assert append_expected(store, tenant).version == 3


@pytest.mark.parametrize("sleep", ["wall", "monotonic"])
def test_a_boundary_grown_old_while_a_machine_slept_is_not_built_on(database, calm, tenant, sleep):
    """Between reading the end and writing behind it, the process stands still for longer than a boundary lives."""
    clock = ManualClock()
    sleeper = SleepingTransport(database.transport, clock, sleep)
    store = database.stores(clock, sleeper).of(tenant, "ann")

    with pytest.raises(Unavailable) as refused:
        append_expected(store, tenant)

    assert refused.value.code == "boundary_expired"
    assert calm.last("a").version == 1


def test_a_held_boundary_that_is_too_old_is_read_again(database, calm, tenant):
    clock = ManualClock()
    store = database.stores(clock).of(tenant, "ann")
    held = store.last("a").boundary
    clock.advance(timedelta(seconds=61))

    assert store.append("a", held, [event(2)], commit_id="x").version == 2


def test_an_old_boundary_after_an_unknown_attempt_leaves_the_outcome_unknown(database, calm, tenant):
    clock = ManualClock()

    class LosesThenSleeps:
        def call(self, operation: str, request: Any) -> Answer:
            answer = database.transport.call(operation, request)
            if operation == "PutItem":
                clock.advance(timedelta(seconds=61))
                raise Unknown("lost")
            return answer

    with pytest.raises(Uncertain):
        append_expected(database.stores(clock, LosesThenSleeps()).of(tenant, "ann"), tenant)


def test_rights_lost_after_an_unknown_attempt_leave_the_outcome_unknown(database, calm, tenant):
    class LosesThenRejects:
        attempts = 0

        def call(self, operation: str, request: Any) -> Answer:
            if operation != "PutItem":
                return database.transport.call(operation, request)
            self.attempts += 1
            if self.attempts == 1:
                raise Unknown("lost")
            raise Rejected("ExpiredTokenException", "expired")

    with pytest.raises(Uncertain):
        append_expected(database.stores(ManualClock(), LosesThenRejects()).of(tenant, "ann"), tenant)


def test_a_held_boundary_forged_inside_a_commit_cannot_be_made_by_version_alone(database, calm, tenant):
    """A held boundary is trusted only as the store gave it; an integer is always compared with the newest commit."""
    append_expected(calm, tenant)

    with pytest.raises(StaleStream):
        calm.append("a", 2, [event(8)], commit_id="inside")
    assert isinstance(calm.last("a").boundary, Boundary)
