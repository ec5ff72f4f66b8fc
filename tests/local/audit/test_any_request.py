"""Whatever is sent to any route of the running stack gets an answer that the API's own description foresees."""

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.local.audit.conftest import ANSWER_SECONDS_MAX, OwnTenant, happened
from tests.openapi_requests import MadeRequest, Maker, fits
from tests.soak import examples

BEFORE_ANY_ROUTE = {(404, "not_found"), (405, "method_not_allowed")}
"""A name with a slash in it is another path."""
NOT_YET = {"not_in_log_yet", "view_behind"}
"""The faults that a right request may meet: of what was appended a moment ago, a proof or a view is asked for."""
SUCCESS = (200, 300)


class Wire:
    """Requests exactly as written, over one connection."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._prefix, self._token = parts.path, token
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS_MAX)

    def send(self, request: MadeRequest) -> tuple[int, str, Any]:
        self._connection.putrequest(request.operation.method, self._prefix + request.path, skip_accept_encoding=True)
        headers = {**request.headers, "Authorization": f"Bearer {self._token}"}
        for name, value in {**headers, "Content-Length": str(len(request.body or b""))}.items():
            self._connection.putheader(name, value)
        self._connection.endheaders(request.body or b"")
        answer = self._connection.getresponse()
        text = answer.read()
        return answer.status, answer.headers["Content-Type"], json.loads(text) if text else None

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def wire(tenant: OwnTenant) -> Iterator[Wire]:
    wire = Wire(tenant.stack.url("audit"), tenant.token)
    yield wire
    wire.close()


@pytest.fixture(scope="module")
def maker(tenant: OwnTenant) -> Maker:
    """Make requests that also name what there is."""
    tenant.audit.append("orders/1", [happened(1, subject="s", shredkey="ann", data={"a": 1}), happened(2)])
    rebuild = tenant.audit.rebuild("streams", "for the fuzzer")
    times = ["2026-01-01T00:00:00Z", "2026-11-25T12:00:00.5+01:00", "2030-01-01T00:00:00Z", "yesterday", ""]
    events = [
        [happened("fuzz", data={"b": 2})],
        [happened("late", time="2020-01-01T00:00:00Z", subject="s", data=[1]), happened(3, data_base64="AA==")],
        [happened("sealed", shredkey="ann", data="x")],
        [happened("", time="yesterday")],
        [],
    ]
    known: dict[str, list[Any]] = {
        "stream": ["orders~1", "orders/1", "orders~2"],
        "rebuild_id": [rebuild.rebuild_id, rebuild.rebuild_id[::-1]],
        "subject": ["ann", "s"],
        "actor": ["tester"],
        "type": ["test.happened"],
        "partition": list(range(5)),
        "view": ["events", "streams"],
        "seq": [1, 2],
        "size": [1, 2],
        "version": [1, 2, 3],
        "expected_version": ["any", 0, 2, None],
        "events": events,
        "reason": ["because"],
        "Holdfast-Wait-For": ["orders/1@1", "orders/1@2"],
        "Idempotency-Key": [f"key-{number}" for number in range(50)],
        **dict.fromkeys(("from", "to", "at", "known_at", "as_of", "until"), times),
    }
    return Maker(tenant.get("/openapi.json"), known)


@settings(
    max_examples=examples(200, soak=2_000),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(choices=st.data())
def test_every_answer_is_one_that_is_described(maker, wire, choices):
    request = choices.draw(maker.requests())

    status, kind, body = wire.send(request)

    event(f"{request.operation.name}: {status}")
    if status in range(*SUCCESS):
        described = request.operation.described["responses"][str(status)]
        schema = described.get("content", {}).get("application/json", {}).get("schema", {"type": "null"})
        assert fits(maker.description, schema, body), (request, body)
        return
    assert kind == "application/problem+json", (request, body)
    assert body["status"] == status
    code = body["code"]
    assert code in request.operation.codes(status) or (status, code) in BEFORE_ANY_ROUTE, (request, body)
    assert status < 500 or code in NOT_YET, (request, body)
