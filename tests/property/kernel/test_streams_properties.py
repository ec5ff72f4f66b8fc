"""What holds for every history: the store against a plain list, and states against a naive fold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from holdfast.clock import ManualClock
from holdfast.errors import Invalid
from holdfast.folds import MERGE_PATCH, Within, fold, merge
from holdfast.proofs import leaf_hash, root
from holdfast.streams import ANY, Appended, Commit, Expected, Instant, MemoryEventStores, RawCodec, StaleStream
from holdfast.streams.packing import pack, unpack
from tests.soak import examples

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
names = st.sampled_from(["a", "b", "a/b"])
batches = st.lists(st.integers(0, 99), min_size=1, max_size=4)


def stored(numbers: list[int]) -> list[bytes]:
    return [msgspec.json.encode({"n": number}) for number in numbers]


class StreamsAgainstLists(RuleBasedStateMachine):
    """Appends of every kind, honest, forged and repeated, against a list of lists."""

    asked = Bundle("asked")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.store = MemoryEventStores(RawCodec(), self.clock).of("t", "ann")
        self.model: dict[str, list[list[bytes]]] = {}
        self.calls = 0

    def end(self, name: str) -> int:
        return sum(map(len, self.model.get(name, [])))

    @rule(target=asked, name=names, numbers=batches, any_=st.booleans())
    def append_at_the_end(self, name: str, numbers: list[int], any_: bool) -> Any:
        self.calls += 1
        expected: Expected = ANY if any_ else self.end(name)
        call = (name, expected, numbers, f"c{self.calls}")
        answer = self.store.append(name, expected, stored(numbers), commit_id=call[3])
        assert not answer.is_replay
        self.model.setdefault(name, []).append(stored(numbers))
        assert answer.version == self.end(name)
        return call, answer

    @rule(name=names, numbers=batches, off=st.integers(-3, 3).filter(bool))
    def append_elsewhere(self, name: str, numbers: list[int], off: int) -> None:
        expected = self.end(name) + off
        if expected < 0:
            return
        self.calls += 1
        with pytest.raises(StaleStream) as refused:
            self.store.append(name, expected, stored(numbers), commit_id=f"c{self.calls}")
        assert refused.value.last_version == self.end(name)

    @rule(asked=asked)
    def ask_again(self, asked: tuple[Any, Appended]) -> None:
        (name, expected, numbers, commit_id), first = asked
        again = self.store.append(name, expected, stored(numbers), commit_id=commit_id)
        assert again.is_replay
        assert (again.version, again.recorded_at) == (first.version, first.recorded_at)

    @rule(target=asked, asked=consumes(asked), numbers=batches)
    def ask_something_else_under_the_same_id(self, asked: tuple[Any, Appended], numbers: list[int]) -> Any:
        (name, expected, before, commit_id), _ = asked
        if numbers != before:
            with pytest.raises(Invalid) as refused:
                self.store.append(name, expected, stored(numbers), commit_id=commit_id)
            assert refused.value.code == "idempotency_mismatch"
        return multiple(asked)

    @rule(seconds=st.integers(-900, 900))
    def set_the_clock(self, seconds: int) -> None:
        self.clock.jump(timedelta(seconds=seconds))

    @invariant()
    def streams_are_the_lists(self) -> None:
        for name, commits in self.model.items():
            found = list(self.store.read(name))
            assert [list(commit.events) for commit in found] == commits
            assert [commit.first_version for commit in found] == [
                1 + sum(map(len, commits[:index])) for index in range(len(commits))
            ]
            times = [commit.recorded_at for commit in found]
            assert times == sorted(set(times))
            assert [commit.previous_hash for commit in found] == [b"", *(commit.hash for commit in found[:-1])]


TestStreamsAgainstLists = StreamsAgainstLists.TestCase
TestStreamsAgainstLists.settings = settings(
    max_examples=examples(40, soak=2_000), stateful_step_count=25, deadline=None
)


moments = st.integers(0, 20).map(lambda hours: NOON + timedelta(hours=hours))
patches = st.dictionaries(
    st.sampled_from("abc"), st.none() | st.integers(0, 9) | st.just({"x": None, "y": 1}), max_size=3
)


@st.composite
def histories(draw: st.DrawFn) -> list[Commit[bytes]]:
    commits: list[Commit[bytes]] = []
    version, recorded_at = 1, NOON
    for events in draw(st.lists(st.lists(st.tuples(st.none() | moments, patches), min_size=1, max_size=3), max_size=5)):
        recorded_at += timedelta(hours=draw(st.integers(1, 4)))
        encoded = tuple(
            msgspec.json.encode({"type": "t", "data": data} | ({"time": time} if time else {})) for time, data in events
        )
        commits.append(Commit("t", "s", version, encoded, "c", b"", "ann", recorded_at, b"", b"", Instant(NOON, 0)))
        version += len(events)
    return commits


@settings(max_examples=examples(100, soak=5_000))
@given(
    histories(),
    st.builds(
        Within,
        version=st.none() | st.integers(0, 16),
        at=st.none() | moments,
        known_at=st.none() | moments,
    ),
)
def test_a_state_is_the_filtered_history_folded(history, within):
    rows = [
        (version, datetime.fromisoformat(event["time"]) if "time" in event else commit.recorded_at, commit, event)
        for commit in history
        for version, event in enumerate(map(msgspec.json.decode, commit.events), start=commit.first_version)
    ]
    counted = [
        (version, event)
        for version, time, commit, event in rows
        if (within.version is None or version <= within.version)
        and (within.at is None or time <= within.at)
        and (within.known_at is None or commit.recorded_at <= within.known_at)
    ]
    state: Any = {}
    for _, event in counted:
        state = merge(msgspec.json.decode(msgspec.json.encode(state)), event["data"])

    result = fold(history, MERGE_PATCH, within)

    assert result.state == state
    assert result.events_applied == len(counted)
    assert result.version == max((version for version, _ in counted), default=0)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=20))
def test_packing_loses_nothing(events):
    assert unpack(pack(events)) == tuple(events)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_no_two_lists_of_leaves_have_the_same_root(leaves, data):
    other = list(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    other[index] = data.draw(st.binary(max_size=8).filter(lambda leaf: leaf != leaves[index]))

    assert root(map(leaf_hash, leaves)) != root(map(leaf_hash, other))
    assert root(map(leaf_hash, leaves)) != root(map(leaf_hash, leaves[:-1]))
