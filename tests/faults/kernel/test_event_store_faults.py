"""Appends under every fault at every attempt, and killed before and after every call: applied once, told truly."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from holdfast.clock import MICROSECOND, ManualClock
from holdfast.dynamodb import BotocoreTransport, Database, DynamoEventStore, DynamoEventStores, update_guarded
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.transport import Answer, Busy, Refused, Rejected, Unknown
from holdfast.dynamodb.writes import CALLS
from holdfast.errors import Throttled, Unavailable, Uncertain
from holdfast.streams import ANY, Append, AtLeast, Boundary, Is, Missing, Put, RawCodec, StaleStream, Update, transact
from holdfast.streams.companions import Change
from holdfast.testing import FAULTS, Crash, FaultyTransport, Fuse, at_every_crash
from tests.dynamo_tables import REGION, TestTables, memory_stores, row_reader
from tests.promises import event, events_of
from tests.unit.kernel.test_transport import NOON, error, says
from tests.unit.kernel.test_transport import store as listening

TENANT = "t"
BACK = timedelta(minutes=15)
ATTEMPTS_COVERED = 4
"""Every call sequence of one append fits in these; a test below sees to it."""

Act = Callable[[DynamoEventStore[bytes], str], Any]


def append_expected(store: DynamoEventStore[bytes], tenant: str) -> Any:
    return store.append("a", 1, [event(2), event(3)], commit_id="mine")


def append_any(store: DynamoEventStore[bytes], tenant: str) -> Any:
    return store.append("a", ANY, [event(2), event(3)], commit_id="mine")


def append_with_companion(store: DynamoEventStore[bytes], tenant: str) -> Any:
    spend = Update("balances", balance_key(tenant), (Is("v", 1),), set={"v": 2}, add={"amount": -4})
    return store.append("a", 1, [event(2), event(3)], commit_id="mine", companions=[spend])


def append_to_two(store: DynamoEventStore[bytes], tenant: str) -> Any:
    return store.append_many([Append("a", 1, [event(2), event(3)]), Append("b", ANY, [event(9)])], commit_id="mine")


ACTS: list[Act] = [append_expected, append_any, append_with_companion, append_to_two]


def balance_key(tenant: str) -> dict[str, Any]:
    return {"pk": f"balance#{tenant}", "sk": 0}


@pytest.fixture
def database() -> TestTables:
    return memory_stores()


@pytest.fixture
def tenant() -> str:
    return TENANT


@pytest.fixture
def calm(database: TestTables, tenant: str) -> DynamoEventStore[bytes]:
    return begun(database, tenant)


def begun(database: TestTables, tenant: str) -> DynamoEventStore[bytes]:
    """Give a store without faults, on a stream with one event and a balance of 10."""
    store = database.stores(ManualClock()).of(tenant, "ann")
    store.append(
        "a",
        0,
        [event(1)],
        commit_id="before",
        companions=[Put("balances", balance_key(tenant), {"amount": 10, "v": 1})],
    )
    return store


def found_at(database: TestTables, tenant: str, version: int) -> Any:
    """Read a commit's item as it goes over the network."""
    key = {"pk": f"S#{tenant}#a", "sk": version}
    return database.transport.call("GetItem", {"TableName": database.tables.commits, "Key": to_item(key)}).body["Item"]


def applied_once(database: TestTables, store: DynamoEventStore[bytes], tenant: str, act: Act) -> bool:
    row = row_reader(database)("balances", balance_key(tenant))
    assert row is not None
    spent = act is append_with_companion
    return (
        events_of(list(store.read("a"))) == [event(1), event(2), event(3)]
        and row["amount"] == (6 if spent else 10)
        and len(events_of(list(store.read("b")))) == (1 if act is append_to_two else 0)
    )


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", range(ATTEMPTS_COVERED))
def test_one_fault_at_any_attempt_is_survived(database, calm, tenant, act, fault, at):
    transport = FaultyTransport(database.transport, [None] * at + [fault])

    act(database.stores(ManualClock(), transport).of(tenant, "ann"), tenant)

    assert applied_once(database, calm, tenant, act)


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


# ----- requests that arrive late


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


# ----- clocks and ages


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


class MeetsANeighbour:
    """The first transactions are cancelled by *neighbour*; everything else goes to the store."""

    def __init__(self, inner: Any, neighbour: Any, times: int) -> None:
        self._inner, self._neighbour, self._times = inner, neighbour, times

    def call(self, operation: str, request: Any) -> Answer:
        if operation == "TransactWriteItems" and self._times:
            self._times -= 1
            return self._neighbour.call(operation, request)
        return self._inner.call(operation, request)


class Delays:
    """The first write of a kind gets no answer, and arrives when a test lets it."""

    def __init__(self, inner: Any, late: list[Callable[[], Answer]], operation: str) -> None:
        self._inner, self._late, self._operation = inner, late, operation
        self.meanwhile: Callable[[], Any] = lambda: None

    def call(self, operation: str, request: Any) -> Answer:
        if operation == self._operation and not self._late:
            self._late.append(lambda: self._inner.call(operation, request))
            self.meanwhile()
            raise Unknown("no answer in time")
        return self._inner.call(operation, request)


class LosesWrites:
    """Every write happens, and no reply to one arrives."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def call(self, operation: str, request: Any) -> Answer:
        if operation in ("Query", "GetItem"):
            return self._inner.call(operation, request)
        try:
            self._inner.call(operation, request)
        except Busy:
            raise
        except Exception as error:
            raise Unknown("lost") from error
        raise Unknown("lost")


class Recorder:
    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.calls: list[tuple[str, Any]] = []

    def call(self, operation: str, request: Any) -> Answer:
        self.calls.append((operation, request))
        return self._inner.call(operation, request)


class DatedTransport:
    """A store whose clock ours is ahead of."""

    def __init__(self, inner: Any, clock: ManualClock, ahead: timedelta = timedelta()) -> None:
        self._inner, self._clock, self.ahead = inner, clock, ahead

    def call(self, operation: str, request: Any) -> Answer:
        return Answer(self._inner.call(operation, request).body, self._clock.now() - self.ahead)


class SleepingTransport:
    """After the first read, only one of the two clocks tells that a minute has passed."""

    def __init__(self, inner: Any, clock: ManualClock, sleep: str) -> None:
        self._inner, self._clock, self._sleep = inner, clock, sleep

    def call(self, operation: str, request: Any) -> Answer:
        answer = self._inner.call(operation, request)
        if operation == "Query":
            self._clock.advance(timedelta(seconds=61))
            if self._sleep == "monotonic":
                self._clock.jump(timedelta(seconds=-61))
            else:
                self._clock._monotonic -= 61
        return answer
