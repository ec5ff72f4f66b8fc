"""Bad input over the network: each gets its own clear refusal, none a 5xx, and nothing acknowledged is lost."""

import http.client
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from stacks import tokens
from stacks.local import clients
from stacks.target import Target

_NUMBERS = itertools.count()
JSON = "application/json"
ANSWER_SECONDS_MAX = 30
REVOKED_WITHIN_SECONDS = 60
EVENTS = b'{"expected_version":"any","events":%s}'


def event(number: int = 1, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": str(number), "source": "urn:test", "type": "test.happened", **more}


@dataclass
class Door:
    """Requests exactly as written: no client folds dots, encodes or decodes on the way."""

    url: str
    token: str
    prefix: str = field(default_factory=lambda: f"bad-{os.getpid()}-{next(_NUMBERS)}")

    def send(
        self, method: str, path: str, body: bytes | None = None, *, token: str | None = "", **headers: str
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS_MAX)
        try:
            connection.putrequest(method, parts.path + path, skip_accept_encoding=True)
            sent = {"Content-Type": JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
            if token is not None:
                sent["Authorization"] = f"Bearer {token or self.token}"
            if body is not None:
                sent["Content-Length"] = str(len(body))
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None, answer.headers
        finally:
            connection.close()

    def append(self, body: Any, stream: str = "stream", **more: Any) -> tuple[int, Any, http.client.HTTPMessage]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", f"/v1/streams/{self.prefix}~{stream}/events", raw, **more)


@pytest.fixture
def door(stack) -> Door:
    return Door(stack.url("audit"), stack.token)


@pytest.fixture
def token(stack) -> Callable[..., str]:
    target = Target(session=clients.session(), endpoint_url=stack.running.engine.endpoint_url, is_local=True)

    def make(tenant: str = "local", scopes: tuple[str, ...] = ("audit:append", "audit:read"), ttl: int = 600) -> str:
        return tokens.create_token(target, tenant, "tester", scopes, ttl)

    return make


@pytest.fixture
def acknowledged(door: Door) -> Iterator[None]:
    """One event that was acknowledged before, and must be there afterwards."""
    status, answer, _ = door.append({"expected_version": 0, "events": [event(0)]})
    assert (status, answer["version"]) == (201, 1)
    yield
    status, found, _ = door.send("GET", f"/v1/streams/{door.prefix}~stream/events")
    assert status == 200
    assert [one["id"] for one in found["events"]] == ["0"]


def is_problem(answer: tuple[int, Any, http.client.HTTPMessage], status: int, *codes: str) -> None:
    found, problem, headers = answer
    assert found == status, problem
    assert headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["code"] in codes
    assert problem["detail"]
    assert problem["request_id"]


def request(*events: Any, expected: Any = 1) -> bytes:
    return json.dumps({"expected_version": expected, "events": events}).encode()


# ----- bodies

BODIES = {
    "malformed": (b"{", 400, "malformed_json"),
    "empty": (b"", 400, "body_required"),
    "a number": (b"7", 400, "invalid_body"),
    "unknown field": (b'{"expected_version":0,"events":[],"x":1}', 400, "unknown_field"),
    "NaN": (b'{"expected_version":0,"events":[{"data":NaN}]}', 400, "not_i_json"),
    "Infinity": (b'{"expected_version":0,"events":[{"data":-Infinity}]}', 400, "not_i_json"),
    "1e400": (b'{"expected_version":0,"events":[{"data":1e400}]}', 400, "not_i_json"),
    "a huge integer": (b'{"expected_version":0,"events":[{"data":' + b"9" * 5000 + b"}]}", 400, "not_i_json"),
    "duplicate keys": (b'{"expected_version":0,"expected_version":1,"events":[]}', 400, "not_i_json"),
    "a lone surrogate": (b'{"expected_version":0,"events":[{"data":"\\udc00"}]}', 400, "not_i_json"),
    "10,000 lists deep": (EVENTS % (b"[" * 10_000 + b"]" * 10_000), 400, "too_deep"),
    "10,000 objects deep": (EVENTS % (b'{"a":' * 10_000 + b"1" + b"}" * 10_000), 400, "too_deep"),
    "many members": (EVENTS % json.dumps([{f"a{n}": 1 for n in range(10_001)}]).encode(), 400, "too_many_members"),
    "over 4 MB": (EVENTS % (b'["' + b"x" * 4_300_000 + b'"]'), 413, "body_too_large"),
    "over 10 MB": (EVENTS % (b'["' + b"x" * 10_600_000 + b'"]'), 413, "body_too_large"),
    "no events": (b'{"expected_version":0,"events":[]}', 400, "no_events"),
    "no expectation": (json.dumps({"events": [event()]}).encode(), 400, "invalid_expected_version"),
    "a wrong expectation": (request(event(), expected=True), 400, "invalid_expected_version"),
    "a version ahead": (request(event(1), expected=7), 409, "stale"),
    "a version behind": (request(event(1), expected=0), 409, "stale"),
    "an event too large": (request(event(1, data="x" * 262_144)), 413, "event_too_large"),
    "a time without offset": (request(event(1, time="2026-01-01T00:00:00")), 400, "invalid_time"),
}


@pytest.mark.usefixtures("acknowledged")
@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_refused_and_nothing_is_lost(door, name):
    body, status, code = BODIES[name]

    is_problem(door.append(body), status, code)


@pytest.mark.usefixtures("acknowledged")
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""]
)
def test_another_content_type_is_not_taken(door, kind):
    is_problem(door.append(b"{}", Content_Type=kind), 415, "unsupported_media_type")


@pytest.mark.usefixtures("acknowledged")
@pytest.mark.parametrize("key", ["", " ", "a b", "k" * 256, "\xe9"])
def test_a_bad_idempotency_key_is_refused(door, key):
    body = {"expected_version": 1, "events": [event(1)]}

    is_problem(door.append(body, Idempotency_Key=key), 400, "invalid_idempotency_key")


def test_a_version_inside_a_commit_is_refused_with_the_winners_version(door):
    door.append({"expected_version": 0, "events": [event(1), event(2), event(3)]})
    answer = door.append({"expected_version": 2, "events": [event(9)]})

    is_problem(answer, 409, "stale")
    assert answer[1]["last_version"] == 3


# ----- names

NAMES = {
    "dots": "..",
    "dots within": "a~..~b",
    "an encoded slash and dots": "a%2f..%2fb",
    "NUL": "a%00b",
    "a space": "a%20b",
    "a hash": "a%23b",
    "a broken escape": "a%zz",
    "half a character": "a%c3",
    "an accent": "a%C3%A9",
    "2,048 characters": "a" * 2048,
    "201 characters": "a" * 201,
    "an empty segment": "a~~b",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("route", ["events", "state"])
def test_a_bad_name_is_refused(door, name, route):
    status, problem, _ = door.send("GET", f"/v1/streams/{NAMES[name]}/{route}")

    assert status in (400, 404), problem
    assert problem["code"] in ("invalid_stream", "invalid_path", "not_found")


def test_an_encoded_slash_that_gets_through_names_the_same_stream(door):
    door.append({"expected_version": 0, "events": [event(1)]})
    status, found, _ = door.send("GET", f"/v1/streams/{door.prefix}%2Fstream/events")

    assert status in (200, 404)  # some gateways decode it on the way, and the route is another then
    if status == 200:
        assert found["stream"] == f"{door.prefix}/stream"


# ----- queries and routes


@pytest.mark.usefixtures("acknowledged")
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("at=yesterday", "invalid_time"),
        ("at=2026-01-01T00:00:00", "invalid_time"),
        ("at=2026-01-01T00:00:60Z", "invalid_time"),
        ("at=0000-01-01T00:00:00Z", "invalid_time"),
        ("at=10000-01-01T00:00:00Z", "invalid_time"),
        ("known_at=%00", "invalid_time"),
        ("version=-1", "invalid_query"),
        ("version=1e400", "invalid_query"),
        ("version=NaN", "invalid_query"),
        ("version=" + "9" * 5000, "invalid_query"),
        ("version=1&version=1", "invalid_query"),
        ("nonsense=1", "invalid_query"),
    ],
)
def test_a_bad_query_is_refused(door, query, code):
    is_problem(door.send("GET", f"/v1/streams/{door.prefix}~stream/state?{query}"), 400, code)


@pytest.mark.usefixtures("acknowledged")
def test_a_version_above_the_last_is_not_found(door):
    answer = door.send("GET", f"/v1/streams/{door.prefix}~stream/state?version=2")

    is_problem(answer, 404, "version_not_found")
    assert answer[1]["last_version"] == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/nothing"), ("GET", "/"), ("DELETE", "/v1/streams/a/events"), ("POST", "/v1/streams/a/state")],
)
def test_a_route_that_is_not_there_is_not_found(door, method, path):
    is_problem(door.send(method, path), 404, "not_found")


# ----- tokens


def forged(token: str) -> str:
    header, claims, signature = token.split(".")
    return f"{header}.{claims}.{('A' if signature[0] != 'A' else 'B') + signature[1:]}"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda valid: None, "token_missing"),
        (forged, "token_invalid"),
        (lambda valid: "x", "token_invalid"),
        (lambda valid: valid.rsplit(".", 1)[0] + ".", "token_invalid"),
        (lambda valid: "x" * 9_000, "token_invalid"),
    ],
)
def test_without_a_good_token_nobody_gets_in(door, make, code):
    for method, path in (
        ("GET", "/v1/streams/a/events"),
        ("GET", "/v1/streams/a/state"),
        ("POST", "/v1/streams/a/events"),
    ):
        answer = door.send(method, path, b"{}" if method == "POST" else None, token=make(door.token))
        is_problem(answer, 401, code)
        assert answer[2]["WWW-Authenticate"].startswith("Bearer")


def test_an_expired_token_is_refused(door, token):
    short = token(ttl=1)
    time.sleep(2.1)

    is_problem(door.send("GET", "/v1/streams/a/events", token=short), 401, "token_expired")


@pytest.mark.parametrize("scope", ["audit:append", "audit:read"])
def test_a_token_without_the_scope_is_refused(door, token, scope):
    other = token(scopes=("audit:read" if scope == "audit:append" else "audit:append",))
    answer = (
        door.append({"expected_version": 0, "events": [event()]}, token=other)
        if scope == "audit:append"
        else door.send("GET", "/v1/streams/a/events", token=other)
    )

    is_problem(answer, 403, "scope_missing")


@pytest.mark.usefixtures("acknowledged")
def test_another_tenants_token_finds_nothing(door, token):
    rival = token(tenant="rival")
    for route in ("events", "state"):
        is_problem(door.send("GET", f"/v1/streams/{door.prefix}~stream/{route}", token=rival), 404, "stream_not_found")


def test_another_actor_takes_a_right(door, token):
    answer = door.append({"expected_version": 0, "events": [event(1, actor="bob")]}, token=token())

    is_problem(answer, 403, "actor_not_allowed")


def test_a_revoked_token_is_refused_within_a_minute(stack, door, token):
    short = token()
    assert door.send("GET", "/v1/streams/nothing/events", token=short)[0] == 404
    target = Target(session=clients.session(), endpoint_url=stack.running.engine.endpoint_url, is_local=True)
    tokens.revoke_token(target, short)
    deadline = time.monotonic() + REVOKED_WITHIN_SECONDS

    while (answer := door.send("GET", "/v1/streams/nothing/events", token=short))[0] != 401:
        assert time.monotonic() < deadline
        time.sleep(1)

    is_problem(answer, 401, "token_revoked")
