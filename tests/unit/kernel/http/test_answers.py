"""What leaves, and what is told beside the answer."""

import json
import re

import pytest

from holdfast.http.answers import ANSWER_BYTES_MAX
from holdfast.telemetry import current_trace
from tests.unit.kernel.http.shop import APP, TRACEPARENT, call, post_order

# --- What leaves


def test_every_answer_carries_the_standing_headers():
    for status, headers, _ in (
        call("GET", "/v1/orders"),
        call("GET", "/v1/nothing"),
        call("GET", "/v1/failures/{kind}", parameters={"kind": "bug"}),
        call("GET", "/nowhere"),
    ):
        assert status in (200, 204, 404, 500)
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Request-Id"] == "request-1"
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", headers["traceparent"])


def test_a_handler_may_answer_with_a_status_and_headers_of_its_own():
    status, headers, body = call("PUT", "/v1/keyed", headers={"Idempotency-Key": "k"})

    assert (status, body, headers["Idempotency-Replayed"]) == (202, "k", "true")
    assert headers["Cache-Control"] == "private"


def test_nothing_is_answered_without_a_content_type():
    status, headers, body = call("GET", "/v1/nothing")

    assert (status, body) == (204, None)
    assert "Content-Type" not in headers


def test_a_problem_tells_all_that_rfc_9457_asks_and_the_facts_beside_it():
    status, headers, problem = call("GET", "/v1/failures/{kind}", parameters={"kind": "stale"})

    assert status == 409
    assert headers["Content-Type"] == "application/problem+json"
    assert problem == {
        "type": "urn:holdfast:problem:stale",
        "title": "Stale",
        "status": 409,
        "detail": "Moved on.",
        "code": "stale",
        "retryable": False,
        "request_id": "request-1",
        "last_version": 7,
        "events": [{"id": "e"}],
    }


@pytest.mark.parametrize(
    ("kind", "status", "is_retryable", "retry_after"),
    [("throttled", 429, True, "3"), ("uncertain", 503, True, None), ("fault", 409, False, None)],
)
def test_a_problem_says_whether_and_when_to_repeat(kind: str, status: int, is_retryable: bool, retry_after: str | None):
    answered, headers, problem = call("GET", "/v1/failures/{kind}", parameters={"kind": kind})

    assert (answered, problem["retryable"], headers.get("Retry-After")) == (status, is_retryable, retry_after)


def test_a_fault_is_pointed_at():
    _, _, problem = call("GET", "/v1/failures/{kind}", parameters={"kind": "fault"})

    assert problem["errors"] == [{"pointer": "/a~1b/0", "detail": "No."}]


@pytest.mark.parametrize("kind", ["bug", "unwritable", "unwritable fact"])
def test_a_bug_is_answered_whole_and_leaks_nothing(kind: str, capsys: pytest.CaptureFixture[str]):
    status, headers, problem = call("GET", "/v1/failures/{kind}", parameters={"kind": kind})

    assert (status, problem["code"], problem["request_id"]) == (500, "internal", "request-1")
    assert headers["Content-Type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "code", "retryable", "request_id"}
    assert "s3cret" not in json.dumps(problem)
    assert "Traceback" in capsys.readouterr().out


def test_an_unknown_route_is_not_found_and_another_method_is_not_allowed():
    status, _, problem = call("GET", "/v2/orders")
    assert (status, problem["code"]) == (404, "not_found")

    status, headers, problem = call("POST", "/v1/orders")
    assert (status, problem["code"], headers["Allow"]) == (405, "method_not_allowed", "DELETE, GET")


def test_an_event_of_another_shape_is_not_found_rather_than_a_crash():
    assert APP({}, None)["statusCode"] == 404


@pytest.mark.parametrize(
    ("character", "bytes_each"),
    [("x", 1), ('"', 4), ("é", 6), ("😀", 12)],  # inside a JSON string inside JSON: \\\" and 😀
)
def test_an_answer_that_lambda_could_not_carry_is_refused_by_what_it_weighs_there(character: str, bytes_each: int):
    most = (ANSWER_BYTES_MAX - 6) // bytes_each

    assert call("GET", "/v1/texts", query={"of": [character], "times": [str(most)]})[0] == 200
    status, _, problem = call("GET", "/v1/texts", query={"of": [character], "times": [str(most + 1)]})
    assert (status, problem["code"]) == (422, "answer_too_large")


@pytest.mark.parametrize(("kind", "status", "code"), [("large", 409, "stale"), ("large fault", 400, "odd")])
def test_a_problem_that_lambda_could_not_carry_goes_without_what_is_large(kind: str, status: int, code: str):
    answered, _, problem = call("GET", "/v1/failures/{kind}", parameters={"kind": kind})

    assert (answered, problem["code"]) == (status, code)
    assert set(problem) == {"type", "title", "status", "detail", "code", "retryable", "request_id"}
    assert len(problem["detail"]) <= 1_000


# --- What is told beside the answer


def test_a_valid_trace_is_continued_and_others_can_read_it():
    _, headers, trace = call(
        "GET", "/v1/failures/{kind}", parameters={"kind": "trace"}, headers={"traceparent": TRACEPARENT}
    )

    assert trace["trace_id"] == TRACEPARENT[3:35]
    assert trace["parent_id"] == TRACEPARENT[36:52]
    assert headers["traceparent"] == f"00-{trace['trace_id']}-{trace['span_id']}-01"
    assert current_trace.get() is None


def test_each_invocation_writes_one_line_and_never_a_token_or_a_body(capsys: pytest.CaptureFixture[str]):
    post_order('{"sku": "s3cret"}', headers={"traceparent": TRACEPARENT, "Authorization": "Bearer s3cret"})

    written = capsys.readouterr().out
    [line] = [json.loads(text) for text in written.splitlines()]
    assert "s3cret" not in written
    assert (line["message"], line["route"]) == ("answered", "POST /v1/shops/{shop}/orders")
    assert (line["tenant"], line["status"], line["code"]) == ("acme", 400, "invalid_body")
    assert (line["request_id"], line["trace_id"]) == ("request-1", TRACEPARENT[3:35])
    assert line["ms"] >= 0
