"""
A small audit trail on a real socket, for what a client must get right when the network does not.

It keeps streams in memory, knows its idempotency keys, and answers as documented. `faults` says what
befalls the next requests, one each: a lost request, a lost reply, an answer of any status.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

RECORDED_AT = "2026-01-01T00:00:00.000000Z"
TOKEN = "secret-token"


@dataclass(frozen=True)
class LostRequest:
    """The connection breaks before anything is done."""


@dataclass(frozen=True)
class LostReply:
    """It is done, and the connection breaks before the answer."""


@dataclass(frozen=True)
class GarbledReply:
    """It is done, and the answer says 200 and no JSON, as a captive portal does."""


@dataclass(frozen=True)
class DrippedReply:
    """It is done, and the answer's body comes a byte at a time."""

    gap_seconds: float = 0.02


@dataclass(frozen=True)
class DrippedHead:
    """It is done, and already the answer's headers come a byte at a time."""

    gap_seconds: float = 0.02


@dataclass(frozen=True)
class Says:
    """This answer is given, and nothing is done."""

    status: int
    problem: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)


Fault = LostRequest | LostReply | GarbledReply | DrippedReply | DrippedHead | Says
Answer = tuple[int, dict[str, str], Any]


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Problem(Exception):
    def __init__(self, status: int, code: str, detail: str = "", **facts: Any) -> None:
        super().__init__(code)
        self.status = status
        self.body = {"code": code, "detail": detail or code, "request_id": "request-7", **facts}


class Trail:
    """The streams, and the rules of appending to them."""

    def __init__(self) -> None:
        self.streams: dict[str, list[dict[str, Any]]] = {}
        self.commits: dict[tuple[str, str], tuple[bytes, dict[str, Any]]] = {}
        self.lock = threading.Lock()
        self.faults: deque[Fault | None] = deque()
        self.seen: list[Seen] = []
        self.page_events_max = 1000
        self.commit_bytes_max = 4_000_000
        self.event_bytes_max = 256_000

    def clear(self) -> None:
        self.streams.clear()
        self.commits.clear()
        self.seen.clear()

    def befall(self, faults: Iterable[Fault | None]) -> None:
        """Let the next requests meet *faults*, one each; None for none."""
        self.faults = deque(faults)

    def receive(self, request: Seen) -> tuple[Fault | None, Answer]:
        """Do what is asked, unless this request's fault keeps it from being done."""
        with self.lock:
            self.seen.append(request)
            fault = self.faults.popleft() if self.faults else None
            if isinstance(fault, Says | LostRequest):
                return fault, (0, {}, None)
            try:
                return fault, self.answer(request)
            except Problem as problem:
                return fault, (problem.status, {}, problem.body)

    def answer(self, request: Seen) -> Answer:
        url = urlsplit(request.path)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise Problem(401, "unauthenticated", "The token is not accepted.")
        _, version, streams, segment, what = url.path.removeprefix("/audit").split("/")
        assert (version, streams) == ("v1", "streams")
        stream = unquote(segment).replace("~", "/")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        match request.method, what:
            case "POST", "events":
                return self.append(stream, request)
            case "GET", "events":
                return 200, {}, self.page(stream, query)
            case "GET", "state":
                return 200, {}, self.state(stream, query)
        raise Problem(404, "route_not_found")

    def append(self, stream: str, request: Seen) -> Answer:
        if len(request.body) > self.commit_bytes_max:
            raise Problem(413, "commit_too_large")
        body = json.loads(request.body)
        for index, event in enumerate(body["events"]):
            if len(json.dumps(event)) > self.event_bytes_max:
                raise Problem(413, "event_too_large", errors=[{"pointer": f"/events/{index}"}])
            if not event.get("type"):
                raise Problem(400, "invalid_event", "type is missing", errors=[{"pointer": f"/events/{index}/type"}])
        key = request.headers["idempotency-key"]
        if (stream, key) in self.commits:
            first_body, first_answer = self.commits[stream, key]
            if first_body != request.body:
                raise Problem(422, "idempotency_mismatch")
            return 201, {"Idempotency-Replayed": "true"}, first_answer
        events = self.streams.get(stream, [])
        expected = body["expected_version"]
        if expected != "any" and (expected or 0) != len(events):
            raise Problem(409, "stale", last_version=len(events), events=events[expected or 0 :])
        answer = {
            "version": len(events) + len(body["events"]),
            "first_version": len(events) + 1,
            "commit_id": f"commit-{key}",
            "recorded_at": RECORDED_AT,
        }
        for number, event in enumerate(body["events"], start=len(events) + 1):
            self.streams.setdefault(stream, []).append(recorded(event, number))
        self.commits[stream, key] = (request.body, answer)
        return 201, {}, answer

    def page(self, stream: str, query: dict[str, str]) -> dict[str, Any]:
        events = self.events(stream)
        after, limit = int(query.get("after", "0")), min(int(query.get("limit", "100")), self.page_events_max)
        page = events[after : after + limit]
        is_last = after + limit >= len(events)
        return {
            "stream": stream,
            "events": page,
            "last_version": len(events),
            "next_after": None if is_last else after + limit,
        }

    def state(self, stream: str, query: dict[str, str]) -> dict[str, Any]:
        events = self.events(stream)
        version = int(query.get("version", len(events)))
        if version > len(events):
            raise Problem(404, "version_not_found", last_version=len(events))
        chosen = [event for event in events[:version] if event["time"] <= query.get("at", "9999")]
        state: dict[str, Any] = {}
        for event in chosen:
            state |= event["data"]
        return {
            "stream": stream,
            "state": {name: value for name, value in state.items() if value is not None},
            "version": chosen[-1]["streamversion"] if chosen else 0,
            "events_applied": len(chosen),
            "events_erased": 0,
            "unapplied": [],
            "reducer": "merge-patch@1",
            "last_version": len(events),
        }

    def events(self, stream: str) -> list[dict[str, Any]]:
        if stream not in self.streams:
            raise Problem(404, "stream_not_found")
        return self.streams[stream]


def recorded(event: dict[str, Any], version: int) -> dict[str, Any]:
    time = event.get("time", RECORDED_AT)
    if len(time) == len("2026-01-01T00:00:00Z"):
        time = time.replace("Z", ".000000Z")
    return {
        "actor": "local",
        **event,
        "time": time,
        "streamversion": version,
        "recordedat": RECORDED_AT,
        "commitid": "commit",
        "commithash": "hash",
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault, answer = self.server.trail.receive(Seen(self.command, self.path, headers, body))
        match fault:
            case Says():
                self.say(fault.status, fault.headers, fault.problem)
            case LostRequest() | LostReply():
                self.close_connection = True
            case GarbledReply():
                self.say(200, {}, "<html>")
            case DrippedReply(gap):
                self.say(*answer, gap_seconds=gap)
            case DrippedHead(gap):
                self.drip(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", gap)
            case None:
                self.say(*answer)

    do_GET = do_POST = handle_any  # noqa: N815  http.server's own names

    def say(self, status: int, headers: dict[str, str], body: Any, *, gap_seconds: float = 0.0) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if gap_seconds:
            self.drip(content, gap_seconds)
        else:
            self.wfile.write(content)

    def drip(self, content: bytes, gap_seconds: float) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            time.sleep(gap_seconds)

    def log_message(self, *args: Any) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, trail: Trail) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.trail = trail

    def handle_error(self, *args: Any) -> None:
        """A client that has gone away is what some tests are about."""


@contextmanager
def serving(trail: Trail) -> Iterator[str]:
    with _Server(trail) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
