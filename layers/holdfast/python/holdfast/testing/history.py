"""
What clients asked at the same time, and what they were told, as it can be judged afterwards (`linearizability`).

    recorder = Recorder()
    with suppress(ServiceError):                              # in each client's thread
        recorder.ask("ann", Withdraw(5), lambda: account.withdraw(5))
    linearize(recorder.operations, Balance(0), step)          # when all have ended

Moments are counted, not measured: of two things that were written down, the one with the smaller number came first.
"""

import itertools
import threading
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

import msgspec

from holdfast.errors import ServiceError, Uncertain

C = TypeVar("C")
R = TypeVar("R")

Outcome = Literal["answered", "failed", "unknown"]
"""`failed` says that nothing happened, and `unknown` that something may have, or still may."""


class Operation(msgspec.Struct, Generic[C, R], frozen=True):
    """One thing that was asked, from its beginning to its end."""

    client: str
    asked: C
    invoked: int
    ended: int
    outcome: Outcome
    result: R | None = None
    """What was answered."""

    def __str__(self) -> str:
        end = f"{self.result}" if self.outcome == "answered" else self.outcome
        return f"{self.invoked}-{self.ended} {self.client}: {self.asked} -> {end}"


class Recorder(Generic[C, R]):
    """Writes down what is asked and answered; of all threads, in one order."""

    def __init__(self) -> None:
        self._moments = itertools.count(1)
        self._lock = threading.Lock()
        self._operations: list[Operation[C, R]] = []

    @property
    def operations(self) -> tuple[Operation[C, R], ...]:
        """What has ended by now."""
        with self._lock:
            return tuple(self._operations)

    def ask(self, client: str, asked: C, call: Callable[[], R]) -> R:
        """
        Make a call in the name of *client*, and write it down.

        A refusal that says something of what stands there (a conflict, a stale version) is an answer like any other if
        *call* returns it. Whatever *call* raises travels on: a `ServiceError` means that nothing happened, except for
        `Uncertain`; that and everything else, a process that ends included, leaves the outcome unknown.
        """
        with self._lock:
            invoked = next(self._moments)
        try:
            result = call()
        except BaseException as error:
            is_definite = isinstance(error, ServiceError) and not isinstance(error, Uncertain)
            self._end(client, asked, invoked, "failed" if is_definite else "unknown")
            raise
        self._end(client, asked, invoked, "answered", result)
        return result

    def _end(self, client: str, asked: C, invoked: int, outcome: Outcome, result: Any = None) -> None:
        with self._lock:
            ended = next(self._moments)
            self._operations.append(Operation(client, asked, invoked, ended, outcome, result))
