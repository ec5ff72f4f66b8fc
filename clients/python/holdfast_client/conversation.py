"""
One call as a conversation: what is sent, what is repeated, and what its end means. Pure; no I/O.

A `Call` is a value: its bytes are built once, and so is its idempotency key, because a repeat must be
the same call and not a similar one. `Call.converse` is a generator that yields attempts and is sent
outcomes; `transport` drives it, once blocking and once awaiting (the manner of httpx's `_auth.py`).
"""

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar

import msgspec

from holdfast_client.errors import (
    Failure,
    HoldfastError,
    StatusClass,
    Unavailable,
    Uncertain,
    read_failure,
    status_class,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """How often and how long one logical call is tried; whichever bound is met first ends it."""

    attempts_max: int = 6
    seconds_max: float = 45.0
    first_wait_seconds: float = 0.1
    longest_wait_seconds: float = 5.0


class Request(msgspec.Struct, frozen=True):
    """The bytes of a call, and whether they may change something."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes = b""
    idempotency_key: str | None = None
    """Sent with every call that changes something, and with no other."""

    def __repr__(self) -> str:
        # Without the headers' values: one of them is the token.
        return f"Request({self.method} {self.url}, headers={sorted(self.headers)}, {len(self.content)} bytes)"

    @property
    def is_write(self) -> bool:
        return self.idempotency_key is not None


class Attempt(msgspec.Struct, frozen=True):
    """Wait, then send these bytes; an answer that is not whole within *seconds_max* after that is a lost one."""

    request: Request
    after_seconds: float
    seconds_max: float


class Answer(msgspec.Struct, frozen=True):
    """A whole HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        return status_class(self.status) is StatusClass.SUCCESS


class NoAnswer(msgspec.Struct, frozen=True):
    """An attempt without an answer."""

    reason: str
    may_have_arrived: bool
    """False only if the request cannot have reached the service: no connection was made."""


Outcome = Answer | NoAnswer
Conversation = Generator[Attempt, Outcome, T]


@dataclass(frozen=True)
class Judgement:
    """What one failed attempt says."""

    error: HoldfastError
    may_repeat: bool
    is_open: bool
    """This attempt may have been carried out although it brought no success."""
    settles: bool
    """It tells of the *earlier* attempts too: the service looked at the key, or at bytes that never change."""
    retry_after_seconds: float = 0.0


@dataclass(frozen=True)
class Call(Generic[T]):
    """One logical call: a request, and how its answer is read."""

    request: Request
    read: Callable[[Answer], T]

    def converse(
        self,
        budget: Budget,
        monotonic: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> Conversation[T]:
        """
        Try until the answer is definite or the budget is spent.

        Waits are drawn uniformly from zero to a doubling bound ("full jitter"; Brooker, "Exponential
        Backoff And Jitter", AWS Architecture Blog, 2015); a `Retry-After` is the least wait.

        Raises:
            Uncertain: a write of which an attempt may have been carried out, and nothing since has told.
            HoldfastError: a definite failure.
        """
        ends_at = monotonic() + budget.seconds_max
        longest_wait, left = budget.first_wait_seconds, budget.seconds_max
        attempts, wait, is_open = 0, 0.0, False
        while True:
            outcome = yield Attempt(self.request, wait, left)
            attempts += 1
            match outcome:
                case NoAnswer():
                    judgement = _judge_silence(outcome)
                case Answer(is_success=True):
                    try:
                        return self.read(outcome)
                    except msgspec.MsgspecError as error:
                        judgement = _judge_unreadable(outcome, error)
                case Answer():
                    judgement = judge(outcome)
            is_open = judgement.is_open or (is_open and not judgement.settles)
            wait = max(draw(0, longest_wait), judgement.retry_after_seconds)
            longest_wait = min(longest_wait * 2, budget.longest_wait_seconds)
            left = ends_at - monotonic() - wait
            is_spent = attempts >= budget.attempts_max or left <= 0
            if judgement.may_repeat and not is_spent:
                continue
            if is_open and self.request.idempotency_key is not None:
                raise Uncertain(self.request.idempotency_key, judgement.error) from judgement.error
            raise judgement.error


REPEATED_STATUSES = frozenset({429, 502, 503, 504})

ANSWERED_BEFORE_THE_KEY = frozenset({401, 403, 404, 405, 408, 425, 429})
"""
Refusals that are made before the service looks at the idempotency key.

They are definite about their own attempt, but say nothing of an earlier one whose reply was lost: a
token may expire, or a limit be reached, between the two. Every other refusal below 500 rests on the
bytes, which never change, or on the key, by which the service would have known our own success.
"""

NOTHING_HAPPENED = frozenset(
    {
        "boundary_expired",
        "clock_skew",
        "contended",
        "cursor_key_unknown",
        "keys_unavailable",
        "not_in_log_yet",
        "not_recorded",
        "out_of_time",
        "revocations_unknown",
        "signer_unavailable",
        "store_unavailable",
        "token_keys_unknown",
        "view_behind",
    }
)
"""
The codes of answers from 500 on that promise it; from any other, a write may have been carried out.

It lists what is safe and not what is doubtful: a code that nobody has thought of here is doubtful.
"""


def judge(answer: Answer) -> Judgement:
    """Say what an answer that is no success means for its own attempt and for those before it."""
    failure = read_failure(answer.status, answer.headers.get("x-amzn-requestid"), answer.body)
    return Judgement(
        failure.error,
        may_repeat=answer.status in REPEATED_STATUSES or failure.retryable,
        is_open=_may_have_happened(answer, failure),
        settles=status_class(answer.status) is StatusClass.REFUSAL and answer.status not in ANSWERED_BEFORE_THE_KEY,
        retry_after_seconds=_retry_after_seconds(answer.headers.get("retry-after")),
    )


def _judge_silence(silence: NoAnswer) -> Judgement:
    error = Unavailable("no_answer", silence.reason)
    return Judgement(error, may_repeat=True, is_open=silence.may_have_arrived, settles=False)


def _judge_unreadable(answer: Answer, error: msgspec.MsgspecError) -> Judgement:
    """A success that cannot be read says that something happened, but not what."""
    unreadable = Unavailable(
        "unreadable_answer",
        f"The service answered {answer.status} with something that this client cannot read: {error}",
        status=answer.status,
    )
    return Judgement(unreadable, may_repeat=True, is_open=True, settles=False)


def _may_have_happened(answer: Answer, failure: Failure) -> bool:
    if failure.error.code == "in_progress":
        # Our own key, in flight: an earlier attempt is being carried out right now.
        return True
    return status_class(answer.status) is StatusClass.FAULT and failure.error.code not in NOTHING_HAPPENED


def _retry_after_seconds(header: str | None) -> float:
    """Read `Retry-After` (RFC 9110, section 10.2.3): seconds or a date; what is neither asks for nothing."""
    if header is None:
        return 0.0
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
