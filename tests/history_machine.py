"""
Anything that can be done to a history, in any order and cut off anywhere, by a machine that draws it (Hypothesis).

It is run on the store in memory and on the running engine; both must answer as a plain list would.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast import snapshots
from holdfast.errors import Conflict, Invalid
from holdfast.folds import MERGE_PATCH, Within
from holdfast.log import blocks
from holdfast.streams import ANY, StaleStream
from holdfast.testing import Fuse
from tests.history_world import Asked, Happening, HistoryWorld, killed, refused_with

STREAMS = ("s/1", "s/2")
SUBJECTS = ("ann", "bob")
MEMBERS = "abcd"
LATE_MINUTES_MAX = 300
POINTS = 5
"""Asked for at once, of each stream."""


def run(histories: int, world: Callable[[], HistoryWorld] = HistoryWorld, *, steps: int = 20) -> None:
    """Draw so many histories, of so many steps at most, each of a world of its own."""
    machine = settings(
        max_examples=histories,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    with small_blocks():
        # It calls what it is given, and says that this may be any factory.
        run_state_machine_as_test(lambda: History(world()), settings=machine)  # type: ignore[arg-type]


@contextmanager
def small_blocks() -> Iterator[None]:
    """Let a few events do what otherwise takes thousands: close blocks of all levels, and be worth a snapshot."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "COMMITS_MAX", 3)
        patch.setattr(blocks, "EVENTS_CLOSE", 4)
        patch.setattr(blocks, "FANOUT", 2)
        patch.setattr(snapshots, "EVENTS_MIN", 2)
        patch.setattr(snapshots, "READ_ALONG", 2)
        patch.setattr(snapshots, "KEPT_AT_ONCE_MAX", 3)
        yield


streams = st.sampled_from(STREAMS)
patches = st.dictionaries(st.sampled_from(MEMBERS), st.none() | st.integers(0, 9), min_size=1, max_size=2)
happenings = st.builds(
    Happening,
    minutes_late=st.sampled_from([0, 0, 0, 1, 30, LATE_MINUTES_MAX]),
    patch=patches,
    subject=st.sampled_from([None] * 10 + [*SUBJECTS]),
)
few = st.lists(happenings, min_size=1, max_size=3)
fuses = st.builds(Fuse, st.integers(1, 12), after=st.booleans())


def many(count: int, subject: str | None = None) -> list[Happening]:
    """Many of one commit, all about one subject or none, so that there are snapshots sealed and in the open."""
    return [Happening(number % 7, {MEMBERS[number % len(MEMBERS)]: number}, subject) for number in range(count)]


class History(RuleBasedStateMachine):
    """One tenant."""

    def __init__(self, world: HistoryWorld) -> None:
        super().__init__()
        self.world = world
        self.rebuilds = itertools.count()

    @initialize(stream=streams, count=st.sampled_from([0, 1, 9, 30]))
    def begin(self, stream: str, count: int) -> None:
        if count:
            self.appended((stream,), (0,), many(count))

    def appended(self, names: tuple[str, ...], expected: tuple[Any, ...], what: list[Happening]) -> None:
        asked = self.world.wish(names, expected, what)
        if asked.subjects & self.world.erased:
            refused_with(Conflict, "subject_erased", lambda: self.world.ask(asked))
            return
        self.world.acknowledged(asked, self.world.ask(asked))

    # ----- appends: of all three modes, of several streams, repeated, forged, cut off

    @rule(stream=streams, what=few)
    def append_where_it_ends(self, stream: str, what: list[Happening]) -> None:
        self.appended((stream,), (self.world.end(stream),), what)

    @rule(stream=streams, what=few)
    def append_wherever_it_ends(self, stream: str, what: list[Happening]) -> None:
        self.appended((stream,), (ANY,), what)

    @rule(stream=streams, what=few)
    def append_on_a_boundary_that_is_held(self, stream: str, what: list[Happening]) -> None:
        newest = self.world.store().last(stream)
        self.appended((stream,), (newest.boundary if newest else 0,), what)

    @rule(names=st.permutations(STREAMS).map(tuple), what=few, expects_any=st.booleans())
    def append_to_two(self, names: tuple[str, ...], what: list[Happening], *, expects_any: bool) -> None:
        expected = tuple(ANY if expects_any else self.world.end(name) for name in names)
        self.appended(names, expected, what)

    @rule(stream=streams, subject=st.sampled_from([None, None, *SUBJECTS]))
    def append_many_at_once(self, stream: str, subject: str | None) -> None:
        self.appended((stream,), (self.world.end(stream),), many(12, subject))

    @rule(stream=streams, off=st.sampled_from([-3, -1, 1, 5]), what=few)
    def forge_an_expectation(self, stream: str, off: int, what: list[Happening]) -> None:
        expected = max(0, self.world.end(stream) + off)
        if expected == self.world.end(stream):
            return
        asked = self.world.wish((stream,), (expected,), what)
        if not asked.subjects & self.world.erased:
            stale = refused_with(StaleStream, "stale", lambda: self.world.ask(asked))
            assert stale.facts["last_version"] == self.world.end(stream)

    def again(self, choices: st.DataObject) -> Asked | None:
        repeatable = [each for each in self.world.asked if not each.subjects & self.world.erased]
        return choices.draw(st.sampled_from(repeatable)) if repeatable else None

    @precondition(lambda self: self.world.asked)
    @rule(choices=st.data())
    def repeat_a_call(self, choices: st.DataObject) -> None:
        asked = self.again(choices)
        if asked:
            answers = self.world.ask(asked)
            assert all(answer.is_replay for answer in answers)
            facts = [(one.stream, one.first_version, one.version, one.recorded_at) for one in answers]
            assert facts == [(one.stream, one.first_version, one.version, one.recorded_at) for one in asked.answers]

    @precondition(lambda self: self.world.asked)
    @rule(choices=st.data())
    def use_an_id_for_something_else(self, choices: st.DataObject) -> None:
        asked = self.again(choices)
        if asked:
            other = tuple(tuple({**event, "type": "other"} for event in events) for events in asked.events)
            forged = Asked(asked.streams, asked.expected, other, asked.commit_id)
            refused_with(Invalid, "idempotency_mismatch", lambda: self.world.ask(forged))

    @rule(stream=streams, what=few, fuse=fuses, expects_any=st.booleans())
    def append_and_die(self, stream: str, what: list[Happening], fuse: Fuse, *, expects_any: bool) -> None:
        """Whoever was cut off asks again, and it is there once."""
        asked = self.world.wish((stream,), (ANY if expects_any else self.world.end(stream),), what)
        if not asked.subjects & self.world.erased:
            killed(fuse, self.world.lab.transport, lambda transport: self.world.ask(asked, transport))
            self.world.acknowledged(asked, self.world.ask(asked))

    # ----- what runs behind it, whole or cut off

    @rule()
    def what_follows_the_log_catches_up(self) -> None:
        self.world.catch_up()
        for stream in self.world.told:
            self.world.snapshots().keep(stream, MERGE_PATCH)

    @rule(fuse=fuses)
    def the_indexer_dies(self, fuse: Fuse) -> None:
        def act(transport: Any) -> None:
            self.world.lab.indexer(transport).index(self.world.hints())

        killed(fuse, self.world.lab.transport, act)

    @rule(fuse=fuses, partition=st.integers(0, 3))
    def the_projector_dies(self, fuse: Fuse, partition: int) -> None:
        def act(transport: Any) -> None:
            self.world.projector(transport).project(self.world.lab.tenant, partition)

        killed(fuse, self.world.lab.transport, act)

    @rule(stream=streams, fuse=fuses)
    def the_snapshooter_dies(self, stream: str, fuse: Fuse) -> None:
        killed(
            fuse, self.world.lab.transport, lambda transport: self.world.snapshots(transport).keep(stream, MERGE_PATCH)
        )

    @rule()
    def old_commits_are_archived(self) -> None:
        self.world.catch_up()
        self.world.archive()

    @rule(fuse=fuses)
    def the_archiver_dies(self, fuse: Fuse) -> None:
        killed(fuse, self.world.lab.transport, self.world.archive)

    @rule(view=st.sampled_from(["every", "per-stream"]), fuse=st.none() | fuses)
    def a_view_is_made_again(self, view: str, fuse: Fuse | None) -> None:
        self.world.catch_up()
        done = self.world.rebuild(view, next(self.rebuilds), fuse)
        assert done.state == "flipped"

    @precondition(lambda self: self.world.asked)
    @rule(choices=st.data(), is_followed=st.booleans())
    def a_subject_is_erased(self, choices: st.DataObject, *, is_followed: bool) -> None:
        known = sorted(set().union(*(each.subjects for each in self.world.asked)))
        if known:
            if is_followed:
                self.what_follows_the_log_catches_up()
            self.world.erase(choices.draw(st.sampled_from(known)))

    # ----- and whatever is asked

    @precondition(lambda self: self.world.told)
    @rule(seed=st.integers(0, 2**32))
    def travel(self, seed: int) -> None:
        chance = random.Random(seed)
        for stream, told in self.world.told.items():
            for _ in range(POINTS):
                version = chance.choice([None, None, chance.randrange(len(told) + 1)])
                at = chance.choice([None, chance.choice(told).time])
                known_at = chance.choice([None, chance.choice(told).recorded_at])
                self.world.check_state(stream, Within(version, at, known_at))

    @invariant()
    def no_end_is_lost(self) -> None:
        for stream, told in self.world.told.items():
            newest = self.world.store().last(stream)
            assert newest
            assert newest.version == len(told)

    def teardown(self) -> None:
        if self.world.told:
            self.what_follows_the_log_catches_up()
            self.travel(0)
        self.world.check()
