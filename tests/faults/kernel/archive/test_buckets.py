"""Buckets that do not keep what they are given: nothing is removed for their sake."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from holdfast.archive.format import Placed, read_footer, read_whole, write
from holdfast.dynamodb.transport import Answer
from holdfast.errors import Unavailable, Uncertain
from holdfast.objects import MemoryObjects
from holdfast.testing import Fuse, Killed
from tests.archive_lab import ArchiveLab
from tests.faults.kernel.archive.runs import BUSY, QUIET, act, archive, calls_of_one_run, finish, world


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
