"""
Faults between a program and DynamoDB, told by a plan: which attempt meets which fault.

    transport = FaultyTransport(BotocoreTransport(), [None, "lost_reply"])
    stores = DynamoEventStores(Database.connect(transport), JsonCodec(), tables)

The first attempt is let through, the second happens and nobody hears of it; from then on nothing is in the way. A plan
may be a list for one known place, or drawn at random for as long as it is asked (`at_random`).
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from holdfast.dynamodb.transport import Answer, Busy, Told, Transport, Unknown

FaultName = str
Attempt = Callable[[], Answer]
Later = Callable[[Attempt], None]
"""Lets an attempt arrive when its caller waits for it no more."""


class FaultyTransport:
    """
    A transport whose nth attempt meets the nth fault of its plan; when the plan is over, none.

    What was delayed arrives behind the attempt that is *late_by* later, whoever makes that and whatever for.
    """

    def __init__(self, inner: Transport, plan: Iterable[FaultName | None] = (), *, late_by: int = 1) -> None:
        self._inner = inner
        self._plan = iter(plan)
        self._late_by = late_by
        self._under_way: deque[tuple[int, Attempt]] = deque()
        self.attempts = 0
        self.injected: Counter[FaultName] = Counter()

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        self.attempts += 1
        attempt = partial(self._inner.call, operation, request)
        fault = next(self._plan, None)
        try:
            if fault is None:
                return attempt()
            self.injected[fault] += 1
            return FAULTS[fault](attempt, self._delay)
        finally:
            self._arrive(self.attempts)

    def arrive(self) -> None:
        """Let everything arrive that is still under way."""
        self._arrive(None)

    def _delay(self, attempt: Attempt) -> None:
        self._under_way.append((self.attempts + self._late_by, attempt))

    def _arrive(self, until: int | None) -> None:
        while self._under_way and (until is None or self._under_way[0][0] <= until):
            _, attempt = self._under_way.popleft()
            with suppress(Told):  # whatever is answered, nobody listens
                attempt()


def at_random(
    noise: random.Random, share: float, kinds: Sequence[FaultName] | None = None
) -> Iterator[FaultName | None]:
    """Draw a plan without an end, in which a *share* of the attempts, 0 to 1, meets one of *kinds* (by default any)."""
    chosen = sorted(FAULTS) if kinds is None else list(kinds)
    while True:
        yield noise.choice(chosen) if noise.random() < share else None


def _lose_request(_: Attempt, __: Later) -> Answer:
    raise Unknown("the request was lost")


def _lose_reply(attempt: Attempt, _: Later) -> Answer:
    try:
        attempt()
    except Told as told:
        raise Unknown("the refusal was lost") from told
    raise Unknown("the reply was lost")


def _repeat(attempt: Attempt, _: Later) -> Answer:
    """Do what a client's own retries do after a lost reply: the caller sees the second answer only."""
    with suppress(Told):
        attempt()
    return attempt()


def _delay(attempt: Attempt, later: Later) -> Answer:
    later(attempt)
    raise Unknown("no answer in time")


def _throttle(_: Attempt, __: Later) -> Answer:
    raise Busy("ThrottlingException", is_throttle=True)


def _conflict(_: Attempt, __: Later) -> Answer:
    raise Busy("TransactionConflict", is_throttle=False)


def _fail_after(attempt: Attempt, _: Later) -> Answer:
    attempt()
    raise Unknown("InternalServerError")


FAULTS: Final[Mapping[FaultName, Callable[[Attempt, Later], Answer]]] = {
    "lost_request": _lose_request,
    "lost_reply": _lose_reply,
    "duplicate": _repeat,
    "delay": _delay,
    "throttle": _throttle,
    "conflict": _conflict,
    "server_error": _fail_after,
}
"""Every kind, by its name."""
