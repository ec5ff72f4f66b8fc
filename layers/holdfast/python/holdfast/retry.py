"""
Repeat what may be repeated: full-jitter exponential backoff within a named budget, inside one deadline.

A budget bounds one call; a request makes several. Its deadline is one moment for all of them, by which no further
attempt may begin: who answers the request sets it once, and whatever is called on its behalf keeps to it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from holdfast.clock import Clock
from holdfast.errors import Unavailable

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """How often and how long a call is repeated; whichever bound is met first ends it."""

    attempts_max: int = 6
    seconds_max: float = 10.0
    first_wait_seconds: float = 0.025
    longest_wait_seconds: float = 1.0


@dataclass(frozen=True)
class _Deadline:
    moment: float
    clock: Clock
    """The clock that *moment* was read from: monotonic times of two clocks have nothing in common."""


_deadline: ContextVar[_Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline(seconds: float, clock: Clock) -> Iterator[None]:
    """
    Let no attempt begin later than *seconds* from now, in here and in what is called from here.

    A deadline inside another can only be sooner. It is kept in a context variable, so it does not reach a thread
    that is started inside unless that thread runs in a copy of the context.
    """
    outer = _deadline.set(_Deadline(clock.monotonic() + min(seconds, seconds_left()), clock))
    try:
        yield
    finally:
        _deadline.reset(outer)


def seconds_left() -> float:
    """Say how long an attempt may still begin; infinity where nobody set a deadline."""
    running = _deadline.get()
    return float("inf") if running is None else running.moment - running.clock.monotonic()


def check_deadline() -> None:
    """
    Stop before a first attempt for which it is too late.

    Raises:
        Unavailable: `out_of_time`.
    """
    if seconds_left() <= 0:
        raise Unavailable(
            "out_of_time",
            "The time for this request was over before it could be carried out. Nothing happened; repeat.",
            retry_after_seconds=1,
        )


def repeat(
    call: Callable[[], T],
    *,
    on: type[Exception] | tuple[type[Exception], ...],
    budget: Budget,
    clock: Clock,
) -> T:
    """
    Call until it answers, repeating on the exceptions named in *on*.

    Waits are drawn uniformly from zero to a doubling bound ("full jitter"; Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015), so that callers who failed together do not come
    back together. When the budget is spent or the deadline near, the last exception travels on.

    Raises:
        Unavailable: `out_of_time`, and *call* was not made.
    """
    check_deadline()
    started = clock.monotonic()
    try:
        return call()
    except on as error:
        return _repeat_after(error, started, call, on=on, budget=budget, clock=clock)


def _repeat_after(
    first: Exception,
    started: float,
    call: Callable[[], T],
    *,
    on: type[Exception] | tuple[type[Exception], ...],
    budget: Budget,
    clock: Clock,
) -> T:
    """Go on after an attempt that failed. Few calls come here, so few pay for the library."""
    import tenacity  # noqa: PLC0415 - it imports asyncio; most calls do without it

    failures, is_told = [first], False

    def attempt() -> T:
        nonlocal is_told
        # The library counts from the first attempt, which it has not seen: it is told how that went. And a wait may
        # take longer than it was meant to: the exception before it says more than that time is over.
        if not is_told or seconds_left() <= 0:
            is_told = True
            raise failures[-1]
        try:
            return call()
        except on as error:
            failures.append(error)
            raise

    def is_spent(state: tenacity.RetryCallState) -> bool:
        is_over_budget = (
            state.attempt_number >= budget.attempts_max or clock.monotonic() - started >= budget.seconds_max
        )
        return is_over_budget or state.upcoming_sleep >= seconds_left()

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(on),
        wait=tenacity.wait_random_exponential(multiplier=budget.first_wait_seconds, max=budget.longest_wait_seconds),
        stop=is_spent,
        sleep=clock.sleep,
        reraise=True,
    )(attempt)
