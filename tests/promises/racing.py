"""Many writers at the same time."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from holdfast.errors import ServiceError, Unavailable
from holdfast.streams import ANY, StaleStream, transact
from tests.promises.events import event, events_of

THREADS = 8


class Racing:
    """See `EventStorePromises`."""

    def test_of_many_writers_at_one_boundary_one_wins(self, store):
        outcomes = self._race(lambda n: store.append("hot", 0, [event(n)], commit_id=f"w{n}"))

        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Appended"] + ["StaleStream"] * (THREADS - 1)
        winner = store.last("hot")
        losers = [outcome for outcome in outcomes if isinstance(outcome, StaleStream)]
        assert {loser.winner.commit_id for loser in losers if loser.winner} == {winner.commit_id}

    def test_any_appends_of_many_writers_all_stand_once(self, store):
        def append(n: int) -> Any:
            for _ in range(20):
                with contextlib.suppress(Unavailable):
                    return store.append("hot", ANY, [event(n)], commit_id=f"w{n}")
            raise AssertionError("no end of contention")

        outcomes = self._race(append)

        assert sorted(outcome.version for outcome in outcomes) == list(range(1, THREADS + 1))
        assert sorted(events_of(list(store.read("hot")))) == sorted(event(n) for n in range(THREADS))

    def test_of_many_copies_of_a_call_one_decides_and_all_have_its_state(self, store):
        states = self._race(lambda n: transact(store, "hot", list, lambda _: [event(n)], commit_id="mine"))

        assert states == [events_of(list(store.read("hot")))] * THREADS
        assert len(states[0]) == 1

    def _race(self, call: Callable[[int], Any]) -> list[Any]:
        outcomes: list[Any] = [None] * THREADS
        barrier = threading.Barrier(THREADS, timeout=30)

        def run(number: int) -> None:
            barrier.wait()
            try:
                outcomes[number] = call(number)
            except ServiceError as error:
                outcomes[number] = error

        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        return outcomes
