"""Whatever is archived when, a stream reads as the one that never left its table."""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.archive.format import version_of
from holdfast.errors import ServiceError
from holdfast.log import Hint
from holdfast.streams import ANY, Commit, EventStore, MemoryEventStores, RawCodec, StaleStream
from tests.archive_lab import ArchiveLab, archive_lab, streams_together
from tests.promises import event
from tests.soak import examples

STREAMS = streams_together(2)
"""In one partition, so that they share objects."""
STEPS_MAX = 12


class Append(msgspec.Struct, frozen=True):
    """At the end, or off it; under an id of its own, or one that was used before."""

    stream: str
    off: int
    count: int
    again: bool


class Archive(msgspec.Struct, frozen=True):
    """Let time pass, and move what is old enough, in ranges of so many bytes; the log may not know everything."""

    days: int
    range_bytes: int
    is_indexed: bool


Step = Append | Archive

steps = st.one_of(
    st.builds(
        Append,
        stream=st.sampled_from(STREAMS),
        off=st.sampled_from([0, 0, 0, 0, -1, -2, -4, 1, 99]),
        count=st.integers(1, 4),
        again=st.booleans(),
    ),
    st.builds(
        Archive,
        days=st.sampled_from([1, 50, 91, 200]),
        range_bytes=st.sampled_from([1, 300, 10_000]),
        is_indexed=st.sampled_from([True, True, False]),
    ),
)


class Pair:
    """One history in a table with an archive, and in memory."""

    def __init__(self) -> None:
        self.lab: ArchiveLab = archive_lab()
        memory = MemoryEventStores(RawCodec(), self.lab.clock)
        self.stores: tuple[EventStore[bytes], ...] = (memory.of(self.lab.tenant, "ann"), self.lab.store())
        self.numbers = itertools.count(1)
        self.requests: dict[str, tuple[int, list[bytes], str]] = {}

    def carry_out(self, step: Step) -> None:
        match step:
            case Append():
                self.lab.clock.advance(timedelta(seconds=1))
                memory, archived = self.answers(step)
                assert memory == archived
            case Archive():
                if step.is_indexed:
                    ends = {stream: self.stores[0].last(stream) for stream in STREAMS}
                    self.lab.indexer().index(
                        Hint(self.lab.tenant, name, end.first_version) for name, end in ends.items() if end
                    )
                self.lab.age(timedelta(days=step.days))
                self.lab.archiver(range_bytes=step.range_bytes).run()
                assert self.lab.stuck == []

    def answers(self, step: Append) -> list[Any]:
        if step.again and step.stream in self.requests:
            expected, events, commit_id = self.requests[step.stream]
        else:
            newest = self.stores[0].last(step.stream)
            expected = max(0, (newest.version if newest else 0) + step.off)
            number = next(self.numbers)
            events, commit_id = [event(number * 10 + each) for each in range(step.count)], f"c{number}"
            if number % 3 == 1:
                self.requests[step.stream] = expected, events, commit_id
        return [told(store, step.stream, expected, events, commit_id) for store in self.stores]

    def check(self) -> None:
        for stream in STREAMS:
            memory, archived = (list(every_read(store, stream)) for store in self.stores)
            assert memory == archived
            hot = self.lab.hot(stream)
            assert [row["sk"] for row in hot[1:]] == [version_of(row) + 1 for row in hot[:-1]]
        self.lab.check_leaves()


def told(store: EventStore[bytes], stream: str, expected: Any, events: list[bytes], commit_id: str) -> Any:
    try:
        answer = store.append(stream, expected, events, commit_id=commit_id)
    except ServiceError as error:
        winner = error.winner if isinstance(error, StaleStream) else None
        return type(error), error.code, error.facts, winner and facts(winner)
    return answer.first_version, answer.version, answer.recorded_at, answer.is_replay


def facts(commit: Commit[bytes]) -> Any:
    return msgspec.structs.astuple(msgspec.structs.replace(commit, read_at=None))


def every_read(store: EventStore[bytes], stream: str) -> Iterator[list[Any]]:
    newest = store.last(stream)
    bounds = sorted(
        {0, 1, 2, 3, 5, 8, 13, *((newest.version - 1, newest.version, newest.version + 1) if newest else ())}
    )
    for after in bounds:
        yield [facts(commit) for commit in store.read(stream, after)]
        yield [facts(commit) for commit in store.read_back(stream, after)]
        for until in bounds:
            yield [facts(commit) for commit in store.read(stream, after, until=until)]
    yield [facts(commit) for commit in store.read_back(stream)]


@settings(max_examples=examples(20, soak=2_000), deadline=None)
@given(st.lists(steps, min_size=1, max_size=STEPS_MAX))
def test_an_archived_stream_is_the_stream_that_was_never_archived(history: list[Step]):
    pair = Pair()
    for step in history:
        pair.carry_out(step)
    pair.check()


@settings(max_examples=examples(20, soak=2_000), deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.integers(1, 2_000), st.integers(0, 39))
def test_whatever_a_range_weighs_all_of_it_arrives(sizes: list[int], range_bytes: int, young: int):
    lab = archive_lab()
    for number, size in enumerate(sizes):
        if number == young:
            lab.index()
            lab.age(timedelta(days=120))
        lab.append(STREAMS[number % 2], size)
    lab.index()
    lab.age(timedelta(days=60 if young < len(sizes) else 180))

    report = lab.archiver(range_bytes=range_bytes).run()

    assert report.commits == min(young, len(sizes))
    lab.check()


def test_any_append_is_remembered_beyond_the_archive():
    pair = Pair()
    for store in pair.stores:
        store.append(STREAMS[0], ANY, [event(1)], commit_id="any")
    for number in (1, 2):
        pair.carry_out(Append(STREAMS[0], 0, number, again=False))
    pair.carry_out(Archive(200, 1, is_indexed=True))

    memory, archived = (told(store, STREAMS[0], ANY, [event(1)], "any") for store in pair.stores)

    assert memory == archived
    pair.check()
