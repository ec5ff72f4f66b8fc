"""Inserts under every fault at every attempt, killed at every call, among rivals: once or not at all, told truly."""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
from eventsourcing.persistence import IntegrityError, OperationalError, Tracking

from holdfast.dynamodb.reads import get
from holdfast.dynamodb.transport import Answer, Cancelled, Reason, Transport, Unknown
from holdfast.integrations.eventsourcing import HoldfastProcessRecorder, OutcomeUnknownError, rows
from holdfast.streams.companions import Is, Put, Update
from holdfast.testing import FAULTS, FaultyTransport, Fuse, Killed
from tests.eventsourcing_lab import RecorderLab, places, stored
from tests.soak import examples

ATTEMPTS_COVERED = 4
"""Every call sequence of one insert fits in these; a test below sees to it."""
PLACES = 3
"""How many places a head takes here, so that heads are closed often."""

Act = Callable[[HoldfastProcessRecorder], Any]

BEFORE = [("a", 1), ("a", 2), *(("full", version) for version in range(1, PLACES + 1))]


def insert(recorder: HoldfastProcessRecorder) -> Any:
    return recorder.insert_events(stored("a", 3, 5))


def insert_new(recorder: HoldfastProcessRecorder) -> Any:
    return recorder.insert_events(stored("b", 0))


def insert_after_reading(recorder: HoldfastProcessRecorder) -> Any:
    recorder.select_events("a")
    return recorder.insert_events(stored("a", 3))


def insert_several(recorder: HoldfastProcessRecorder) -> Any:
    return recorder.insert_events([*stored("b", 1), *stored("a", 3), *stored("b", 2)])


def insert_tracked(recorder: HoldfastProcessRecorder) -> Any:
    return recorder.insert_events(stored("a", 3), tracking=Tracking("upstream", 8))


def insert_at_a_full_head(recorder: HoldfastProcessRecorder) -> Any:
    return recorder.insert_events(stored("full", 100))


def track(recorder: HoldfastProcessRecorder) -> Any:
    return recorder.insert_tracking(Tracking("upstream", 8))


def track_with_a_change(recorder: HoldfastProcessRecorder) -> Any:
    key = {"pk": recorder.space.view_key("counters"), "sk": "sum"}
    change = Update(recorder.space.table, key, (Is("count", 3),), set={"count": 4})
    return recorder.insert_tracking_with(Tracking("upstream", 8), [change])


ADDS: dict[Act, list[tuple[str, int]]] = {
    insert: [("a", 3), ("a", 5)],
    insert_new: [("b", 0)],
    insert_after_reading: [("a", 3)],
    insert_several: [("b", 1), ("a", 3), ("b", 2)],
    insert_tracked: [("a", 3)],
    insert_at_a_full_head: [("full", 100)],
    track: [],
    track_with_a_change: [],
}
TRACKS = (insert_tracked, track, track_with_a_change)
INSERTS = [act for act, added in ADDS.items() if added]


@pytest.fixture(scope="module", autouse=True)
def _small_heads() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "SHARES_MAX", PLACES)
        yield


@pytest.fixture(scope="module")
def begun(_small_heads: None) -> RecorderLab:
    """An application with two originators, one of them with as many places as a head takes, and a view of one row."""
    lab = RecorderLab()
    recorder = lab.process()
    recorder.insert_events(stored("a", 1, 2))
    for version in range(1, PLACES + 1):
        recorder.insert_events(stored("full", version))
    row = Put(recorder.space.table, {"pk": recorder.space.view_key("counters"), "sk": "sum"}, {"count": 3})
    recorder.insert_tracking_with(Tracking("upstream", 7), [row])
    return lab


@pytest.fixture
def lab(begun: RecorderLab) -> RecorderLab:
    return begun.copy()


def count(lab: RecorderLab) -> int:
    space = lab.space()
    row = get(space.database, space.table, space.view_key("counters"), "sum")
    assert row is not None
    return int(row["count"])


def is_applied(lab: RecorderLab, act: Act) -> bool:
    """Tell whether it was done; it must have been done whole and once, or not at all."""
    added = places(lab.log())[len(BEFORE) :]
    tracked = lab.tracking().max_tracking_id("upstream")
    done = (ADDS[act], 8 if act in TRACKS else 7, 4 if act is track_with_a_change else 3)
    assert (added, tracked, count(lab)) in (done, ([], 7, 3))
    assert places(lab.log())[: len(BEFORE)] == BEFORE
    return (added, tracked, count(lab)) == done


@pytest.mark.parametrize("act", ADDS)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", range(ATTEMPTS_COVERED))
def test_one_fault_at_any_attempt_is_survived(lab, act, fault, at):
    answer = act(lab.process(FaultyTransport(lab.transport, [None] * at + [fault])))

    assert is_applied(lab, act)
    assert answer in (None, list(range(len(BEFORE) + 1, len(BEFORE) + 1 + len(ADDS[act]))))


@pytest.mark.parametrize("act", ADDS)
@pytest.mark.parametrize("faults", list(itertools.product(["lost_reply", "conflict"], repeat=3)))
def test_three_faults_in_a_row_are_survived(lab, act, faults):
    transport = FaultyTransport(lab.transport, [None, *faults])

    act(lab.process(transport))

    assert transport.injected.total() == 3
    assert is_applied(lab, act)


@pytest.mark.parametrize("act", ADDS)
def test_no_insert_makes_more_calls_than_the_faults_cover(lab, act):
    transport = FaultyTransport(lab.transport)

    act(lab.process(transport))

    assert 2 <= transport.attempts <= ATTEMPTS_COVERED


@pytest.mark.parametrize("act", ADDS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("attempt", range(1, ATTEMPTS_COVERED + 1))
def test_killed_at_any_call_and_asked_again_it_is_applied_once(lab, act, after, attempt):
    try:
        act(lab.process(Fuse(attempt, after=after).wrap(lab.transport)))
    except Killed:
        was_applied = is_applied(lab, act)
    else:
        was_applied = True

    if was_applied:
        with pytest.raises(IntegrityError):
            act(lab.process())
    else:
        act(lab.process())

    assert is_applied(lab, act)


# ----- rivals


class RivalTransport:
    """A transport before or after whose nth attempt somebody else does their work, and whose reply may be lost then."""

    def __init__(self, inner: Transport, at: int, rival: Callable[[], Any], *, loses_reply: bool = False) -> None:
        self._inner = inner
        self._at = at
        self._rival = rival
        self._loses_reply = loses_reply
        self.calls = 0

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        self.calls += 1
        if self.calls != self._at:
            return self._inner.call(operation, request)
        if not self._loses_reply:
            self._rival()
            return self._inner.call(operation, request)
        self._inner.call(operation, request)
        self._rival()
        raise Unknown("the reply was lost")


@pytest.mark.parametrize("act", INSERTS)
@pytest.mark.parametrize("at", range(1, ATTEMPTS_COVERED))
def test_another_originators_events_in_between_only_move_the_positions(lab, act, at):
    rival = lab.application()
    transport = RivalTransport(lab.transport, at, lambda: rival.insert_events(stored("rival", 1, 2, 3)))

    answer = act(lab.process(transport))

    log = lab.log()
    assert [(str(log[n - 1].originator_id), log[n - 1].originator_version) for n in answer] == ADDS[act]
    assert len(log) == len(BEFORE) + len(ADDS[act]) + (3 if transport.calls >= at else 0)


@pytest.mark.parametrize("at", range(1, 3))
def test_of_two_with_one_version_the_later_is_refused_whole(lab, at):
    rival = lab.application()
    transport = RivalTransport(lab.transport, at, lambda: rival.insert_events(stored("a", 3)))

    with pytest.raises(IntegrityError):
        insert_several(lab.process(transport))

    assert places(lab.log()) == [*BEFORE, ("a", 3)]


@pytest.mark.parametrize("act", INSERTS)
def test_what_a_lost_reply_left_is_found_below_what_came_since(lab, act):
    """The rival writes on top, to the same originator and the same tracking: the segment still says whose it is."""
    rival = lab.process()

    def write_on_top() -> None:
        originator = ADDS[act][-1][0]
        rival.insert_events(stored(originator, 1_000), tracking=Tracking("upstream", 99))

    calls = FaultyTransport(lab.copy().transport)
    act(lab.process(calls))
    answer = act(lab.process(RivalTransport(lab.transport, calls.attempts, write_on_top, loses_reply=True)))

    log = lab.log()
    assert [(str(log[n - 1].originator_id), log[n - 1].originator_version) for n in answer] == ADDS[act]
    assert len(log) == len(BEFORE) + len(ADDS[act]) + 1


def test_a_head_that_another_closes_is_not_closed_twice(lab):
    rival = lab.application()
    transport = RivalTransport(lab.transport, 2, lambda: rival.insert_events(stored("full", PLACES + 1)))

    lab.application(transport).insert_events(stored("full", PLACES + 2))

    assert places(lab.log()) == [*BEFORE, ("full", PLACES + 1), ("full", PLACES + 2)]


def test_tracking_written_over_after_a_lost_reply_is_not_told_as_refused(lab):
    rival = lab.tracking()
    recorder = lab.tracking(
        RivalTransport(lab.transport, 2, lambda: rival.insert_tracking(Tracking("upstream", 9)), loses_reply=True)
    )

    with pytest.raises(OutcomeUnknownError):
        recorder.insert_tracking(Tracking("upstream", 8))


def test_tracking_that_a_rival_was_first_with_is_refused(lab):
    rival = lab.tracking()
    transport = RivalTransport(lab.transport, 2, lambda: rival.insert_tracking(Tracking("upstream", 9)))

    with pytest.raises(IntegrityError):
        lab.tracking(transport).insert_tracking(Tracking("upstream", 8))


def test_a_change_whose_condition_fails_leaves_the_tracking_where_it_was(lab):
    recorder = lab.tracking()
    key = {"pk": recorder.space.view_key("counters"), "sk": "sum"}

    with pytest.raises(IntegrityError, match="change 0"):
        recorder.insert_tracking_with(
            Tracking("upstream", 8), [Update(recorder.space.table, key, (Is("count", 2),), set={"count": 9})]
        )

    assert recorder.max_tracking_id("upstream") == 7
    assert count(lab) == 3


# ----- sequences without positions


@pytest.mark.parametrize("events", [stored("a", 7), [*stored("a", 7, 9), *stored("b", 1)]])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_snapshot_is_kept_once_under_every_fault(lab, events, fault):
    lab.snapshots(FaultyTransport(lab.transport, [fault, fault])).insert_events(events)

    assert [*lab.snapshots().select_events("a"), *lab.snapshots().select_events("b")] == events
    with pytest.raises(IntegrityError):
        lab.snapshots(FaultyTransport(lab.transport, [fault])).insert_events(events[-1:])


# ----- what stays unknown


class LosesWrites:
    """A transport whose writes are carried out and never answered."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        if operation != "TransactWriteItems":
            return self._inner.call(operation, request)
        with suppress(Cancelled):
            self._inner.call(operation, request)
        raise Unknown("the reply was lost")


@pytest.mark.parametrize("act", [act for act in ADDS if act is not insert_at_a_full_head])
def test_an_outcome_that_stays_unknown_is_never_told_as_failed(lab, act):
    with pytest.raises(OutcomeUnknownError):
        act(lab.process(LosesWrites(lab.transport)))

    assert is_applied(lab, act)  # it had been written all the time


def test_throttled_all_the_way_nothing_happened(lab):
    transport = FaultyTransport(lab.transport, [None, *["throttle"] * 50])

    with pytest.raises(OperationalError) as raised:
        insert(lab.process(transport))

    assert not isinstance(raised.value, OutcomeUnknownError)
    assert not is_applied(lab, insert)


def test_an_insert_that_always_loses_the_head_says_so_in_the_end(lab):
    rival = lab.application()
    versions = itertools.count(1)

    class AlwaysFirst:
        def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
            if operation == "TransactWriteItems":
                rival.insert_events(stored("rival", next(versions)))
            return lab.transport.call(operation, request)

    with pytest.raises(OperationalError, match="contended"):
        insert(lab.process(AlwaysFirst()))

    assert ("a", 3) not in places(lab.log())


def test_a_transaction_that_no_condition_refuses_is_not_tried_again(lab):
    class Refusing:
        attempts = 0

        def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
            if operation != "TransactWriteItems":
                return lab.transport.call(operation, request)
            self.attempts += 1
            raise Cancelled([Reason("ValidationError", None)] * len(request["TransactItems"]))

    refusing = Refusing()

    with pytest.raises(OperationalError, match="ValidationError"):
        insert(lab.process(refusing))

    assert refusing.attempts == 1


# ----- reads that are not one moment


class TornQueries:
    """A transport whose queries of the log miss a segment that is there, *times* times."""

    def __init__(self, inner: Transport, misses: int, times: int) -> None:
        self._inner = inner
        self._misses = misses
        self.left = times

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        answer = self._inner.call(operation, request)
        if operation != "Query" or self.left == 0:
            return answer
        kept = [item for item in answer.body["Items"] if item.get("first") != {"N": str(self._misses)}]
        self.left -= len(kept) < len(answer.body["Items"])
        return Answer({**answer.body, "Items": kept}, None)


@pytest.mark.parametrize("misses", [1, 3, 4])
def test_a_segment_that_shows_late_is_never_skipped(lab, misses):
    torn = TornQueries(lab.transport, misses, times=3)

    found = lab.application(torn).select_notifications(1, 1_000)

    assert torn.left == 0
    assert [each.id for each in found] == list(range(1, len(BEFORE) + 1))


def test_a_gap_that_stays_is_an_error_and_not_an_end(lab):
    with pytest.raises(OperationalError, match="position 4"):
        lab.application(TornQueries(lab.transport, 4, times=1_000)).select_notifications(1, 1_000)


@pytest.mark.parametrize("desc", [False, True])
def test_places_that_move_into_a_block_while_they_are_read_are_read_once(lab, desc):
    lab.application().insert_events(stored("full", 100))
    for version in range(101, 100 + PLACES):
        lab.application().insert_events(stored("full", version))
    rival = lab.application()
    between_head_and_blocks = RivalTransport(lab.transport, 2, lambda: rival.insert_events(stored("full", 200)))

    found = places(lab.application(between_head_and_blocks).select_events("full", desc=desc))

    versions = [*range(1, PLACES + 1), *range(100, 100 + PLACES)]
    assert [version for _, version in found] == (versions[::-1] if desc else versions)


# ----- everything at once


@pytest.mark.parametrize("seed", range(examples(30, soak=1_000)))
def test_many_writers_under_faults_lose_nothing_and_double_nothing(seed):
    noise = random.Random(seed)
    lab = RecorderLab()
    kinds = [*FAULTS, *[None] * 12]
    faulty = [
        FaultyTransport(lab.transport, iter(lambda: noise.choice(kinds), "never")) for _ in range(3)
    ]  # endless plans
    recorders = [lab.process(transport) for transport in faulty]
    acknowledged: dict[int, tuple[str, int]] = {}
    refused: set[str] = set()
    unknown: set[str] = set()
    for number in range(40):
        recorder = noise.choice(recorders)
        events = [
            event
            for originator in noise.sample(["x", "y", "z"], noise.randint(1, 3))
            for event in stored(
                originator,
                *sorted(noise.sample(range(number, number + 4), noise.randint(1, 3))),
                state=str(number).encode(),
            )
        ]
        try:
            ids = recorder.insert_events(events, tracking=noise.choice([None, Tracking("up", noise.randint(1, 60))]))
        except IntegrityError:
            refused.add(str(number))
        except OutcomeUnknownError:
            unknown.add(str(number))
        except OperationalError:
            refused.add(str(number))
        else:
            assert ids is not None
            acknowledged.update(zip(ids, places(events), strict=True))

    log = lab.log()
    seen = {each.state.decode() for each in log}
    assert not seen & refused
    for position, place in acknowledged.items():
        assert places([log[position - 1]]) == [place]
    assert {each.id for each in log if each.state.decode() not in unknown} == set(acknowledged)
    assert len(set(places(log))) == len(log)
