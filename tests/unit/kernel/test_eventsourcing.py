"""What the recorders promise beyond the library's kit, and where their bounds are."""

import random
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.persistence import (
    DataError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    StoredEvent,
    Tracking,
)
from eventsourcing.popo import POPOApplicationRecorder

import holdfast
from holdfast.clock import ManualClock
from holdfast.dynamodb import Answer, Database
from holdfast.dynamodb.reads import get
from holdfast.dynamodb.transport import Rejected
from holdfast.integrations.eventsourcing import (
    Factory,
    HoldfastAggregateRecorder,
    HoldfastApplicationRecorder,
    HoldfastTrackingRecorder,
    ledger,
    rows,
)
from holdfast.integrations.eventsourcing.factory import DEFAULT_TABLE, create_table
from holdfast.integrations.eventsourcing.rows import ORIGINATORS_MAX, SHARES_MAX, Space
from holdfast.streams import EVENTS_MAX
from holdfast.streams.companions import Put
from tests.eventsourcing_lab import TABLE, RecorderLab, places, stored
from tests.soak import examples


@pytest.fixture
def lab() -> RecorderLab:
    return RecorderLab()


@pytest.fixture
def recorder(lab: RecorderLab) -> HoldfastApplicationRecorder:
    return lab.application()


class Counting:
    """Counts requests by operation, and what they cost."""

    def __init__(self, lab: RecorderLab) -> None:
        self._inner = lab.transport
        self.operations: list[str] = []
        self.units = 0.0
        self.rows = 0
        """Those that queries gave."""

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        self.operations.append(operation)
        answer = self._inner.call(operation, {**request, "ReturnConsumedCapacity": "TOTAL"})
        self.rows += answer.body.get("Count", 0)
        told = answer.body["ConsumedCapacity"]
        self.units += sum(each["CapacityUnits"] for each in (told if isinstance(told, list) else [told]))
        return answer


# ----- what comes back


@pytest.mark.parametrize("originator", [UUID(int=7), "a/name#with signs", str(UUID(int=8))])
def test_an_originators_id_comes_back_as_it_went_in(lab, originator):
    events = [StoredEvent(originator, 1, "topic", b"\x00\xff"), StoredEvent(originator, 2, "topic", b"")]
    lab.application().insert_events(events)
    lab.snapshots().insert_events(events)

    assert lab.application().select_events(originator) == events
    assert lab.snapshots().select_events(originator) == events
    assert type(lab.application().select_notifications(1, 1)[0].originator_id) is type(originator)


def test_the_text_of_a_uuid_names_the_same_originator(recorder):
    originator = UUID(int=7)
    recorder.insert_events([StoredEvent(originator, 1, "topic", b"")])

    assert len(recorder.select_events(str(originator))) == 1
    with pytest.raises(IntegrityError):
        recorder.insert_events(stored(str(originator), 1))


@pytest.mark.parametrize("seed", range(examples(20, soak=500)))
def test_every_selection_is_what_the_librarys_own_recorder_gives(lab, seed, monkeypatch):
    """Many blocks, gaps in the versions, several originators in an insert; read by those who know nothing yet."""
    monkeypatch.setattr(rows, "SHARES_MAX", 4)
    noise = random.Random(seed)
    ours, theirs = lab.application(), POPOApplicationRecorder()
    last = dict.fromkeys("abc", -1)
    for _ in range(40):
        events = []
        for originator in noise.sample(sorted(last), noise.randint(1, 3)):
            for _ in range(noise.randint(1, 4)):
                last[originator] += noise.choice((1, 1, 2, 9))
                events += stored(originator, last[originator], topic=noise.choice(("one", "two", "rare")))
        assert ours.insert_events(events) == theirs.insert_events(events)

    reader = lab.application()
    highest = max(last.values()) + 2
    for _ in range(60):
        span: Any = {
            "gt": noise.choice((None, noise.randrange(-2, highest))),
            "lte": noise.choice((None, noise.randrange(-2, highest))),
            "desc": noise.choice((False, True)),
            "limit": noise.choice((None, 1, 2, 7, 50)),
        }
        originator = noise.choice("abcd")
        assert reader.select_events(originator, **span) == theirs.select_events(originator, **span), span
        size = theirs.max_notification_id()
        assert size is not None
        page: Any = {
            "start": noise.choice((None, noise.randrange(-1, size + 3))),
            "limit": noise.choice((1, 3, 10, 500)),
            "stop": noise.choice((None, noise.randrange(size + 3))),
            "topics": noise.choice(((), ("rare",), ("one", "two"), ("never",))),
            "inclusive_of_start": noise.choice((False, True)),
        }
        assert reader.select_notifications(**page) == theirs.select_notifications(**page), page
    assert reader.max_notification_id() == theirs.max_notification_id()


def test_a_long_history_is_read_through_its_blocks(lab):
    recorder = lab.application()
    versions = range(1, 5 * SHARES_MAX + 8)
    for version in versions:
        recorder.insert_events(stored("a", version))

    reader = lab.application()
    assert places(reader.select_events("a")) == [("a", version) for version in versions]
    assert places(reader.select_events("a", desc=True, limit=1)) == [("a", versions[-1])]
    head = get(reader.space.database, TABLE, reader.space.originator_key("a"), rows.SOLE)
    assert head is not None
    assert len(head["places"]) < 1_024  # it does not grow with the history


@pytest.mark.parametrize("span", [{"gt": 5, "lte": 5}, {"gt": 9, "lte": 3}, {"limit": 0}, {"lte": -1}, {"gt": 10**20}])
def test_an_empty_span_holds_nothing(lab, recorder, span):
    recorder.insert_events(stored("a", 0, 4, 5, 6))
    lab.snapshots().insert_events(stored("a", 0, 4, 5, 6))

    assert recorder.select_events("a", **span) == []
    assert lab.snapshots().select_events("a", **span) == []


# ----- what is refused


def test_a_lower_version_is_refused_even_if_it_is_free(recorder):
    recorder.insert_events(stored("a", 1, 5))

    with pytest.raises(IntegrityError):
        recorder.insert_events(stored("a", 3))
    with pytest.raises(IntegrityError):
        recorder.insert_events(stored("a", 7, 6))
    recorder.insert_events(stored("a", 9))

    assert places(recorder.select_events("a")) == [("a", 1), ("a", 5), ("a", 9)]


def test_snapshots_come_in_any_order_and_once(lab):
    snapshots = lab.snapshots()
    snapshots.insert_events(stored("a", 10))
    snapshots.insert_events(stored("a", 5))

    with pytest.raises(IntegrityError):
        snapshots.insert_events(stored("a", 10))
    with pytest.raises(IntegrityError):
        snapshots.insert_events([*stored("a", 11), *stored("a", 5)])

    assert places(snapshots.select_events("a", desc=True)) == [("a", 10), ("a", 5)]


def noise_bytes(length: int) -> bytes:
    return random.Random(0).randbytes(length)


TOO_MUCH = {
    "events": stored("a", *range(EVENTS_MAX + 1)),
    "bytes": stored("a", 1, 2, state=noise_bytes(195_000)),
    "originators": [event for n in range(ORIGINATORS_MAX + 1) for event in stored(f"o{n}", 1)],
    "a name": stored("n" * 1_025, 1),
    "a version": stored("a", 10**16),
    "below zero": stored("a", -1),
}


@pytest.mark.parametrize("events", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_more_than_one_insert_holds_is_refused_whole(lab, recorder, events):
    with pytest.raises(DataError):
        recorder.insert_events(events)

    assert lab.log() == []
    assert recorder.max_notification_id() is None


JUST_ENOUGH = {
    "events": stored("a", *range(EVENTS_MAX)),
    "bytes": stored("a", 1, 2, state=noise_bytes(189_000)),
    "originators": [event for n in range(ORIGINATORS_MAX) for event in stored(f"o{n}", 1)],
    "a name": stored("n" * 1_024, 1),
    "a version": stored("a", 10**16 - 1),
}


@pytest.mark.parametrize("events", JUST_ENOUGH.values(), ids=JUST_ENOUGH.keys())
def test_what_one_insert_holds_is_recorded_whole(lab, recorder, events):
    assert recorder.insert_events(events) == list(range(1, len(events) + 1))

    assert places(lab.log()) == places(events)


def test_tracking_takes_the_place_of_one_originator(lab):
    events = JUST_ENOUGH["originators"]

    with pytest.raises(DataError):
        lab.process().insert_events(events, tracking=Tracking("up", 1))
    lab.process().insert_events(events[1:], tracking=Tracking("up", 1))

    assert len(lab.log()) == ORIGINATORS_MAX - 1


def test_sequences_without_positions_have_their_own_bounds(lab):
    snapshots = lab.snapshots()

    for too_much in (
        stored("a", *range(101)),
        stored("a", 1, state=bytes(380_001)),
        stored("a", -1),
        stored("a", *range(10), state=bytes(350_000)),
        stored("a", *range(12), state=bytes(380_000)),
    ):
        with pytest.raises(DataError):
            snapshots.insert_events(too_much)
    assert snapshots.select_events("a") == []
    snapshots.insert_events(stored("a", *range(100), state=bytes(34_900)))
    snapshots.insert_events(stored("b", 1, state=bytes(380_000)))

    assert len(snapshots.select_events("a")) == 100


def test_a_views_changes_do_not_come_with_events(lab):
    space = lab.space()
    change = Put(space.table, {"pk": space.view_key("x"), "sk": "y"}, {"n": 1})

    with pytest.raises(ValueError, match="tracking alone"):
        ledger.Ledger(space).insert(stored("a", 1), Tracking("up", 1), [change])


def test_more_changes_than_go_with_one_tracking_are_refused_whole(lab):
    view = lab.tracking()
    changes = [Put(TABLE, {"pk": view.space.view_key("x"), "sk": str(n)}, {"n": n}) for n in range(100)]

    with pytest.raises(DataError):
        view.insert_tracking_with(Tracking("up", 1), changes)
    view.insert_tracking_with(Tracking("up", 1), changes[1:])

    assert view.max_tracking_id("up") == 1


def test_applications_in_one_table_do_not_meet(lab):
    other = Space(lab.space().database, TABLE, "other")
    lab.application().insert_events(stored("a", 1))

    assert HoldfastApplicationRecorder(other).insert_events(stored("a", 1)) == [1]
    assert HoldfastAggregateRecorder(other, "snapshots").select_events("a") == []
    assert HoldfastTrackingRecorder(other).max_tracking_id("up") is None


# ----- what it costs


def test_an_insert_is_one_request_and_six_write_units(lab):
    counting = Counting(lab)
    recorder = lab.application(counting)
    recorder.insert_events(stored("a", 1))
    assert counting.operations == ["BatchGetItem", "TransactWriteItems"]  # the first time it has to look

    counting.units = 0.0
    recorder.insert_events(stored("a", 2))

    assert counting.operations[2:] == ["TransactWriteItems"]
    assert counting.units == 6


def test_every_sixty_fourth_insert_moves_the_places_into_a_block(lab):
    counting = Counting(lab)
    recorder = lab.application(counting)
    for version in range(1, SHARES_MAX + 1):
        recorder.insert_events(stored("a", version))
    counting.operations.clear()
    counting.units = 0.0

    recorder.insert_events(stored("a", SHARES_MAX + 1))

    assert counting.operations == ["TransactWriteItems"] * 2
    assert counting.units == 6 + 4


def test_a_snapshot_is_one_request_and_one_write_unit(lab):
    counting = Counting(lab)

    lab.snapshots(counting).insert_events(stored("a", 1))

    assert counting.operations == ["PutItem"]
    assert counting.units == 1


def test_who_has_read_an_originator_need_not_look_again(lab):
    lab.application().insert_events(stored("a", 1))
    counting = Counting(lab)
    recorder = lab.application(counting)
    recorder.insert_events(stored("b", 1))
    recorder.select_events("a")
    counting.operations.clear()

    recorder.insert_events(stored("a", 2))

    assert counting.operations == ["TransactWriteItems"]


@pytest.mark.parametrize(
    ("span", "requests", "blocks"),
    [
        ({}, 11, 10),
        ({"gt": 640}, 3, 0),
        ({"gt": 600, "lte": 601}, 3, 1),
        ({"desc": True, "limit": 1}, 2, 0),
        ({"desc": True, "lte": 10, "limit": 1}, 4, 2),
    ],
)
def test_reading_an_originator_takes_few_requests(lab, span, requests, blocks):
    """650 inserts lie in ten blocks and a head; segments come in batches of 1, 10 and then 100."""
    writer = lab.application()
    for version in range(1, 651):
        writer.insert_events(stored("a", version))
    counting = Counting(lab)

    lab.application(counting).select_events("a", **span)

    assert (len(counting.operations), counting.rows) == (requests, blocks)
    assert set(counting.operations) <= {"GetItem", "Query", "BatchGetItem"}


def test_what_is_remembered_of_heads_is_bounded(lab, monkeypatch):
    monkeypatch.setattr(ledger, "BELIEFS_MAX", 10)
    recorder = lab.application()

    for number in range(50):
        recorder.insert_events(stored(f"o{number}", 1))

    assert len(recorder._ledger.beliefs._rows) <= 10
    assert len(lab.log()) == 50


# ----- subscriptions


def test_a_subscription_of_rare_topics_does_not_read_the_log_again_and_again(lab):
    counting = Counting(lab)
    recorder = lab.application(counting)
    for version in range(1, 251):
        recorder.insert_events(stored("a", version, topic="rare" if version == 250 else "often"))
    counting.operations.clear()

    with recorder.subscribe(topics=["rare"]) as subscription:
        assert next(subscription).id == 250

    assert counting.operations == ["Query"] * 3


def test_a_subscription_sees_what_another_process_inserts(lab):
    found: list[int] = []

    def follow() -> None:
        with lab.application().subscribe() as subscription:
            found.extend(next(subscription).id for _ in range(3))

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    lab.application().insert_events(stored("a", 1, 2, 3))
    follower.join(timeout=5)

    assert found == [1, 2, 3]


def test_a_subscription_that_is_stopped_while_it_waits_ends(lab):
    recorder = lab.application()
    subscription = recorder.subscribe()
    threading.Timer(0.05, subscription.stop).start()

    assert list(subscription) == []
    assert recorder.waking == set()


# ----- the factory


def test_settings_have_defaults_and_may_be_one_applications_own():
    plain = Factory.construct({"PERSISTENCE_MODULE": "holdfast.integrations.eventsourcing"})
    assert (plain.space.table, plain.space.name) == (DEFAULT_TABLE, "stored")

    env = {"HOLDFAST_TABLE": "all", "HOLDFAST_PREFIX": "eu-", "ORDERS_HOLDFAST_TABLE": "mine"}
    environment = type(plain.env)("Orders", env)
    orders = Factory(environment)
    assert (orders.space.table, orders.space.name) == ("mine", "eu-orders")


@pytest.mark.parametrize("prefix", ["a#b", "a" * 1_025])
def test_a_prefix_that_is_no_part_of_a_key_is_refused(prefix):
    with pytest.raises((OSError, DataError)):
        Factory({"HOLDFAST_PREFIX": prefix})


def test_a_recorder_of_another_kind_is_refused():
    factory = Factory(
        {"CREATE_TABLE": "no", "APPLICATION_RECORDER_TOPIC": "eventsourcing.popo:POPOApplicationRecorder"}
    )

    with pytest.raises(OSError, match="APPLICATION_RECORDER_TOPIC"):
        factory.application_recorder()


class Creating:
    """A DynamoDB that takes a while to create a table, and where somebody else may be first to ask for it."""

    def __init__(self, *, statuses: list[str | None], is_late: bool) -> None:
        self._statuses = statuses
        self._is_late = is_late

    def call(self, operation: str, _: Mapping[str, Any]) -> Answer:
        if operation == "CreateTable":
            if self._is_late:
                raise Rejected("ResourceInUseException", "it exists")
            return Answer({}, None)
        status = self._statuses.pop(0) if self._statuses else "CREATING"
        if status is None:
            raise Rejected("ResourceNotFoundException", "no such table")
        return Answer({"Table": {"TableStatus": status}}, None)


@pytest.mark.parametrize("is_late", [False, True])
def test_a_table_that_two_create_at_once_is_waited_for_by_both(is_late):
    dynamodb = Creating(statuses=[None, None, "CREATING", "ACTIVE"], is_late=is_late)
    create_table(Space(Database.connect(dynamodb, ManualClock()), TABLE, "app"))

    assert dynamodb._statuses == []


def test_a_table_that_does_not_come_is_not_waited_for_for_ever():
    dynamodb = Creating(statuses=[None], is_late=False)

    with pytest.raises(Exception, match="table_not_ready"):
        create_table(Space(Database.connect(dynamodb, ManualClock()), TABLE, "app"))


def test_a_missing_table_is_a_programming_error(lab):
    recorder = HoldfastApplicationRecorder(Space(lab.space().database, "nowhere", "app"))

    with pytest.raises(ProgrammingError):
        recorder.insert_events(stored("a", 1))
    with pytest.raises(ProgrammingError):
        recorder.max_notification_id()


def test_threads_of_one_process_wait_for_their_turn_and_not_for_ever(recorder, monkeypatch):
    monkeypatch.setattr(ledger, "TURN_SECONDS_MAX", 0.01)

    with recorder._ledger._its_turn(), pytest.raises(OperationalError, match="contended"):
        recorder.insert_events(stored("a", 1))

    assert recorder.insert_events(stored("a", 1)) == [1]


# ----- the kernel without it


def test_nothing_else_of_the_kernel_imports_the_library():
    root = Path(holdfast.__file__).parent
    imports = re.compile(r"^\s*(?:from|import)\s+(?:eventsourcing|holdfast\.integrations)\b", re.MULTILINE)
    importing = {path.relative_to(root).parts[0] for path in root.rglob("*.py") if imports.search(path.read_text())}

    assert importing == {"integrations"}
