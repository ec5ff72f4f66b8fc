"""Faults between us and DynamoDB, told by a plan: which attempt meets which fault."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.dynamodb.transport import Answer, Busy, Transport, Unknown

FaultName = str


class FaultyTransport:
    """A transport whose nth attempt meets the nth fault of its plan; when the plan is over, none."""

    def __init__(self, inner: Transport, plan: Iterable[FaultName | None] = ()) -> None:
        self._inner = inner
        self._plan = iter(plan)
        self.attempts = 0
        self.injected: Counter[str] = Counter()

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        self.attempts += 1
        fault = next(self._plan, None)
        if fault is None:
            return self._inner.call(operation, request)
        self.injected[fault] += 1
        return FAULTS[fault](lambda: self._inner.call(operation, request))


def _lose_request(_: Callable[[], Answer]) -> Answer:
    raise Unknown("the request was lost")


def _lose_reply(call: Callable[[], Answer]) -> Answer:
    try:
        call()
    except Exception as error:
        raise Unknown("the refusal was lost") from error
    raise Unknown("the reply was lost")


def _repeat(call: Callable[[], Answer]) -> Answer:
    """What botocore's own retries do after a lost reply: the caller sees the second answer only."""
    call()
    return call()


def _throttle(_: Callable[[], Answer]) -> Answer:
    raise Busy("ThrottlingException", is_throttle=True)


def _conflict(_: Callable[[], Answer]) -> Answer:
    raise Busy("TransactionConflict", is_throttle=False)


def _fail_after(call: Callable[[], Answer]) -> Answer:
    call()
    raise Unknown("InternalServerError")


FAULTS: dict[FaultName, Callable[[Callable[[], Answer]], Answer]] = {
    "lost_request": _lose_request,
    "lost_reply": _lose_reply,
    "duplicate": _repeat,
    "throttle": _throttle,
    "conflict": _conflict,
    "server_error": _fail_after,
}


class Killed(BaseException):
    """A process that ends between two instructions; nothing catches it."""


class KillingTransport:
    """A transport that dies before or after its nth attempt."""

    def __init__(self, inner: Transport, attempt: int, *, after: bool) -> None:
        self._inner = inner
        self._attempt = attempt
        self._after = after
        self.attempts = 0

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        self.attempts += 1
        if self.attempts == self._attempt and not self._after:
            raise Killed
        answer = self._inner.call(operation, request)
        if self.attempts == self._attempt:
            raise Killed
        return answer
