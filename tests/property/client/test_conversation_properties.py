"""For every way in which a network and a service can treat a write, a definite ending is a true one."""

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_client.conversation import Answer, Budget, Call, NoAnswer, Outcome, Request
from holdfast_client.errors import HoldfastError, Uncertain
from tests.soak import examples

WRITE = Request("POST", "/", {}, b"{}", idempotency_key="key")


class Service:
    """A service that carries the write out at most once, and knows it again by its key."""

    def __init__(self, *, is_possible: bool) -> None:
        self.is_possible = is_possible
        self.is_done = False

    def carry_out(self) -> Answer:
        if self.is_done or self.is_possible:
            self.is_done = True
            return Answer(201, {}, b"{}")
        return problem(409, "stale")

    def treat(self, treatment: str) -> Outcome:
        """Let one attempt meet its fate, and give what the caller sees of it."""
        match treatment:
            case "answered":
                return self.carry_out()
            case "reply lost":
                self.carry_out()
                return NoAnswer("lost", may_have_arrived=True)
            case "request lost":
                return NoAnswer("lost", may_have_arrived=True)
            case "never sent":
                return NoAnswer("refused", may_have_arrived=False)
            case "gateway gave up on it":
                self.carry_out()
                return Answer(504, {}, b"")
            case "reply garbled":
                answer = self.carry_out()
                return Answer(answer.status, {}, b"<html>") if answer.is_success else answer
            case "in flight":
                return problem(409, "in_progress", retryable=True)
            case _:
                return REFUSED_BEFORE_THE_KEY[treatment]


def problem(status: int, code: str, **members: Any) -> Answer:
    return Answer(status, {}, json.dumps({"code": code, "detail": "", **members}).encode())


REFUSED_BEFORE_THE_KEY = {
    "throttled": problem(429, "throttled"),
    "token expired": problem(401, "token_expired"),
    "scope gone": problem(403, "scope_missing"),
    "route gone": problem(404, "route_not_found"),
    "contended": problem(503, "contended"),
    "box in between": Answer(503, {}, b"<html>"),
    "crashed": Answer(500, {}, b""),
}

treatments = st.lists(
    st.sampled_from(
        [
            "answered",
            "reply lost",
            "request lost",
            "never sent",
            "gateway gave up on it",
            "reply garbled",
            "in flight",
            *REFUSED_BEFORE_THE_KEY,
        ]
    ),
    min_size=6,
    max_size=6,
)


@settings(max_examples=examples(300, soak=10_000), deadline=None)
@given(treatments, st.booleans(), st.integers(1, 6))
def test_an_answer_means_done_a_failure_means_not_done_and_all_else_is_uncertain(fates, is_possible, attempts_max):
    service = Service(is_possible=is_possible)
    budget = Budget(attempts_max=attempts_max, seconds_max=100)
    conversation = Call(WRITE, read).converse(budget, monotonic=lambda: 0.0, draw=lambda low, high: 0.0)
    attempts = 0
    try:
        next(conversation)
        for fate in fates:
            attempts += 1
            conversation.send(service.treat(fate))
    except StopIteration:
        assert service.is_done
    except Uncertain:
        pass
    except HoldfastError:
        assert not service.is_done
    assert attempts <= attempts_max


def read(answer: Answer) -> Any:
    return msgspec.json.decode(answer.body)
