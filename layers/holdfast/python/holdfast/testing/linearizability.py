"""
Whether what clients saw at the same time could have been seen one after the other.

A history is linearizable if every operation can be given one moment between its call and its end, such that a
sequential model, asked in the order of these moments, answers the same (Herlihy and Wing, "Linearizability: A
Correctness Condition for Concurrent Objects", ACM TOPLAS 12(3), 1990). A history of many keys is linearizable if that
of each key is, so judge them one by one: the search is short for short histories only.

The search is Wing and Gong's ("Testing and Verifying Concurrent Objects", Journal of Parallel and Distributed
Computing 17, 1993): whatever was asked before the first answer among what is left may be next. It remembers where it
has been, as Lowe's does ("Testing for Linearizability", Concurrency and Computation: Practice and Experience 29(4),
2017): two orders of the same operations that lead to the same state go on alike.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from holdfast.testing.history import Operation

S = TypeVar("S", bound=Hashable)
C = TypeVar("C")
R = TypeVar("R")

Step = Callable[[S, C], Iterable[tuple[S, R]]]
"""The model: from a state and what is asked, every state that may follow, with the answer that is given then."""

OPERATIONS_MAX: Final = 100
"""Of one history, those that say nothing not counted."""
PLACES_MAX: Final = 100_000
"""Places of the search, each a set of operations and a state; beyond it, the history is too wide to be judged."""


class NotLinearizable(AssertionError):
    """No order explains what the clients were told. *order* is the longest that explains a part of it."""

    def __init__(self, order: Sequence[Operation[Any, Any]], left: Sequence[Operation[Any, Any]]) -> None:
        lines = ["No order explains this history. In the longest one that was found", *map(str, order)]
        super().__init__("\n  ".join([*lines, "nothing of this can be next:", *map(str, left)]))
        self.order = tuple(order)


class Undecided(Exception):
    """The history is too long or too wide to be judged: let fewer clients ask less."""


def linearize(operations: Iterable[Operation[C, R]], start: S, step: Step[S, C, R]) -> tuple[Operation[C, R], ...]:
    """
    Find an order of *operations*, one after the other from *start*, in which the model answers what was answered.

    What failed has no place in it. What is unknown has one if it helps: it may have happened at any time since it was
    asked, also after its end, or never.

    Raises:
        NotLinearizable: there is none.
        Undecided: a bound is exceeded.
    """
    told = [operation for operation in operations if operation.outcome != "failed"]
    if len(told) > OPERATIONS_MAX:
        raise Undecided(f"{len(told)} operations, and {OPERATIONS_MAX} are judged at most")
    search = _Search(told, step)
    if search.goes_on(0, start):
        return tuple(search.order)
    raise NotLinearizable(search.longest, [each for each in told if each not in search.longest])


class _Search(Generic[S, C, R]):
    """Sets of operations are bits: a place is what has been put in order so far, and the state it leads to."""

    def __init__(self, told: Sequence[Operation[C, R]], step: Step[S, C, R]) -> None:
        # Who was answered early stood early, more often than not.
        self._told = sorted(told, key=_end)
        self._step = step
        self._answered = sum(1 << at for at, each in enumerate(self._told) if each.outcome == "answered")
        self._been: set[tuple[int, S]] = set()
        self.order: list[Operation[C, R]] = []
        self.longest: list[Operation[C, R]] = []

    def goes_on(self, done: int, state: S) -> bool:
        """Tell whether an order of what is not *done* explains it; then it stands behind the order so far."""
        if not self._answered & ~done:
            return True
        if (done, state) in self._been:
            return False
        self._been.add((done, state))
        if len(self._been) > PLACES_MAX:
            raise Undecided(f"the search came to more than {PLACES_MAX} places")
        for at, after in self._nexts(done, state):
            self.order.append(self._told[at])
            if len(self.order) > len(self.longest):
                self.longest = list(self.order)
            if self.goes_on(done | 1 << at, after):
                return True
            self.order.pop()
        return False

    def _nexts(self, done: int, state: S) -> Iterator[tuple[int, S]]:
        left = [at for at in range(len(self._told)) if not done >> at & 1]
        first_end = min(_end(self._told[at]) for at in left)
        for at in left:
            operation = self._told[at]
            if operation.invoked > first_end:
                continue
            for after, result in self._step(state, operation.asked):
                # What nobody was told of, and changed nothing, explains nothing.
                is_so = after != state if operation.outcome == "unknown" else result == operation.result
                if is_so:
                    yield at, after


def _end(operation: Operation[Any, Any]) -> float:
    """Say when an operation has happened at the latest."""
    return operation.ended if operation.outcome == "answered" else float("inf")
