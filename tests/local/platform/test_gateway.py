"""The gateway in front of a real engine's API Gateway: what goes in comes out, and failures look like those of AWS."""

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from stacks.local import gateway as module
from stacks.local.gateway import BODY_BYTES_MAX, Gateway, route
from stacks.local.processes import LOOPBACK
from tests.local.conftest import free_ports
from tests.local.platform import fixture_stack
from tests.local.platform.conftest import Platform


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Door:
    """A plain HTTP client: nothing is encoded, normalised or added on the way."""

    port: int

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=60)
        own_host = "Host" in (headers or {})
        connection.putrequest(method, path, skip_host=own_host, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None and "Transfer-Encoding" not in (headers or {}):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer


@pytest.fixture(scope="module")
def door(platform: Platform) -> Iterator[Door]:
    port = free_ports()
    running = Gateway(port)
    running.start()
    echo = route(platform.deployed.api_urls["echo"], platform.endpoint_url)
    running.routes = {"echo": echo, "files": platform.endpoint_url, "gone": _nobody()}
    yield Door(port)
    running.stop()


def _nobody() -> str:
    return f"http://{LOOPBACK}:{free_ports()}/restapis/x/api/_user_request_"


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("orders~42", "orders~42"),
        ("a%20b", "a b"),
        ("%C3%A9+x:@,;=", "é+x:@,;="),
        ("a%252Fb", "a%2Fb"),
        ("..", ".."),
        ("a%00b", "a\x00b"),
        ("a" * 2_048, "a" * 2_048),
    ],
)
def test_a_path_segment_arrives_as_it_was_sent(door: Door, sent: str, arrives: str):
    assert door.ask("GET", f"/echo/v1/streams/{sent}/events").json["stream"] == arrives


def test_repeated_empty_and_encoded_query_parameters_arrive(door: Door):
    told = door.ask("GET", "/echo/v1/streams/s/events?a=1&a=2&b=%20x%2B+y&c=").json

    assert told["query"] == {"a": ["1", "2"], "b": [" x+ y"], "c": [""]}


@pytest.mark.parametrize("length", [0, 1, 4_000_000])
def test_a_body_arrives_whole(door: Door, length: int):
    answer = door.ask("POST", "/echo/v1/streams/s/events", b"x" * length, {"Content-Type": "application/json"})

    assert answer.json["body_length"] == length


def test_a_chunked_body_arrives_whole(door: Door):
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    answer = door.ask("POST", "/echo/v1/streams/s/events", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", headers)

    assert answer.json["body"] == "abcde"


def test_a_client_that_waits_for_100_continue_is_answered(door: Door):
    with socket.create_connection((LOOPBACK, door.port), timeout=5) as client:
        client.sendall(
            f"POST /echo/v1/streams/s/events HTTP/1.1\r\nHost: {LOOPBACK}:{door.port}\r\n"
            "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_binary_answer_and_a_signed_query_arrive_byte_for_byte(platform: Platform, door: Door):
    files = platform.client("s3")
    where = {"Bucket": fixture_stack.BUCKET, "Key": "every byte"}
    files.put_object(**where, Body=bytes(range(256)))
    signed = urlsplit(files.generate_presigned_url("get_object", Params=where))

    assert door.ask("GET", f"/files{signed.path}?{signed.query}").body == bytes(range(256))


def test_headers_pass_except_those_that_speak_of_one_connection(door: Door):
    sent = {"Authorization": "Bearer x", "Idempotency-Key": "k", "Connection": "X-Hop", "X-Hop": "1", "TE": "trailers"}
    answer = door.ask("GET", "/echo/openapi.json", headers=sent)
    seen = {name.lower(): value for name, value in answer.json["headers"].items()}

    assert seen["authorization"] == "Bearer x"
    assert seen["idempotency-key"] == "k"
    assert not {"connection", "x-hop", "te", "accept-encoding"} & set(seen)
    assert answer.headers["x-echo"] == "yes"


def test_a_caller_cannot_invent_where_it_came_from(door: Door):
    told = door.ask("GET", "/echo/openapi.json", headers={"X-Forwarded-For": "8.8.8.8"}).json

    assert told["headers"]["x-forwarded-for"] == LOOPBACK


@pytest.mark.parametrize("length", ["header", "chunks"])
def test_a_body_over_the_quota_is_refused(door: Door, length: str):
    body = b"x" * (BODY_BYTES_MAX + 1)
    if length == "chunks":
        framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        answer = door.ask("POST", "/echo/v1/streams/s/events", framed, {"Transfer-Encoding": "chunked"})
    else:
        answer = door.ask("POST", "/echo/v1/streams/s/events", body)

    assert (answer.status, answer.json["code"]) == (413, "body_too_large")


def test_an_exception_of_a_function_says_no_more_than_on_aws(door: Door):
    answer = door.ask("GET", "/echo/boom")

    assert (answer.status, answer.json["code"]) == (502, "outcome_unknown")
    assert "message" not in answer.json
    assert b"secret" not in answer.body


def test_a_problem_that_a_function_answers_itself_is_left_alone(door: Door):
    answer = door.ask("GET", "/echo/problem")

    assert (answer.status, answer.json) == (503, {"code": "x"})
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_route_that_does_not_exist_is_refused_as_on_aws(door: Door):
    answer = door.ask("GET", "/echo/nothing")

    assert (answer.status, answer.json) == (403, {"message": "Missing Authentication Token"})


@pytest.mark.parametrize("path", ["/nobody/v1", "/nobody", "//echo/openapi.json", "/_ministack/health"])
def test_an_unknown_service_is_told_the_known_ones(door: Door, path: str):
    answer = door.ask("GET", path)

    assert (answer.status, answer.json["code"]) == (404, "unknown_service")
    assert "/echo, /files, /gone" in answer.json["detail"]


def test_no_path_leads_out_of_the_api(door: Door):
    assert door.ask("GET", "/echo/../../../../_ministack/health").status == 403
    assert door.ask("GET", "/echo/..%2f..%2f..%2f..%2f_ministack/health").status == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", ""])
def test_a_page_that_points_its_own_name_at_this_machine_is_refused(door: Door, host: str):
    answer = door.ask("GET", "/echo/openapi.json", headers={"Host": host})

    assert (answer.status, answer.json["code"]) == (421, "unknown_host")


def test_an_engine_that_is_gone_is_told_as_such(door: Door):
    answer = door.ask("GET", "/gone/openapi.json")

    assert (answer.status, answer.json["code"], answer.json["retryable"]) == (503, "engine_unavailable", True)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_function_that_takes_too_long_is_told_as_such(platform: Platform, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RESPONSE_SECONDS_MAX", 0.5)
    port = free_ports()
    running = Gateway(port)
    running.start()
    running.routes = {"echo": route(platform.deployed.api_urls["echo"], platform.endpoint_url)}
    try:
        answer = Door(port).ask("GET", "/echo/slow")
    finally:
        running.stop()

    assert (answer.status, answer.json["code"]) == (504, "integration_timeout")


def test_the_root_lists_the_services(door: Door):
    assert door.ask("GET", "/").json["services"]["echo"] == {"url": f"http://{LOOPBACK}:{door.port}/echo"}
