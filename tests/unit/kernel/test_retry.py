"""One deadline for all that a request asks: no attempt begins behind it, and no wait ends there."""

import contextvars
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from holdfast.clock import ManualClock
from holdfast.errors import Unavailable
from holdfast.retry import Budget, check_deadline, deadline, repeat, seconds_left

PATIENT = Budget(attempts_max=1_000, seconds_max=1_000.0)


class Silent(Exception):
    """What a call tells that has waited in vain."""


def silent(clock: ManualClock, begun: list[float], *, seconds: float) -> Callable[[], None]:
    """Make a call that is never answered, and notes when each attempt began."""

    def call() -> None:
        begun.append(clock.monotonic())
        clock.advance(timedelta(seconds=seconds))
        raise Silent

    return call


@pytest.mark.parametrize("_", range(20))  # the waits are drawn
def test_no_attempt_begins_behind_the_deadline_and_no_wait_ends_there(_: int):
    clock, begun = ManualClock(), list[float]()

    with deadline(20, clock), pytest.raises(Silent):
        repeat(silent(clock, begun, seconds=3), on=Silent, budget=PATIENT, clock=clock)

    assert begun[0] == 0
    assert 4 <= len(begun) <= 7
    assert all(moment < 20 for moment in begun)
    assert clock.monotonic() < 23


def test_a_call_that_would_begin_behind_the_deadline_is_not_made():
    clock, begun = ManualClock(), list[float]()

    with deadline(20, clock):
        clock.advance(timedelta(seconds=20))
        with pytest.raises(Unavailable) as told:
            repeat(silent(clock, begun, seconds=0), on=Silent, budget=PATIENT, clock=clock)

    assert (told.value.code, told.value.http_status, told.value.retryable) == ("out_of_time", 503, True)
    assert told.value.retry_after_seconds == 1
    assert begun == []


def test_calls_one_after_another_share_the_time():
    clock, begun = ManualClock(), list[float]()
    each = Budget(attempts_max=3)

    with deadline(20, clock):
        for _ in range(2):
            with pytest.raises(Silent):
                repeat(silent(clock, begun, seconds=5), on=Silent, budget=each, clock=clock)
        with pytest.raises(Unavailable, match="out_of_time"):
            repeat(silent(clock, begun, seconds=5), on=Silent, budget=each, clock=clock)

    assert len(begun) in (4, 5)
    assert clock.monotonic() < 26


def test_a_wait_that_overruns_the_deadline_leaves_the_last_exception_and_no_attempt():
    class Drowsy(ManualClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds + 60)

    clock, begun = Drowsy(), list[float]()

    with deadline(20, clock), pytest.raises(Silent):
        repeat(silent(clock, begun, seconds=0), on=Silent, budget=PATIENT, clock=clock)

    assert begun == [0]


def test_a_deadline_inside_another_can_only_be_sooner():
    clock = ManualClock()

    with deadline(20, clock):
        with deadline(30, clock):
            assert seconds_left() == 20
        with deadline(5, ManualClock()):
            assert seconds_left() == 5
        assert seconds_left() == 20


def test_a_deadline_ends_with_its_request_even_when_that_fails():
    with pytest.raises(Silent), deadline(0, ManualClock()):
        raise Silent

    assert seconds_left() == float("inf")
    check_deadline()


def test_a_deadline_keeps_to_its_own_clock():
    ours, theirs = ManualClock(), ManualClock()
    theirs.advance(timedelta(days=1))

    with deadline(20, ours):
        assert repeat(lambda: "answer", on=Silent, budget=PATIENT, clock=theirs) == "answer"


def test_a_deadline_reaches_a_thread_by_a_copy_of_the_context():
    seen = list[float]()

    with deadline(20, ManualClock()):
        copied = contextvars.copy_context()
        for target in (seconds_left, lambda: copied.run(seconds_left)):
            thread = threading.Thread(target=lambda target=target: seen.append(target()))
            thread.start()
            thread.join(timeout=10)

    assert seen == [float("inf"), 20]
