"""Data subjects: their keys, what holds them, and how they are erased; decided purely, and kept in a table."""

import base64
import itertools
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from holdfast.clock import ManualClock
from holdfast.cloudevents import encode, rendered
from holdfast.dynamodb import Database
from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.dynamodb.reads import get
from holdfast.envelope import DataKey, Forged, MemoryKeyRing, WrappedKey, seal, unseal
from holdfast.errors import Conflict, Invalid, NotFound, Unavailable
from holdfast.sealing import SUBJECT_NAME_MAX, Erased, Sealer, check_subject
from holdfast.streams import ANY
from holdfast.streams.packing import fingerprint_of, unpack
from holdfast.subjects import (
    BACKUPS_KEPT,
    HOLDS_MAX,
    KEY_AGE_MAX,
    KEYS_CACHED_MAX,
    REASON_BYTES_MAX,
    Hold,
    KeyCache,
    Subject,
    SubjectKeys,
)
from holdfast.subjects.rules import erased, held, released
from tests.dynamo_tables import TestTables, memory_stores
from tests.subject_acts import erase, hold, release

NOON = datetime.fromisoformat("2026-01-01T12:00:00Z")
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)

_NUMBERS = itertools.count()


# --- decisions


def live(*holds: Hold) -> Subject:
    return Subject("ann", 1, holds=holds)


def test_a_hold_keeps_a_subject_from_being_erased():
    with pytest.raises(Conflict) as refused:
        erased(live(Hold("case 1", "bob")), NOON)

    assert (refused.value.code, refused.value.facts) == ("held", {"reasons": ["case 1"]})


def test_a_hold_ends_at_its_time_and_not_before():
    subject = live(Hold("case 1", "bob", until=NOON))

    with pytest.raises(Conflict):
        erased(subject, NOON - timedelta(microseconds=1))
    assert erased(subject, NOON).state == "erased"


def test_one_hold_that_runs_is_enough():
    with pytest.raises(Conflict) as refused:
        erased(live(Hold("case 1", "bob", until=NOON), Hold("case 2", "bob")), NOON)

    assert refused.value.facts == {"reasons": ["case 2"]}


def test_holding_twice_for_one_reason_decides_once():
    once = held(live(), Hold("case 1", "bob"), NOON)

    assert once.holds == (Hold("case 1", "bob"),)
    assert held(once, Hold("case 1", "eve"), NOON) == once


def test_a_hold_may_be_given_another_end():
    subject = held(live(Hold("case 1", "bob", until=NOON)), Hold("case 1", "eve", until=NOON + HOUR), NOON - HOUR)

    assert subject.holds == (Hold("case 1", "eve", until=NOON + HOUR),)


def test_a_new_hold_sweeps_the_lapsed_ones_away():
    assert held(live(Hold("old", "bob", until=NOON)), Hold("new", "bob"), NOON).holds == (Hold("new", "bob"),)


def test_holds_have_a_bound_that_lapsed_ones_do_not_count_towards():
    running = tuple(Hold(f"case {number:03}", "bob") for number in range(HOLDS_MAX))

    with pytest.raises(Conflict) as refused:
        held(live(*running), Hold("one more", "bob"), NOON)
    assert refused.value.code == "too_many_holds"
    assert held(live(*running[1:], Hold("old", "bob", until=NOON)), Hold("one more", "bob"), NOON)


def test_releasing_ends_one_hold_and_asking_again_none():
    subject = released(live(Hold("case 1", "bob"), Hold("case 2", "bob")), "case 1")

    assert subject.holds == (Hold("case 2", "bob"),)
    assert released(subject, "case 1") == subject


def test_erasing_again_changes_nothing():
    subject = erased(live(), NOON)

    assert (subject.erased_at, subject.final_at) == (NOON, NOON + BACKUPS_KEPT)
    assert erased(subject, NOON + HOUR) == subject


def test_who_is_erased_can_not_be_held():
    with pytest.raises(Conflict) as refused:
        held(erased(live(), NOON), Hold("case 1", "bob"), NOON)

    assert refused.value.code == "subject_erased"


@pytest.mark.parametrize("name", ["ann", "users/4711", "a@b.example", "x" * SUBJECT_NAME_MAX])
def test_subjects_are_named_like_the_rest_of_a_stream(name: str):
    assert check_subject(name) == name


@pytest.mark.parametrize("name", ["", "/", "a/", "/a", "a#b", "a b", "a/../b", ".", "é", "x" * (SUBJECT_NAME_MAX + 1)])
def test_other_names_are_refused(name: str):
    with pytest.raises(Invalid) as refused:
        check_subject(name)
    assert refused.value.code == "invalid_subject"


# --- in the table


@dataclass
class CountingRing:
    """A ring in memory that counts what it is asked."""

    inner: MemoryKeyRing = field(default_factory=MemoryKeyRing)
    made: int = 0
    unwrapped: int = 0

    def make(self, context: Any) -> WrappedKey:
        self.made += 1
        return self.inner.make(context)

    def unwrap(self, wrapped: bytes, context: Any) -> DataKey:
        self.unwrapped += 1
        return self.inner.unwrap(wrapped, context)


@dataclass
class World:
    """One tenant's subjects, as several processes see them."""

    database: TestTables
    tenant: str
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOON))
    ring: CountingRing = field(default_factory=CountingRing)

    def process(self, clock: ManualClock | None = None) -> SubjectKeys:
        """Start a process that remembers nothing."""
        clock = clock or self.clock
        database = Database.connect(self.database.transport, clock)
        return SubjectKeys(database, self.database.tables, self.ring, self.tenant, KeyCache(clock))

    def row(self, subject: str = "ann") -> dict[str, Any]:
        keys = self.process()
        row = get(keys.database, keys.tables.operations, f"K#{self.tenant}#{subject}", 0)
        assert row is not None
        return row

    def write(self, **changes: Any) -> None:
        item = to_item(self.row() | changes)
        self.database.transport.call("PutItem", {"TableName": self.database.tables.operations, "Item": item})


@pytest.fixture
def database() -> TestTables:
    return memory_stores()


@pytest.fixture
def world(database: TestTables) -> World:
    return World(database, f"t{next(_NUMBERS)}")


def test_a_key_is_made_once_and_found_again(world: World):
    key = world.process().key_for("ann")

    assert world.process().key_for("ann") == world.process().peek("ann") == key
    assert world.ring.made == 1


def test_every_subject_and_every_tenant_has_a_key_of_its_own(world: World, database: TestTables):
    other = World(database, f"{world.tenant}-other", ring=world.ring)

    assert len({w.process().key_for(name) for w in (world, other) for name in ("ann", "bob")}) == 4


def test_reading_makes_no_key(world: World):
    assert world.process().peek("ann") is None
    assert world.ring.made == 0


def test_no_key_lies_in_the_table_in_clear(world: World):
    secret = world.process().key_for("ann").secret

    assert secret not in repr(world.row()).encode()
    assert not any(secret in value for value in world.row().values() if isinstance(value, bytes))


def test_the_row_says_what_its_readers_rely_on(world: World):
    world.process().key_for("ann")
    hold(world.process(), "ann", "case 1", NOON + HOUR, by="bob")

    wrapped = world.row()["key"]
    assert world.row() == {
        "pk": f"K#{world.tenant}#ann",
        "sk": 0,
        "key": wrapped,
        "v": 2,
        "state": "live",
        "holds": {"case 1": {"by": "bob", "until": 1_767_272_400_000_000}},
        "erased_at": None,
        "final_at": None,
    }


def test_erasing_overwrites_the_key_and_nobody_opens_what_was_sealed(world: World):
    keys = world.process()
    box = seal(b"content", keys.key_for("ann"), {})
    wrapped = world.row()["key"]

    answer = erase(keys, "ann")

    assert answer == Subject("ann", 2, "erased", (), NOON, NOON + BACKUPS_KEPT)
    assert world.row()["key"] is None
    assert wrapped not in world.row().values()
    assert world.process().peek("ann") == keys.peek("ann") == Erased()
    with pytest.raises(Forged):
        unseal(box, world.process().key_for("bob"), {})


def test_an_erased_subject_gets_no_key_any_more(world: World):
    keys = world.process()
    keys.key_for("ann")
    erase(keys, "ann")

    for process in (keys, world.process()):
        with pytest.raises(Conflict) as refused:
            process.key_for("ann")
        assert refused.value.code == "subject_erased"
    assert world.ring.made == 1


def test_erasing_again_gives_the_first_answer(world: World):
    world.process().key_for("ann")
    first = erase(world.process(), "ann")
    world.clock.advance(HOUR)

    assert erase(world.process(), "ann") == first


def test_a_held_subject_is_erased_only_after_its_release(world: World):
    keys = world.process()
    keys.key_for("ann")
    hold(keys, "ann", "case 1", by="bob")

    with pytest.raises(Conflict) as refused:
        erase(keys, "ann")
    assert refused.value.code == "held"
    assert world.row()["key"] is not None
    assert release(keys, "ann", "case 1").holds == ()
    assert erase(keys, "ann").state == "erased"


def test_a_lapsed_hold_holds_no_longer(world: World):
    keys = world.process()
    keys.key_for("ann")
    hold(keys, "ann", "case 1", NOON + HOUR, by="bob")
    world.clock.advance(HOUR - SECOND)

    with pytest.raises(Conflict):
        erase(keys, "ann")
    world.clock.advance(SECOND)
    assert erase(keys, "ann").erased_at == NOON + HOUR


def test_holding_and_releasing_twice_write_once(world: World):
    keys = world.process()
    keys.key_for("ann")

    assert hold(keys, "ann", "case 1", by="bob") == hold(keys, "ann", "case 1", by="bob")
    assert world.row()["v"] == 2
    assert release(keys, "ann", "case 1") == release(keys, "ann", "case 1")
    assert world.row()["v"] == 3


def test_what_is_known_of_a_subject_can_be_asked(world: World):
    keys = world.process()
    keys.key_for("users/4711")
    hold(keys, "users/4711", "case 2", by="bob")
    hold(keys, "users/4711", "case 1", NOON + HOUR, by="eve")

    holds = (Hold("case 1", "eve", NOON + HOUR), Hold("case 2", "bob"))
    assert keys.find("users/4711") == Subject("users/4711", 3, holds=holds)


def test_who_never_had_a_key_is_not_found(world: World):
    keys = world.process()

    for act in (
        lambda: keys.find("ann"),
        lambda: hold(keys, "ann", "case 1", by="bob"),
        lambda: release(keys, "ann", "case 1"),
        lambda: erase(keys, "ann"),
    ):
        with pytest.raises(NotFound) as refused:
            act()
        assert refused.value.code == "subject_not_found"


def test_names_reasons_and_times_that_are_none_are_refused(world: World):
    keys = world.process()
    keys.key_for("ann")

    def code_of(act: Any) -> str:
        with pytest.raises(Invalid) as refused:
            act()
        return refused.value.code

    assert code_of(lambda: keys.key_for("a#b")) == "invalid_subject"
    assert code_of(lambda: keys.peek("")) == "invalid_subject"
    assert code_of(lambda: erase(keys, "a b")) == "invalid_subject"
    assert code_of(lambda: hold(keys, "ann", "", by="bob")) == "invalid_reason"
    assert code_of(lambda: hold(keys, "ann", "é" * (REASON_BYTES_MAX // 2) + "x", by="bob")) == "invalid_reason"
    assert code_of(lambda: hold(keys, "ann", "case 1", NOON, by="bob")) == "invalid_until"


def test_every_hold_that_is_allowed_fits_the_row(world: World):
    keys = world.process()
    keys.key_for("ann")
    holds = {
        f"{number:03}".ljust(REASON_BYTES_MAX): {"by": "b" * 512, "until": None} for number in range(HOLDS_MAX - 1)
    }
    world.write(holds=holds)

    assert len(hold(keys, "ann", "x" * REASON_BYTES_MAX, by="b" * 512).holds) == HOLDS_MAX


def test_a_row_of_another_subject_is_no_key(world: World):
    keys = world.process()
    keys.key_for("bob")
    keys.key_for("ann")
    world.write(key=world.row("bob")["key"])

    with pytest.raises(Forged):
        world.process().key_for("ann")


def test_a_clock_that_differs_from_the_stores_erases_nothing(world: World):
    keys = world.process()
    keys.key_for("ann")
    hold(keys, "ann", "case 1", NOON + HOUR, by="bob")
    wrong = ManualClock(NOON + 2 * HOUR)
    process = world.process(wrong)
    process.database.skew = 2 * HOUR  # as the store's answers would have told

    with pytest.raises(Unavailable) as refused:
        erase(process, "ann")
    assert refused.value.code == "clock_skew"
    assert world.row()["key"] is not None


def test_no_item_holds_plaintext_of_a_subject_before_or_after_its_erasure(world: World):
    keys = world.process()
    sealer = Sealer(keys, world.tenant)
    stores = world.database.stores(world.clock)
    event: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "urn:test", "type": "t", "shredkey": "ann"}
    event |= {"data": {"name": "Ann Example"}}
    stores.of(world.tenant, "bob").append(
        "people/1",
        ANY,
        [encode(sealer.sealed("people/1", event), "")],
        commit_id="c",
        fingerprint=fingerprint_of([sealer.fingerprint_part(event)]),
    )

    def everything() -> bytes:
        """Whatever lies in the tables, with packed events unpacked."""
        found = list[bytes]()
        for table in (world.database.tables.commits, world.database.tables.operations):
            for item in world.database.transport.call("Scan", {"TableName": table}).body["Items"]:
                row = from_item(item)
                stored = unpack(row["ev"]) if "ev" in row else ()
                boxes = [base64.b64decode(msgspec.json.decode(each).get("data_base64", "")) for each in stored]
                values = [value for value in row.values() if isinstance(value, bytes)]
                found += [*stored, *boxes, *values, repr(row).encode()]
        return b"\n".join(found)

    betraying = [b"Ann Example", b"Example", keys.key_for("ann").secret]
    betraying += [fingerprint_of([msgspec.json.encode(event, order="sorted")])]
    assert b"urn:test" in everything()
    assert not any(text in everything() for text in betraying)

    wrapped = world.row()["key"]
    assert wrapped in everything()
    erase(keys, "ann")
    assert wrapped not in everything()
    (commit,) = stores.of(world.tenant, "bob").read("people/1")
    assert [sealer.unsealed("people/1", shown).get("data") for shown in rendered(commit)] == [None]


# --- in memory


def test_a_key_is_asked_for_once_a_minute(world: World):
    keys = world.process()
    keys.key_for("ann")
    world.clock.advance(KEY_AGE_MAX)

    keys.key_for("ann")
    assert world.ring.unwrapped == 0
    world.clock.advance(timedelta(microseconds=1))
    keys.key_for("ann")
    assert world.ring.unwrapped == 1


@pytest.mark.parametrize(
    "pass_time",
    [
        lambda clock, by: clock.jump(by),
        lambda clock, by: clock.jump(-by),
        lambda clock, by: (clock.advance(by), clock.jump(-by)),
    ],
    ids=["the machine slept, or its clock was set ahead", "its clock was set back", "only monotonic time went by"],
)
def test_an_erasure_is_heard_of_within_a_minute_of_either_clock(world: World, pass_time: Any):
    keys = world.process()
    key = keys.key_for("ann")
    erase(world.process(), "ann")

    assert keys.peek("ann") == key
    pass_time(world.clock, KEY_AGE_MAX + SECOND)
    assert keys.peek("ann") == Erased()


def test_who_erases_hears_of_it_at_once(world: World):
    keys = world.process()
    keys.key_for("ann")
    erase(keys, "ann")

    assert keys.peek("ann") == Erased()


def test_a_key_is_as_old_as_the_question(world: World):
    keys = world.process()
    keys.key_for("ann")

    class Slow(CountingRing):
        def unwrap(self, wrapped: bytes, context: Any) -> DataKey:
            world.clock.advance(KEY_AGE_MAX)
            return super().unwrap(wrapped, context)

    slow = Slow(world.ring.inner)
    late = SubjectKeys(keys.database, keys.tables, slow, world.tenant, KeyCache(world.clock))
    late.key_for("ann")
    world.clock.advance(SECOND)
    late.key_for("ann")
    assert slow.unwrapped == 2


def test_few_keys_stay_and_none_that_is_too_old():
    clock = ManualClock()
    cache = KeyCache(clock)
    for number in range(KEYS_CACHED_MAX + 1):
        cache.put("t", f"{number}", DataKey(bytes(32)), cache.instant())

    assert cache.get("t", "0") is None
    assert cache.get("t", "1") is not None
    clock.advance(KEY_AGE_MAX + SECOND)
    cache.put("t", "new", DataKey(bytes(32)), cache.instant())
    assert list(cache._known) == [("t", "new")]


def test_a_cache_does_not_mix_tenants_up_or_show_keys():
    clock = ManualClock()
    cache = KeyCache(clock)
    cache.put("a", "ann", DataKey(b"k" * 32), cache.instant())

    assert cache.get("b", "ann") is None
    assert "k" * 32 not in repr(cache)
