"""The archive under crashes at every call, lost replies, rivals, writers and readers in between, and broken buckets."""

import itertools
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from holdfast.archive.format import Placed, read_footer, read_whole, write
from holdfast.archive.partition import Moved
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.transport import Answer, Transport
from holdfast.errors import Unavailable, Uncertain
from holdfast.objects import MemoryObjects, Objects
from holdfast.streams import StaleStream
from holdfast.testing import FAULTS, Crash, FaultyTransport, Fuse, Killed, at_every_crash, watched
from tests.archive_lab import ArchiveLab, archive_lab, streams_together
from tests.soak import IS_SOAK, until_delivered

BUSY, QUIET, WOKEN, ONCE = streams_together(4)
"""Streams of one partition: one goes on, one has ended, one went on after a range was archived, one is one commit."""


@cache
def begun() -> ArchiveLab:
    """One range is archived, and there is a second; every kind of stream is in it."""
    lab = archive_lab()
    for stream, commits in ((BUSY, 2), (WOKEN, 2), (QUIET, 1)):
        for _ in range(commits):
            lab.append(stream, 2)
    lab.index()
    lab.age()
    archive(lab)
    for stream, commits in ((WOKEN, 2), (BUSY, 3), (QUIET, 2), (ONCE, 1)):
        for _ in range(commits):
            lab.append(stream)
    lab.index()
    lab.age()
    lab.append(BUSY)
    lab.index()
    return lab


@pytest.fixture
def lab() -> ArchiveLab:
    return world()


def world() -> ArchiveLab:
    return begun().fork()


def archive(lab: ArchiveLab, transport: Transport | None = None, objects: Objects | None = None) -> Moved | None:
    return lab.archiver(transport, objects).partition(lab.tenant, 0).archive()


def finish(lab: ArchiveLab) -> None:
    """Whoever comes next leaves nothing to do, and what an undisturbed archiver would have left."""
    while archive(lab):
        pass
    lab.check()
    standing = {stream: [row["sk"] for row in lab.hot(stream)] for stream in (QUIET, WOKEN, ONCE)}
    assert standing == {QUIET: [4], WOKEN: [6], ONCE: [1]}
    assert lab.hot(BUSY)[0]["sk"] == 8
    assert [row["sealing"] for row in lab.log_rows("AC#")] == [0]


def act(lab: ArchiveLab, fuse: Fuse) -> None:
    archive(lab, fuse.wrap(lab.transport), fuse.wrap(lab.objects))


def test_killed_before_or_after_any_call_nothing_is_lost_and_the_next_goes_on():
    def then(crash: Crash[ArchiveLab]) -> None:
        crash.world.check()
        finish(crash.world)

    assert at_every_crash(world, act, then) > 40


def test_killed_again_and_again_it_comes_to_an_end():
    """Each time it is begun again it meets what stands there once more."""

    def run(seed: int) -> int:
        lab, noise, met = world(), random.Random(seed), 0
        for _ in range(200):
            met += lab.hot_commits()
            fuse = Fuse(noise.randrange(1, 15), after=noise.random() < 0.5)
            try:
                act(lab, fuse)
            except Killed:
                lab.check()
                continue
            break

        finish(lab)
        return met

    until_delivered(run)


@dataclass
class Between:
    """A transport and a bucket between whose calls something else happens."""

    lab: ArchiveLab
    happen: Callable[[int], object]
    calls: int = 0

    @classmethod
    def at(cls, lab: ArchiveLab, call: int, happen: Callable[[ArchiveLab], object]) -> "Between":
        """Let it happen once, before the call of this number."""

        def once(number: int) -> None:
            if number == call:
                happen(lab)

        return cls(lab, once)

    @property
    def transport(self) -> Transport:
        return watched(self.lab.transport, self._next)

    @property
    def objects(self) -> Objects:
        return watched(self.lab.objects, self._next)

    def _next(self, _: str, call: Callable[[], Any]) -> Any:
        self.calls += 1
        self.happen(self.calls)
        return call()


@cache
def calls_of_one_run() -> int:
    lab = world()
    between = Between(lab, lambda _: None)
    archive(lab, between.transport, between.objects)
    return between.calls


def between_every_two_calls(happen: Callable[[ArchiveLab], object]) -> None:
    lab = world()
    between = Between(lab, lambda _: happen(lab))
    archive(lab, between.transport, between.objects)
    lab.check()


def some_calls(first: int = 1, step: int = 2) -> range:
    """Number the calls of one run; normally every second."""
    return range(1, calls_of_one_run() + 1) if IS_SOAK else range(first, calls_of_one_run() + 1, step)


def inside_each_call(happen: Callable[[ArchiveLab], object], calls: range) -> None:
    for at in calls:
        lab = world()
        between = Between.at(lab, at, happen)
        archive(lab, between.transport, between.objects)
        finish(lab)


def test_everything_can_be_read_at_any_moment():
    between_every_two_calls(ArchiveLab.check)


@pytest.mark.parametrize("is_indexed", [True, False])
@pytest.mark.parametrize("stream", [BUSY, QUIET, WOKEN, ONCE])
def test_writers_go_on_between_any_two_calls(stream, is_indexed):
    def write(lab: ArchiveLab) -> None:
        lab.append(stream)
        if is_indexed:
            lab.index()

    between_every_two_calls(write)


def test_a_stream_that_wakes_up_in_any_call_loses_nothing():
    def wake(lab: ArchiveLab) -> None:
        lab.append(QUIET)
        lab.index()
        lab.check()

    for at in some_calls():
        lab = world()
        between = Between.at(lab, at, wake)
        archive(lab, between.transport, between.objects)
        lab.index()
        lab.check()
        lab.age()
        archive(lab)
        lab.check()
        assert [row["sk"] for row in lab.hot(QUIET)] == [5]


def test_another_archiver_may_run_inside_any_call():
    inside_each_call(archive, some_calls())


@pytest.mark.parametrize(("number", "calls"), [(0, 4), (1, 8), (2, 16)])
def test_another_archiver_may_be_killed_inside_any_call(number, calls):
    def killed(lab: ArchiveLab) -> None:
        with suppress(Killed):  # where little is left to do, it comes to its end before
            act(lab, Fuse(calls))

    # Normally each of the three is killed inside every third call, and together they are inside all.
    inside_each_call(killed, some_calls(1 + number, 3))


def test_another_may_archive_this_range_and_the_next_inside_any_call():
    def overtake(lab: ArchiveLab) -> None:
        archive(lab)
        lab.append(QUIET)
        lab.append(BUSY)
        lab.index()
        lab.age()
        archive(lab)
        lab.check()

    for at in some_calls():
        lab = world()
        between = Between.at(lab, at, overtake)
        archive(lab, between.transport, between.objects)
        archive(lab)
        lab.check()


@pytest.mark.parametrize("read", ["forward", "back", "part", "log"])
def test_who_reads_while_it_is_archived_reads_all_of_it(read):
    def told(lab: ArchiveLab, transport: Transport | None = None) -> list[Any]:
        reader = lab.reader(transport)
        store = lab.store_with(reader, transport)
        match read:
            case "forward":
                return [(one.first_version, one.events) for one in store.read(BUSY)]
            case "back":
                return [(one.first_version, one.events) for one in store.read_back(BUSY, 7)]
            case "part":
                return [(one.first_version, one.events) for one in store.read(BUSY, 2, until=6)]
        return [
            (entry.position, one.events)
            for entry, one in lab.bodies(reader, transport).of(lab.tenant, lab.entries()[0])
        ]

    expected = told(world())
    for at in range(1, 12):
        lab = world()
        between = Between.at(lab, at, archive)
        assert told(lab, between.transport) == expected


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_one_fault_at_any_call_is_survived(fault):
    """Normally at every fourth, by itself."""
    for at in some_calls(step=4):
        lab = world()
        archive(lab, FaultyTransport(lab.transport, [None] * (at - 1) + [fault]))
        finish(lab)


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("turn", [[True, False], [False, True]], ids=["first", "second"])
def test_a_fault_at_every_call_is_survived(fault, turn):
    """Every other attempt meets it, so that each call does: one that is lost is made again."""
    lab = world()
    transport = FaultyTransport(lab.transport, itertools.cycle(fault if is_met else None for is_met in turn))
    archive(lab, transport)

    assert transport.injected[fault] > calls_of_one_run() // 3
    finish(lab)


def test_a_removal_that_arrives_late_takes_nothing_that_had_to_stay(lab):
    held: list[tuple[str, Mapping[str, Any]]] = []

    class Late:
        def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
            if operation == "DeleteItem":
                held.append((operation, request))
            return lab.transport.call(operation, request)

    archive(lab, Late())
    for stream in (QUIET, WOKEN):
        lab.append(stream)
    lab.index()
    lab.age()
    archive(lab)
    assert held
    for operation, request in held:
        with pytest.raises(Exception, match="condition failed"):
            lab.transport.call(operation, request)

    lab.check()


# ----- buckets that do not keep what they are given


class BrokenBucket(MemoryObjects):
    """Keeps something else than it was given, and says nothing."""

    def __init__(self, lab: ArchiveLab, damage: Callable[[bytes], bytes | None]) -> None:
        super().__init__(lab.objects._bodies)
        object.__setattr__(self, "damage", damage)

    def put_new(self, key: str, body: bytes) -> bool:
        kept = self.damage(body)  # type: ignore[attr-defined]
        return super().put_new(key, kept) if kept is not None else True


def flipped(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut short": lambda body: body[:-1],
    "cut to half": lambda body: body[: len(body) // 2],
    "empty": lambda body: b"",
    "not kept": lambda body: None,
    "longer": lambda body: body + b"\0",
    "a bit of an event": lambda body: flipped(body, 40),
    "a bit of the footer": lambda body: flipped(body, len(body) - 60),
}


def nothing_is_removed_for_a_bucket(damage: Callable[[bytes], bytes | None]) -> None:
    lab = world()
    before = lab.hot_commits()
    lab.archiver(objects=BrokenBucket(lab, damage)).run()

    assert [stuck.partition for stuck in lab.stuck] == [0]
    assert lab.hot_commits() == before
    lab.stuck.clear()
    lab.check()


@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_is_removed_for_the_sake_of_an_object_that_cannot_be_read_back(damage):
    nothing_is_removed_for_a_bucket(DAMAGES[damage])


def test_an_object_of_the_wrong_range_is_not_taken_for_this_one(lab):
    """It is whole, and of this log, and under this key: but of another range."""
    (earlier,) = lab.objects.keys("archive/")
    nothing_is_removed_for_a_bucket(lambda _body: lab.objects.get(earlier))


def test_another_log_is_not_taken_for_this_one():
    """Everything in the object is sound, and the range is named right; one commit was recorded by somebody else."""

    def forged(body: bytes) -> bytes:
        held = read_footer(body).range
        commits = [
            Placed(piece.stream, position, row | {"actor": "mallory"} if row["sk"] == 5 else row)
            for piece, rows in read_whole(body)
            for position, row in zip(piece.positions, rows, strict=True)
        ]
        return write(held, commits)[0]

    nothing_is_removed_for_a_bucket(forged)


def a_range_that_was_begun_stays_the_same_range() -> None:
    """More is old enough by the time that somebody goes on; what was written and removed was of the range as it was."""
    for calls in range(1, calls_of_one_run() + 1):
        lab = world()
        with suppress(Killed):
            act(lab, Fuse(calls, after=True))
        for stream in (BUSY, QUIET):
            lab.append(stream)
        lab.index()
        lab.age()
        while archive(lab):
            pass
        lab.check()
        spans = [key.rsplit("/", 1)[1].split("-") for key in lab.objects.keys("archive/")]
        assert [first for first, _ in spans[1:]] == [f"{int(last) + 1:016d}" for _, last in spans[:-1]]


def test_a_range_that_was_begun_stays_the_same_range():
    a_range_that_was_begun_stays_the_same_range()


def test_an_object_that_is_cut_short_while_commits_are_removed_stops_what_is_left():
    lab = world()
    deletes = iter(range(100))

    class Stopping:
        def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
            if operation == "DeleteItem" and next(deletes) == 2:
                raise Killed
            return lab.transport.call(operation, request)

    with pytest.raises(Killed):
        archive(lab, Stopping())
    before = lab.hot_commits()
    key = list(lab.objects.keys("archive/"))[-1]
    whole = lab.objects._bodies[key]
    lab.objects._bodies[key] = whole[:-10]

    lab.archiver().run()
    assert [stuck.reason.split(":")[0] for stuck in lab.stuck] == ["CutShort"]
    assert lab.hot_commits() == before

    lab.objects._bodies[key] = whole  # somebody restores it
    lab.stuck.clear()
    finish(lab)


@pytest.mark.parametrize("is_written", [True, False])
def test_an_object_of_which_nobody_knows_whether_it_was_written_is_found_or_written_again(lab, is_written):
    class Uncertainly(MemoryObjects):
        def put_new(self, key: str, body: bytes) -> bool:
            if is_written:
                lab.objects.put_new(key, body)
            raise Uncertain("outcome_unknown", "It may be there.")

    with pytest.raises(Uncertain):
        archive(lab, objects=Uncertainly(lab.objects._bodies))
    lab.check()

    finish(lab)


def test_without_a_bucket_nothing_happens(lab):
    class Silent(MemoryObjects):
        def get(self, key: str) -> bytes | None:
            raise Unavailable("store_unavailable", "S3 does not answer.")

    before = lab.hot_commits()
    with pytest.raises(Unavailable):
        lab.archiver(objects=Silent(lab.objects._bodies)).run()

    assert lab.hot_commits() == before
    finish(lab)


# ----- keys that become free


def a_commit_that_is_changed_while_it_is_archived_stays() -> None:
    lab = world()
    first = lab.hot(BUSY)[0]["sk"]
    tampered = lab.raw(BUSY, first) | to_item({"hash": b"x" * 32})

    class Tampering:
        def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
            if operation == "DeleteItem" and request["Key"] == {"pk": tampered["pk"], "sk": tampered["sk"]}:
                lab.put_raw(tampered)
            return lab.transport.call(operation, request)

    lab.archiver(Tampering()).run()

    assert [stuck.reason.split(":")[0] for stuck in lab.stuck] == ["Tampered"]
    assert lab.raw(BUSY, first) == tampered


def test_a_commit_that_is_changed_while_it_is_archived_stays():
    a_commit_that_is_changed_while_it_is_archived_stays()


def a_writer_who_slept_does_not_write_to_a_freed_key() -> None:
    lab = archive_lab()
    lab.append(BUSY)
    store = lab.store()
    newest = store.last(BUSY)
    assert newest is not None
    for _ in range(4):
        lab.append(BUSY)
    lab.index()
    lab.age()
    assert archive(lab)
    assert lab.raw(BUSY, 2) == {}  # where the writer would write

    with pytest.raises(StaleStream):
        store.append(BUSY, newest.boundary, [b"{}"], commit_id="late")

    lab.check()


def test_a_writer_who_slept_does_not_write_to_a_freed_key():
    a_writer_who_slept_does_not_write_to_a_freed_key()


def a_reader_who_stopped_early_does_not_write_to_a_freed_key() -> None:
    """In the same minute the commit was read, gone on from in the table, and archived with what stood behind it."""
    lab = world()
    store = lab.store()
    first = next(iter(store.read(BUSY, 4, until=5)))
    assert archive(lab)
    assert lab.raw(BUSY, first.version + 1) == {}

    with pytest.raises(StaleStream):
        store.append(BUSY, first.boundary, [b"{}"], commit_id="late")

    lab.check()


def test_a_reader_who_stopped_early_does_not_write_to_a_freed_key():
    a_reader_who_stopped_early_does_not_write_to_a_freed_key()


def test_ages_are_judged_by_the_clock_that_is_given(lab):
    young = world()
    young.clock.jump(-timedelta(days=50))

    assert archive(young) is None
    assert archive(lab)
