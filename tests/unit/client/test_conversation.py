"""What one call concludes from what its attempts say: the conversation alone, without a network."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from holdfast_client.conversation import NOTHING_HAPPENED, Answer, Budget, Call, NoAnswer, Outcome, Request
from holdfast_client.errors import (
    Conflict,
    Denied,
    HoldfastError,
    Invalid,
    NotFound,
    Stale,
    Throttled,
    Unavailable,
    Uncertain,
)

WRITE = Request("POST", "/", {}, b"{}", idempotency_key="key-1")
READ = Request("GET", "/", {})
LOST_REPLY = NoAnswer("the connection broke", may_have_arrived=True)
NEVER_SENT = NoAnswer("refused", may_have_arrived=False)
OK = Answer(200, {}, b"{}")


def problem(status: int, code: str = "", headers: dict[str, str] | None = None, **members: Any) -> Answer:
    return Answer(status, headers or {}, json.dumps({"code": code, "detail": "why", **members}).encode())


class Talk:
    """Drives a conversation by hand: no time passes but what is asked for."""

    def __init__(
        self,
        request: Request,
        outcomes: Iterable[Outcome],
        budget: Budget | None = None,
        draw: Callable[[float, float], float] = lambda low, high: high,
    ) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.requests: list[Request] = []
        self.outcomes = list(outcomes)
        self.conversation = Call(request, lambda answer: answer.status).converse(
            budget or Budget(), monotonic=lambda: self.now, draw=draw
        )

    def result(self) -> Any:
        try:
            attempt = next(self.conversation)
            while True:
                self.now += attempt.after_seconds
                self.waits.append(attempt.after_seconds)
                self.requests.append(attempt.request)
                attempt = self.conversation.send(self.outcomes.pop(0))
        except StopIteration as end:
            return end.value


def ending(request: Request, *outcomes: Outcome, **options: Any) -> Any:
    with pytest.raises(HoldfastError) as raised:
        Talk(request, outcomes, **options).result()
    return raised.value


def test_an_answer_ends_the_call():
    talk = Talk(WRITE, [OK])

    assert talk.result() == 200
    assert talk.waits == [0.0]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_event", Invalid),
        (413, "body_too_large", Invalid),
        (415, "unsupported", Invalid),
        (422, "idempotency_mismatch", Invalid),
        (401, "unauthenticated", Denied),
        (403, "missing_scope", Denied),
        (404, "stream_not_found", NotFound),
        (409, "subject_erased", Conflict),
        (409, "stale", Stale),
    ],
)
def test_a_refusal_is_definite_and_is_not_repeated(status, code, kind):
    talk = Talk(WRITE, [problem(status, code, request_id="r-1", errors=[{"pointer": "/events/3/type"}])])

    with pytest.raises(kind) as raised:
        talk.result()

    assert type(raised.value) is kind
    assert (raised.value.code, raised.value.detail, raised.value.status) == (code, "why", status)
    assert (raised.value.request_id, raised.value.pointer) == ("r-1", "/events/3/type")
    assert len(talk.requests) == 1


def test_a_stale_write_carries_the_winner():
    error = ending(WRITE, problem(409, "stale", last_version=7, events=[{"id": "e"}]))

    assert (error.last_version, error.events) == (7, [{"id": "e"}])


@pytest.mark.parametrize("outcome", [LOST_REPLY, NEVER_SENT, problem(429), problem(502), problem(503), problem(504)])
def test_what_may_pass_is_repeated_with_the_very_same_request(outcome):
    talk = Talk(WRITE, [outcome, outcome, OK])

    assert talk.result() == 200
    assert len(talk.requests) == 3
    assert all(request is WRITE for request in talk.requests)


def test_a_problem_that_calls_itself_retryable_is_repeated_whatever_its_status():
    assert Talk(WRITE, [problem(409, "in_progress", retryable=True), OK]).result() == 200


def test_an_attempt_may_take_what_is_left_of_the_budget():
    budget = Budget(attempts_max=9, seconds_max=10, first_wait_seconds=1, longest_wait_seconds=4)
    talk = Talk(READ, [], budget=budget)
    attempts = [next(talk.conversation)]
    for taken in (2, 1.5):
        talk.now += attempts[-1].after_seconds + taken
        attempts.append(talk.conversation.send(LOST_REPLY))

    assert [(each.after_seconds, each.seconds_max) for each in attempts] == [(0, 10), (1, 7), (2, 3.5)]
    talk.now += 2 + 3.5
    with pytest.raises(Unavailable):
        talk.conversation.send(LOST_REPLY)


def test_no_call_and_no_part_of_it_shows_its_token():
    request = Request("GET", "http://x/v1/streams", {"authorization": "Bearer secret-token"})
    call = Call(request, lambda answer: answer.status)

    shown = f"{request!r} {request} {call!r} {next(call.converse(Budget()))!r}"

    assert "secret-token" not in shown
    assert "authorization" in shown


def test_an_internal_error_is_not_repeated_and_of_a_write_nobody_knows():
    assert isinstance(ending(WRITE, problem(500)), Uncertain)
    assert isinstance(ending(READ, problem(500)), Unavailable)


def test_a_write_without_an_answer_is_uncertain_and_carries_its_key():
    error = ending(WRITE, *[LOST_REPLY] * 6)

    assert isinstance(error, Uncertain)
    assert error.idempotency_key == "key-1"


def test_a_read_without_an_answer_is_unavailable_for_a_read_changes_nothing():
    assert isinstance(ending(READ, *[LOST_REPLY] * 6), Unavailable)


def test_a_write_that_never_left_is_a_definite_failure():
    assert isinstance(ending(WRITE, *[NEVER_SENT] * 6), Unavailable)


def test_a_throttled_write_is_a_definite_failure():
    assert isinstance(ending(WRITE, *[problem(429)] * 6), Throttled)


@pytest.mark.parametrize("code", ["contended", "clock_skew", "out_of_time", "view_behind"])
def test_a_503_that_promises_that_nothing_happened_is_believed(code):
    assert isinstance(ending(WRITE, *[problem(503, code)] * 6), Unavailable)


def test_a_503_of_a_box_in_between_promises_nothing():
    assert isinstance(ending(WRITE, *[Answer(503, {}, b"<html>")] * 6), Uncertain)


@pytest.mark.parametrize(
    "last", [NEVER_SENT, problem(429), problem(503, "contended"), problem(401), problem(403), problem(404)]
)
def test_a_refusal_that_came_before_the_key_was_looked_at_does_not_settle_an_earlier_unknown(last):
    error = ending(WRITE, LOST_REPLY, *[last] * 5)

    assert isinstance(error, Uncertain)
    assert error.last_failure.status == getattr(last, "status", None)


@pytest.mark.parametrize(
    ("last", "kind"), [(problem(409, "stale"), Stale), (problem(400), Invalid), (problem(422), Invalid)]
)
def test_a_refusal_that_rests_on_the_key_or_the_bytes_settles_an_earlier_unknown(last, kind):
    assert isinstance(ending(WRITE, LOST_REPLY, last), kind)


def test_an_answer_that_our_own_key_is_in_flight_leaves_the_outcome_open():
    assert isinstance(ending(WRITE, *[problem(409, "in_progress", retryable=True)] * 6), Uncertain)


def test_waits_double_up_to_their_bound_and_are_drawn_from_zero():
    drawn = []

    def draw(low, high):
        drawn.append((low, high))
        return high

    budget = Budget(attempts_max=6, seconds_max=100, first_wait_seconds=1, longest_wait_seconds=4)
    Talk(READ, [NEVER_SENT] * 5 + [OK], budget=budget, draw=draw).result()

    assert drawn == [(0, 1), (0, 2), (0, 4), (0, 4), (0, 4)]


def test_retry_after_in_seconds_is_the_least_wait():
    talk = Talk(READ, [problem(429, headers={"retry-after": "7"}), OK])

    talk.result()

    assert talk.waits == [0.0, 7.0]


def test_retry_after_as_a_date_that_has_passed_asks_for_nothing():
    past = problem(503, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})
    talk = Talk(READ, [past, OK], draw=lambda low, high: 0.0)

    talk.result()

    assert talk.waits == [0.0, 0.0]


@pytest.mark.parametrize("value", ["soon", "-1", "1e9", "²"])
def test_a_retry_after_that_is_neither_is_not_obeyed(value):
    talk = Talk(READ, [problem(503, headers={"retry-after": value}), OK], draw=lambda low, high: 0.0)

    talk.result()

    assert talk.waits == [0.0, 0.0]


def test_a_wait_beyond_the_budget_ends_the_call_at_once():
    talk = Talk(READ, [problem(429, headers={"retry-after": "3600"})])

    with pytest.raises(Throttled):
        talk.result()

    assert talk.now == 0.0


def test_attempts_are_bounded():
    talk = Talk(READ, [NEVER_SENT] * 100, budget=Budget(attempts_max=3, seconds_max=1000))

    with pytest.raises(Unavailable):
        talk.result()

    assert len(talk.requests) == 3


def test_a_problem_that_is_no_object_is_told_by_its_status():
    assert ending(READ, Answer(404, {}, b"[1]")).code == "http_404"
    assert ending(READ, Answer(400, {}, b'{"code": 7}')).code == "http_400"


# --- Every code that the service's README lists

README = (Path(__file__).parents[3] / "functions/audit/README.md").read_text()
LISTED = [
    (int(status), code)
    for status, row in re.findall(r"^\| (\d{3}) \| (`.*`) \|$", README, re.MULTILINE)
    for code in re.findall(r"`(\w+)`", row)
]
FAULTS = {code for status, code in LISTED if status >= 500}
DOUBTFUL = {"bus_unavailable", "internal", "outcome_unknown", "queue_unavailable", "unfinished"}
"""After these, somebody has to ask again before anything is decided."""
KINDS = {
    400: Invalid, 401: Denied, 403: Denied, 404: NotFound, 405: Invalid, 409: Conflict, 413: Invalid, 415: Invalid,
    422: Invalid, 429: Throttled,
}  # fmt: skip


def test_every_fault_that_is_listed_is_safe_or_doubtful_on_purpose_and_the_readme_says_the_same():
    doubted = README.partition("\nOf these, ")[2].partition("\n\n")[0]

    assert len(LISTED) > 60
    assert FAULTS == NOTHING_HAPPENED | DOUBTFUL
    assert not NOTHING_HAPPENED & DOUBTFUL
    assert set(re.findall(r"`(\w+)`", doubted)) == DOUBTFUL


@pytest.mark.parametrize(("status", "code"), LISTED)
def test_a_write_that_ends_in_a_listed_code_ends_as_what_it_means(status, code):
    error = ending(WRITE, *[problem(status, code)] * 6)

    if code in DOUBTFUL:
        assert isinstance(error, Uncertain)
    elif status >= 500:
        assert type(error) is Unavailable
    else:
        assert type(error) is (Stale if code == "stale" else KINDS[status])
        assert error.code == code
