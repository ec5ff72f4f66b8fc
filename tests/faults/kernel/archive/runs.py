"""One run of the archiver: what it begins with, how it ends, and what may happen inside each of its calls."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from holdfast.archive.partition import Moved
from holdfast.dynamodb.transport import Transport
from holdfast.objects import Objects
from holdfast.testing import Fuse, watched
from tests.archive_lab import ArchiveLab, archive_lab, streams_together
from tests.soak import IS_SOAK

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
