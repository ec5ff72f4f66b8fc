"""Transports that meet, delay, lose, write down, date and put to sleep."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from holdfast.clock import ManualClock
from holdfast.dynamodb.transport import Answer, Busy, Unknown


class MeetsANeighbour:
    """The first transactions are cancelled by *neighbour*; everything else goes to the store."""

    def __init__(self, inner: Any, neighbour: Any, times: int) -> None:
        self._inner, self._neighbour, self._times = inner, neighbour, times

    def call(self, operation: str, request: Any) -> Answer:
        if operation == "TransactWriteItems" and self._times:
            self._times -= 1
            return self._neighbour.call(operation, request)
        return self._inner.call(operation, request)


class Delays:
    """The first write of a kind gets no answer, and arrives when a test lets it."""

    def __init__(self, inner: Any, late: list[Callable[[], Answer]], operation: str) -> None:
        self._inner, self._late, self._operation = inner, late, operation
        self.meanwhile: Callable[[], Any] = lambda: None

    def call(self, operation: str, request: Any) -> Answer:
        if operation == self._operation and not self._late:
            self._late.append(lambda: self._inner.call(operation, request))
            self.meanwhile()
            raise Unknown("no answer in time")
        return self._inner.call(operation, request)


class LosesWrites:
    """Every write happens, and no reply to one arrives."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def call(self, operation: str, request: Any) -> Answer:
        if operation in ("Query", "GetItem"):
            return self._inner.call(operation, request)
        try:
            self._inner.call(operation, request)
        except Busy:
            raise
        except Exception as error:
            raise Unknown("lost") from error
        raise Unknown("lost")


class Recorder:
    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.calls: list[tuple[str, Any]] = []

    def call(self, operation: str, request: Any) -> Answer:
        self.calls.append((operation, request))
        return self._inner.call(operation, request)


class DatedTransport:
    """A store whose clock ours is ahead of."""

    def __init__(self, inner: Any, clock: ManualClock, ahead: timedelta = timedelta()) -> None:
        self._inner, self._clock, self.ahead = inner, clock, ahead

    def call(self, operation: str, request: Any) -> Answer:
        return Answer(self._inner.call(operation, request).body, self._clock.now() - self.ahead)


class SleepingTransport:
    """After the first read, only one of the two clocks tells that a minute has passed."""

    def __init__(self, inner: Any, clock: ManualClock, sleep: str) -> None:
        self._inner, self._clock, self._sleep = inner, clock, sleep

    def call(self, operation: str, request: Any) -> Answer:
        answer = self._inner.call(operation, request)
        if operation == "Query":
            self._clock.advance(timedelta(seconds=61))
            if self._sleep == "monotonic":
                self._clock.jump(timedelta(seconds=-61))
            else:
                self._clock._monotonic -= 61
        return answer
