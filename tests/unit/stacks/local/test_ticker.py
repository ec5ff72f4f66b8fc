"""Ticks on a function that is made up; how it goes on the engine is in tests/local/platform."""

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from stacks.local import ticker
from stacks.local.profile import Schedule
from stacks.local.ticker import Ticker

MINUTE = 60.0
QUICKLY = 6_000.0
"""A minute in 10 ms."""
PATIENCE_SECONDS = 5.0


@dataclass
class Functions:
    """Stands in for Lambda: writes down who was invoked with what, and then does what it is told."""

    then: Callable[[str], dict[str, Any]] = lambda _name: {}
    invoked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)
    most_at_once: dict[str, int] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)

    def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803 - boto3 names them so
        with self.lock:
            self.invoked.append((FunctionName, json.loads(Payload)))
            self.running[FunctionName] = self.running.get(FunctionName, 0) + 1
            self.most_at_once[FunctionName] = max(self.most_at_once.get(FunctionName, 0), self.running[FunctionName])
        try:
            answer = self.then(FunctionName)
        finally:
            with self.lock:
                self.running[FunctionName] -= 1
        return {"Payload": io.BytesIO(b"the end"), **answer}

    def count(self, name: str) -> int:
        with self.lock:
            return [function for function, _ in self.invoked].count(name)


@pytest.fixture
def functions() -> Functions:
    return Functions()


@pytest.fixture
def running(functions: Functions) -> Iterator[Ticker]:
    made = Ticker(lambda _service: functions, speedup=QUICKLY)
    yield made
    made.stop()


def every(name: str, seconds: float = MINUTE, **given: Any) -> Schedule:
    return Schedule(rule=f"{name}Schedule", function_name=name, every_seconds=seconds, **given)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_minute_passes_in_five_seconds_here():
    assert MINUTE / ticker.SPEEDUP == 5


def test_a_function_is_invoked_again_and_again_with_a_scheduled_event(functions: Functions, running: Ticker):
    running.tick([every("anchor")])

    wait_until(lambda: functions.count("anchor") >= 3)

    events = [event for _, event in functions.invoked]
    assert {event["detail-type"] for event in events} == {"Scheduled Event"}
    assert events[0]["resources"][0].endswith(":rule/anchorSchedule")
    assert len({event["id"] for event in events}) == len(events)


def test_a_function_gets_the_input_that_its_rule_names(functions: Functions, running: Ticker):
    running.tick([every("anchor", payload='{"sweep": true}')])

    wait_until(lambda: functions.count("anchor") > 0)

    assert functions.invoked[0][1] == {"sweep": True}


def test_who_has_a_longer_rate_is_invoked_less_often(functions: Functions, running: Ticker):
    running.tick([every("often"), every("seldom", seconds=100 * 24 * 3_600)])

    wait_until(lambda: functions.count("often") >= 5)

    assert functions.count("seldom") == 0


def test_a_function_is_never_invoked_beside_itself_and_holds_up_no_other(functions: Functions, running: Ticker):
    released = threading.Event()
    functions.then = lambda name: {"waited": released.wait(PATIENCE_SECONDS)} if name == "slow" else {}
    running.tick([every("slow"), every("slow", seconds=2 * MINUTE), every("quick")])

    wait_until(lambda: functions.count("quick") >= 10)
    assert functions.count("slow") == 1
    released.set()
    wait_until(lambda: functions.count("slow") >= 4)

    assert functions.most_at_once["slow"] == 1


def test_what_fails_is_told_once_and_goes_on(functions: Functions, running: Ticker, caplog: pytest.LogCaptureFixture):
    functions.then = lambda _name: {"FunctionError": "Unhandled", "Payload": io.BytesIO(b"it broke")}
    with caplog.at_level(logging.WARNING):
        running.tick([every("anchor")])
        wait_until(lambda: functions.count("anchor") >= 5)
        running.stop()

    assert functions.count("anchor") < ticker.FAILURES_BETWEEN_WORDS
    [told] = [record.getMessage() for record in caplog.records]
    assert told.startswith("anchor, ticked by anchorSchedule, failed: it broke")


def test_a_function_that_goes_on_failing_is_told_of_again(
    functions: Functions, running: Ticker, caplog: pytest.LogCaptureFixture
):
    functions.then = lambda _name: {"FunctionError": "Unhandled"}
    with caplog.at_level(logging.WARNING):
        running.tick([every("anchor")])
        wait_until(lambda: functions.count("anchor") > ticker.FAILURES_BETWEEN_WORDS)
        running.stop()

    assert len(caplog.records) >= 2


def test_an_engine_that_does_not_answer_is_asked_again_at_the_next_tick(
    functions: Functions, running: Ticker, caplog: pytest.LogCaptureFixture
):
    def refuse(_name: str) -> dict[str, Any]:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    functions.then = refuse
    with caplog.at_level(logging.WARNING):
        running.tick([every("anchor")])
        wait_until(lambda: functions.count("anchor") >= 3)

    assert running.is_alive()
    assert "anchor, ticked by anchorSchedule, cannot be invoked" in caplog.records[0].getMessage()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_schedule_that_met_a_bug_is_dead_and_says_so(functions: Functions, running: Ticker):
    def bug(_name: str) -> dict[str, Any]:
        raise KeyError("bug")

    functions.then = bug
    running.tick([every("anchor")])

    wait_until(lambda: not running.is_alive())


def test_new_schedules_take_the_place_of_the_old(functions: Functions, running: Ticker):
    running.tick([every("old")])
    wait_until(lambda: functions.count("old") > 0)

    running.tick([every("new")])
    before = functions.count("old")
    wait_until(lambda: functions.count("new") >= 5)

    assert functions.count("old") == before


def test_a_function_that_outlives_its_schedule_is_not_ticked_beside_itself_by_the_next_one(
    functions: Functions, running: Ticker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ticker, "STOP_SECONDS_MAX", 0.01)
    released = threading.Event()
    functions.then = lambda name: {"waited": released.wait(PATIENCE_SECONDS)} if name == "slow" else {}
    running.tick([every("slow")])
    wait_until(lambda: functions.count("slow") == 1)

    running.tick([every("slow"), every("quick")])
    wait_until(lambda: functions.count("quick") >= 10)
    assert functions.count("slow") == 1
    released.set()
    wait_until(lambda: functions.count("slow") >= 3)

    assert functions.most_at_once["slow"] == 1


def test_nothing_is_invoked_once_it_is_stopped(functions: Functions, running: Ticker):
    running.tick([every("anchor")])
    wait_until(lambda: functions.count("anchor") > 0)

    running.stop()
    before = functions.count("anchor")
    time.sleep(0.05)

    assert functions.count("anchor") == before
