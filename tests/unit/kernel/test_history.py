"""Finding what a past state needs, while the indexer goes on."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.folds import MERGE_PATCH, Within
from holdfast.log import Hint, Indexer
from tests.generated_history import COMMIT_EVENTS, changes, state_of
from tests.unit.kernel.test_snapshots import STREAM, World

HALF = 4 * COMMIT_EVENTS
END_OF_TIME = datetime(2099, 1, 1, tzinfo=UTC)
"""An event time that leaves nothing out, and makes a state be looked up by blocks."""


class Meanwhile:
    """A transport before whose nth call somebody else does their work."""

    def __init__(self, inner: Any, at: int, act: Callable[[], Any]) -> None:
        self._inner = inner
        self._at = at
        self._act = act
        self.calls = 0

    def call(self, operation: str, request: Any) -> Any:
        self.calls += 1
        if self.calls == self._at:
            self._act()
        return self._inner.call(operation, request)


def index(world: World, version: int) -> None:
    Indexer(world.database, world.tables, lambda broken: pytest.fail(repr(broken))).index(
        [Hint("made", STREAM, version)]
    )


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("seed", range(3))
def test_a_block_that_closes_while_a_state_is_read_counts_once(at, seed):
    """Half of the stream is indexed; the rest is while the state is read, and blocks close under the reader."""
    history = list(changes(2 * HALF, seed))
    world = World(history[:HALF])
    store = world.stores.of("made", "maker")
    for begin in range(HALF, 2 * HALF, COMMIT_EVENTS):
        commit = history[begin : begin + COMMIT_EVENTS]
        world.clock.advance(commit[-1].recorded_at - world.clock.now())
        store.append(STREAM, begin, [change.stored() for change in commit], commit_id=f"c{begin}")
    within = Within(version=random.Random(seed).randrange(HALF + 300, 2 * HALF + 1), at=END_OF_TIME)
    transport: Any = world.transport
    inner = transport.inner

    transport.inner = Meanwhile(inner, at, lambda: index(world, 2 * HALF - COMMIT_EVENTS + 1))
    folded = world.snapshots.state(STREAM, MERGE_PATCH, within).folded
    transport.inner = inner

    assert folded.events_applied == within.version
    assert folded.state == state_of(history, version=within.version)
