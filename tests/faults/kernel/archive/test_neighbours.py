"""Readers, writers and other archivers inside every call; faults, and removals that arrive late."""

import itertools
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from holdfast.dynamodb.transport import Answer, Transport
from holdfast.testing import FAULTS, FaultyTransport, Fuse, Killed
from tests.archive_lab import ArchiveLab
from tests.faults.kernel.archive.runs import (
    BUSY,
    ONCE,
    QUIET,
    WOKEN,
    Between,
    act,
    archive,
    between_every_two_calls,
    calls_of_one_run,
    finish,
    inside_each_call,
    some_calls,
    world,
)


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
