"""A request is answered before Lambda ends it, however silent what it needs is."""

import json
from datetime import timedelta
from typing import Any

import pytest

from holdfast.clock import ManualClock
from holdfast.dynamodb.transport import Answer, Unknown
from holdfast.dynamodb.writes import Database
from holdfast.http import Api
from holdfast.retry import seconds_left

LAMBDA_SECONDS = 28


class Invocation:
    """What Lambda tells a function of the time that it has."""

    aws_request_id = "invocation-1"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1_000)


class SlowStore:
    """A store whose every attempt takes the longest that one may take, and is then answered or not."""

    def __init__(self, clock: ManualClock, *, is_silent: bool = False) -> None:
        self._clock = clock
        self._is_silent = is_silent
        self.attempts = 0

    def call(self, operation: str, request: Any) -> Answer:
        self.attempts += 1
        self._clock.advance(timedelta(seconds=6))
        if self._is_silent:
            raise Unknown("read time-out")
        return Answer({}, None)


def ask(clock: ManualClock, store: SlowStore, *, reads: int, invocation: Invocation | None) -> tuple[int, Any]:
    """Answer a request that reads so often."""
    app = Api("shop", title="Shop", version="1", clock=clock)
    database = Database.connect(store, clock)

    @app.get("/v1/things", scope=None)
    def get_things() -> None:
        for _ in range(reads):
            database.read("GetItem", {})

    answer = app({"requestContext": {"resourcePath": "/v1/things", "httpMethod": "GET"}}, invocation)
    return answer["statusCode"], json.loads(answer["body"] or "null")


@pytest.mark.parametrize(("is_silent", "code"), [(True, "store_unavailable"), (False, "out_of_time")])
@pytest.mark.parametrize("invocation", [Invocation(LAMBDA_SECONDS), None])
def test_a_request_is_answered_inside_lambdas_time(is_silent: bool, code: str, invocation: Invocation | None):
    clock = ManualClock()

    status, problem = ask(clock, SlowStore(clock, is_silent=is_silent), reads=50, invocation=invocation)

    assert (status, problem["code"], problem["retryable"]) == (503, code, True)
    assert clock.monotonic() < LAMBDA_SECONDS - 1


def test_where_lambda_gives_less_time_the_request_takes_less():
    clock = ManualClock()

    status, problem = ask(clock, SlowStore(clock), reads=50, invocation=Invocation(15))

    assert (status, problem["code"]) == (503, "out_of_time")
    assert clock.monotonic() < 15 - 1


def test_a_request_that_begins_too_late_touches_nothing():
    clock = ManualClock()
    store = SlowStore(clock)

    status, problem = ask(clock, store, reads=1, invocation=Invocation(8))

    assert (status, problem["code"]) == (503, "out_of_time")
    assert store.attempts == 0


def test_the_next_request_has_its_own_time():
    clock = ManualClock()
    store = SlowStore(clock)

    ask(clock, store, reads=50, invocation=Invocation(LAMBDA_SECONDS))
    status, _ = ask(clock, store, reads=1, invocation=Invocation(LAMBDA_SECONDS))

    assert status == 200
    assert seconds_left() == float("inf")
