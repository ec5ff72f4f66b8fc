"""Repeat what may be repeated: full-jitter exponential backoff within a named budget."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from holdfast.clock import Clock

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """How often and how long a call is repeated; whichever bound is met first ends it."""

    attempts_max: int = 6
    seconds_max: float = 10.0
    first_wait_seconds: float = 0.025
    longest_wait_seconds: float = 1.0


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
    back together. When the budget is spent, the last exception travels on.
    """
    started = clock.monotonic()

    def is_spent(state: tenacity.RetryCallState) -> bool:
        return state.attempt_number >= budget.attempts_max or clock.monotonic() - started >= budget.seconds_max

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(on),
        wait=tenacity.wait_random_exponential(multiplier=budget.first_wait_seconds, max=budget.longest_wait_seconds),
        stop=is_spent,
        sleep=clock.sleep,
        reraise=True,
    )(call)
