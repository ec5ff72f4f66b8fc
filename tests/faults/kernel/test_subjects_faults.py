"""
The keys of data subjects under faults: killed before and after every call, replies lost, others in between.

Whatever happens, there is one key per subject, a hold that was granted is never overrun by an erasure, and an erasure
that was granted leaves no key behind. And whatever was done is told in the subject's stream, and nothing else is.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from functions.audit import domain
from holdfast.clock import ManualClock
from holdfast.dynamodb import Database
from holdfast.dynamodb.reads import get
from holdfast.dynamodb.transport import Answer, Cancelled, Transport, Unknown
from holdfast.envelope import DataKey, MemoryKeyRing
from holdfast.errors import Conflict, Throttled, Unavailable, Uncertain
from holdfast.sealing import Erased
from holdfast.subjects import BACKUPS_KEPT, Hold, KeyCache, SubjectKeys
from holdfast.testing import FAULTS, FaultyTransport, Killed, watched
from tests import subject_acts as acts
from tests.dynamo_tables import TestTables, memory_stores
from tests.subject_acts import stream_store

NOON = datetime.fromisoformat("2026-01-01T12:00:00Z")
HOLD = Hold("case 1", "bob", NOON + timedelta(hours=1))
CALLS_COVERED = 4
"""Calls to the table and the ring that any act makes without faults; a test below sees to it."""


@dataclass
class Steps:
    """Counts the calls of a process, to whatever it calls, and does something before or after one of them."""

    at: int = 0
    before: Callable[[], Any] | None = None
    after: Callable[[], Any] | None = None
    made: int = 0

    def __call__(self, _: str, call: Callable[[], Any]) -> Any:
        self.made += 1
        is_here = self.made == self.at
        if is_here and self.before:
            self.before()
        answer = call()
        if is_here and self.after:
            self.after()
        return answer


def stepping(at: int, when: str, do: Callable[[], Any]) -> Steps:
    return Steps(at, before=do) if when == "before" else Steps(at, after=do)


@dataclass
class World:
    database: TestTables = field(default_factory=memory_stores)
    tenant: str = "t"
    ring: MemoryKeyRing = field(default_factory=MemoryKeyRing)

    def process(self, steps: Steps | None = None, transport: Transport | None = None) -> SubjectKeys:
        """Start a process that remembers nothing."""
        clock, steps = ManualClock(NOON), steps or Steps()
        database = Database.connect(watched(transport or self.database.transport, steps), clock)
        ring = watched(self.ring, steps)
        return SubjectKeys(database, self.database.tables, ring, self.tenant, KeyCache(clock))

    def check_told(self) -> None:
        """Every version of the row but the first is told of by one event, in order; the last one tells what is so."""
        keys = self.process()
        told = [
            domain.subject_told(event) for commit in stream_store(keys).read("subjects/ann") for event in commit.events
        ]
        row = self.row()
        assert [subject.version for subject in told] == list(range(2, row["v"] + 1 if row else 2))
        assert not told or told[-1] == keys.find("ann")

    def row(self) -> dict[str, Any] | None:
        keys = self.process()
        return get(keys.database, keys.tables.operations, f"K#{self.tenant}#ann", 0)


@pytest.fixture
def world() -> World:
    return World()


# --- acts, what they need, and what must hold once they have been answered


@dataclass(frozen=True)
class Act:
    name: str
    prepare: Callable[[SubjectKeys], Any]
    do: Callable[[SubjectKeys], Any]
    stands: Callable[[World, Any], None]

    def check(self, world: World, answer: Any) -> None:
        self.stands(world, answer)
        world.check_told()


def nothing(_keys: SubjectKeys) -> None:
    pass


def make_key(keys: SubjectKeys) -> Any:
    return keys.key_for("ann")


def hold(keys: SubjectKeys) -> Any:
    return acts.hold(keys, "ann", HOLD.reason, HOLD.until, by=HOLD.by)


def erase(keys: SubjectKeys) -> Any:
    return acts.erase(keys, "ann")


def release(keys: SubjectKeys) -> Any:
    return acts.release(keys, "ann", HOLD.reason)


def keyed(what: Any, **more: Any) -> Callable[[SubjectKeys], Any]:
    """Act under an idempotency key."""
    return lambda keys: acts.do(keys, domain.Act(keys.tenant, "ann", what, HOLD.reason, HOLD.by, key="k", **more))


def make_and_hold(keys: SubjectKeys) -> None:
    make_key(keys)
    hold(keys)


def check_key(world: World, key: Any) -> None:
    assert isinstance(key, DataKey)
    assert world.process().key_for("ann") == world.process().peek("ann") == key


def check_hold(world: World, subject: Any) -> None:
    assert subject == world.process().find("ann")
    assert (subject.holds, subject.state, subject.version) == ((HOLD,), "live", 2)
    with pytest.raises(Conflict) as refused:
        acts.erase(world.process(), "ann")
    assert refused.value.code == "held"


def check_release(world: World, subject: Any) -> None:
    assert subject == world.process().find("ann")
    assert (subject.holds, subject.state, subject.version) == ((), "live", 3)


def check_erased(world: World, subject: Any) -> None:
    assert subject == world.process().find("ann") == acts.erase(world.process(), "ann")
    assert (subject.state, subject.version, subject.holds) == ("erased", 2, ())
    assert NOON <= subject.erased_at == subject.final_at - BACKUPS_KEPT < HOLD.until
    row = world.row()
    assert row is not None
    assert row["key"] is None
    assert world.process().peek("ann") == Erased()


ACTS = [
    Act("make a key", nothing, make_key, check_key),
    Act("find a key", make_key, make_key, check_key),
    Act("hold", make_key, hold, check_hold),
    Act("release", make_and_hold, release, check_release),
    Act("erase", make_key, erase, check_erased),
    Act("hold under a key", make_key, keyed("hold", until=HOLD.until), check_hold),
    Act("release under a key", make_and_hold, keyed("release"), check_release),
    Act("erase under a key", make_key, keyed("erase"), check_erased),
]
each_act = pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
each_call = pytest.mark.parametrize("at", range(1, CALLS_COVERED + 1))


@each_act
def test_no_act_makes_more_calls_than_are_covered(world: World, act: Act):
    act.prepare(world.process())
    steps = Steps()

    act.check(world, act.do(world.process(steps)))

    assert 2 <= steps.made <= CALLS_COVERED


@each_act
@each_call
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_call_and_asked_again_it_is_done_once(world: World, act: Act, at: int, when: str):
    act.prepare(world.process())

    def die() -> None:
        raise Killed

    steps = stepping(at, when, die)
    try:
        act.do(world.process(steps))
    except Killed:
        assert steps.made == at
    world.check_told()

    act.check(world, act.do(world.process()))


@each_act
@each_call
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_at_any_attempt_is_survived(world: World, act: Act, at: int, fault: str):
    act.prepare(world.process())
    faulty = FaultyTransport(world.database.transport, [None] * (at - 1) + [fault])

    act.check(world, act.do(world.process(transport=faulty)))


@each_act
@pytest.mark.parametrize("faults", list(itertools.product(["lost_reply", "lost_request", "throttle"], repeat=2)))
def test_two_faults_in_a_row_are_survived(world: World, act: Act, faults: tuple[str, ...]):
    act.prepare(world.process())
    faulty = FaultyTransport(world.database.transport, [None, *faults])

    act.check(world, act.do(world.process(transport=faulty)))


class LosesReplies:
    """Carries out every write and never says so."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        if operation in {"GetItem", "Query"}:
            return self._inner.call(operation, request)
        try:
            self._inner.call(operation, request)
        except Exception as error:
            raise Unknown("the refusal was lost") from error
        raise Unknown("the reply was lost")


@pytest.mark.parametrize("act", [act for act in ACTS if act.name != "find a key"], ids=lambda act: act.name)
def test_an_outcome_that_stays_unknown_is_never_told_as_failed(world: World, act: Act):
    act.prepare(world.process())

    with pytest.raises(Uncertain):
        act.do(world.process(transport=LosesReplies(world.database.transport)))
    world.check_told()

    act.check(world, act.do(world.process()))


@each_act
@pytest.mark.parametrize(("fault", "error"), [("throttle", Throttled), ("lost_request", Unavailable)])
def test_a_store_that_does_not_answer_changes_nothing(world: World, act: Act, fault: str, error: type[Exception]):
    act.prepare(world.process())
    before = world.row()

    with pytest.raises(error):
        act.do(world.process(transport=FaultyTransport(world.database.transport, itertools.repeat(fault))))
    assert world.row() == before
    world.check_told()


# --- others in between


def outcome_of(do: Callable[[SubjectKeys], Any], keys: SubjectKeys) -> str:
    try:
        do(keys)
    except Conflict as refused:
        return refused.code
    return "done"


@each_call
@pytest.mark.parametrize("when", ["before", "after"])
def test_two_who_make_a_key_at_once_have_the_same(world: World, at: int, when: str):
    rivals: list[DataKey] = []
    steps = stepping(at, when, lambda: rivals.append(world.process().key_for("ann")))

    key = world.process(steps).key_for("ann")

    assert rivals in ([], [key])  # none where the act has fewer calls
    check_key(world, key)


@pytest.mark.parametrize("act", ACTS[2:], ids=lambda act: act.name)
@each_call
@pytest.mark.parametrize("when", ["before", "after"])
def test_two_who_do_the_same_at_once_have_one_answer_and_it_is_told_once(world: World, act: Act, at: int, when: str):
    act.prepare(world.process())
    rivals: list[Any] = []

    answer = act.do(world.process(stepping(at, when, lambda: rivals.append(act.do(world.process())))))

    assert rivals in ([], [answer])
    act.check(world, answer)


@each_call
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_key_that_is_made_while_its_subject_is_erased_is_no_key(world: World, at: int, when: str):
    def make_and_erase() -> None:
        make_key(world.process())
        erase(world.process())

    steps = stepping(at, when, make_and_erase)
    assert outcome_of(make_key, world.process(steps)) in {"done", "subject_erased"}

    row = world.row()
    assert row is not None
    if steps.made >= at:
        assert (row["state"], row["key"]) == ("erased", None)


@each_call
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("act", "rival"), [(hold, erase), (erase, hold)])
def test_of_a_hold_and_an_erasure_at_once_one_is_refused(
    world: World, act: Callable[[SubjectKeys], Any], rival: Callable[[SubjectKeys], Any], at: int, when: str
):
    make_key(world.process())
    rivals: list[str] = []
    steps = stepping(at, when, lambda: rivals.append(outcome_of(rival, world.process())))

    outcomes = {act: outcome_of(act, world.process(steps))}
    outcomes[rival] = rivals[0] if rivals else outcome_of(rival, world.process())

    row = world.row()
    assert row is not None
    if row["state"] == "erased":
        assert outcomes == {hold: "subject_erased", erase: "done"}
        assert (row["key"], row["holds"]) == (None, {})
    else:
        assert outcomes == {hold: "done", erase: "held"}
        assert row["key"] is not None
    world.check_told()


@each_call
@pytest.mark.parametrize("when", ["before", "after"])
def test_two_holds_at_once_both_hold(world: World, at: int, when: str):
    make_key(world.process())
    steps = stepping(at, when, lambda: acts.hold(world.process(), "ann", "case 2", by="eve"))

    hold(world.process(steps))

    expected = (HOLD, Hold("case 2", "eve")) if steps.made >= at else (HOLD,)
    assert world.process().find("ann").holds == expected
    world.check_told()


@each_call
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_release_ends_no_hold_but_its_own(world: World, at: int, when: str):
    make_and_hold(world.process())
    steps = stepping(at, when, lambda: acts.hold(world.process(), "ann", "case 2", by="eve"))

    release(world.process(steps))

    expected = (Hold("case 2", "eve"),) if steps.made >= at else ()
    assert world.process().find("ann").holds == expected
    assert outcome_of(erase, world.process()) == ("held" if expected else "done")


def test_an_erasure_that_arrives_late_does_not_overrun_a_hold(world: World):
    make_key(world.process())
    sent: list[tuple[str, Mapping[str, Any]]] = []

    class Delays:
        """Keeps writes on their way and says nothing."""

        def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
            if operation in {"GetItem", "Query"}:
                return world.database.transport.call(operation, request)
            sent.append((operation, request))
            raise Unknown("nothing was heard")

    with pytest.raises(Uncertain):
        erase(world.process(transport=Delays()))
    hold(world.process())
    for operation, request in sent:
        with pytest.raises(Cancelled):
            world.database.transport.call(operation, request)

    check_hold(world, world.process().find("ann"))


def test_who_is_always_overtaken_gives_up_and_says_so(world: World):
    make_key(world.process())
    reasons = itertools.count()

    class Overtaken:
        def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
            if operation == "TransactWriteItems":
                acts.hold(world.process(), "ann", f"another {next(reasons)}", by="eve")
            return world.database.transport.call(operation, request)

    with pytest.raises(Unavailable) as told:
        hold(world.process(transport=Overtaken()))
    assert told.value.code == "contended"
    assert HOLD not in world.process().find("ann").holds
    world.check_told()
