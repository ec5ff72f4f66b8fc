"""
Threads that take turns: one runs at a time, and at each call a seed decides who goes on.

Threads left to themselves meet at a few places, others each time, and in memory hardly ever: one has ended before the
next has begun. Here they meet between any two calls, and the same seed makes them meet in the same places.

    turns = Turns(random.Random(7))
    turns.run([lambda: buy(turns.wrap(transport), name) for name in ("ann", "bob")])
"""

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from holdfast.testing.ports import watched

P = TypeVar("P")

TURN_SECONDS_MAX: Final = 60.0
"""How long all others may take before a thread gives up waiting: something is waited for that takes no turns."""


class Turns:
    """Turns of threads, drawn from *noise*."""

    def __init__(self, noise: random.Random) -> None:
        self._noise = noise
        self._gates: list[threading.Semaphore] = []
        self._running: list[int] = []
        self._faults: list[BaseException] = []
        self._mine = threading.local()

    def wrap(self, port: P) -> P:
        """Give a stand-in for *port*, before each call on which another thread may go on."""
        return watched(port, self._give_way)

    def run(self, acts: Sequence[Callable[[], object]]) -> None:
        """
        Run every act in a thread of its own, until all have ended.

        Raises what the first of them raised that did not end well.
        """
        self._gates = [threading.Semaphore(0) for _ in acts]
        self._running = list(range(len(acts)))
        threads = [
            threading.Thread(target=self._run_one, args=(number, act), daemon=True) for number, act in enumerate(acts)
        ]
        for thread in threads:
            thread.start()
        self._pass_on()
        for thread in threads:
            thread.join()
        if self._faults:
            raise self._faults[0]

    def _run_one(self, number: int, act: Callable[[], object]) -> None:
        self._mine.number = number
        try:
            self._wait()
            act()
        except BaseException as error:  # noqa: BLE001 - told by `run`, in the caller's thread
            self._faults.append(error)
        finally:
            self._running.remove(number)
            self._pass_on()

    def _give_way(self, _: str, call: Callable[[], Any]) -> Any:
        # Who has no turn (the caller of `run`, before and after it) gives none away.
        if hasattr(self._mine, "number"):
            self._pass_on()
            self._wait()
        return call()

    def _pass_on(self) -> None:
        if self._running:
            self._gates[self._noise.choice(self._running)].release()

    def _wait(self) -> None:
        if not self._gates[self._mine.number].acquire(timeout=TURN_SECONDS_MAX):
            raise TimeoutError("A thread holds its turn, and does not come to its next call.")
