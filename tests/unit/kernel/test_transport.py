"""What a transport says is known after one attempt, for every answer and every silence, over real sockets."""

import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from holdfast import aws
from holdfast.dynamodb.transport import (
    BotocoreTransport,
    Busy,
    Cancelled,
    Refused,
    Rejected,
    Told,
    Unknown,
    date_of,
    is_clock_fault,
    told_by,
    told_by_reasons,
)

ITEM = {"pk": {"S": "a"}}
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
NOON_TEXT = "Tue, 24 Nov 2026 12:00:00 GMT"

Connection = socket.socket
Behaviour = Callable[[Connection], None]
"""What the other side does with a connection once it has read the request; then it closes it."""


# --- The other side


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(aws, "READ_TIMEOUT_SECONDS", 0.3)
    aws.client.cache_clear()
    yield
    aws.client.cache_clear()


@contextmanager
def store(behave: Behaviour) -> Iterator[tuple[str, list[bytes]]]:
    """Listen as DynamoDB would, and note each request."""
    requests = list[bytes]()
    threads = list[threading.Thread]()

    def answer(connection: Connection) -> None:
        with connection:
            connection.settimeout(5)
            requests.append(read_request(connection))
            behave(connection)

    def accept() -> None:
        while not is_over.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=answer, args=(connection,), daemon=True))
            threads[-1].start()

    is_over = threading.Event()
    accepting = threading.Thread(target=accept, daemon=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.02)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", requests
        finally:
            is_over.set()
            for thread in (accepting, *threads):
                thread.join(timeout=10)


def read_request(connection: Connection) -> bytes:
    """Read head and body: what is left unread at a close would reset the connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    [length] = [int(line[15:]) for line in head.lower().splitlines() if line.startswith(b"content-length:")]
    while len(body) < length:
        body += connection.recv(65536)
    return head + body


def message(status: int, body: bytes, *, length: int | None = None, **headers: str) -> bytes:
    stated = {"Content-Length": str(len(body) if length is None else length), "Date": NOON_TEXT, "Connection": "close"}
    stated |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in stated.items() if value)
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + body


def says(*arguments: Any, **options: Any) -> Behaviour:
    return lambda connection: connection.sendall(message(*arguments, **options))


def reset(connection: Connection) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stay_silent(_: Connection) -> None:
    time.sleep(0.6)


def begin_and_stop(connection: Connection) -> None:
    connection.sendall(message(200, b'{"a":', length=50))
    stay_silent(connection)


def error(name: str, text: str = "…", **more: str) -> bytes:
    extra = "".join(f', "{member}": {value}' for member, value in more.items())
    return f'{{"__type": "com.amazonaws.dynamodb.v20120810#{name}", "message": "{text}"{extra}}}'.encode()


def told_of(behave: Behaviour) -> Told:
    """Put an item at a store that behaves so, and answer what is told; one attempt, whatever it is."""
    with store(behave) as (url, requests):
        with pytest.raises(Told) as told:
            BotocoreTransport("us-east-1", url).call("PutItem", {"TableName": "t", "Item": ITEM})
        assert len(requests) == 1
    return told.value


# --- Answers that arrived


def test_a_good_answer_brings_its_body_and_its_date():
    body = b'{"Item": {"pk": {"S": "a"}}}'

    for behave in (
        says(200, body),
        says(200, body, x_amz_crc32=str(zlib.crc32(body))),
        says(200, b"1c\r\n" + body + b"\r\n0\r\n\r\n", Content_Length="", Transfer_Encoding="chunked"),
        says(200, body, Content_Length=""),
    ):
        with store(behave) as (url, _):
            answer = BotocoreTransport("us-east-1", url).call("GetItem", {"TableName": "t", "Key": ITEM})
        assert (answer.body["Item"], answer.date) == (ITEM, NOON)


@pytest.mark.parametrize(
    "behave",
    [
        says(200, b'{"Item": {"pk"', length=50),
        says(200, b"{}", length=3),
        says(200, b"{}", x_amz_crc32="1"),
        says(200, b"{}", x_amz_crc32="none"),
        says(200, b'{"Item": {"pk"', Content_Length=""),
        says(200, b'{"Item": {"pk"'),
        says(200, b'4\r\n{"It\r\n', Content_Length="", Transfer_Encoding="chunked"),
        says(200, b""),
        says(204, b""),
        says(200, b"[]"),
        says(200, b"null"),
        says(200, b'"Item"'),
        says(200, b'{"Item": {"pk": {"S": "\xff\xfe"}}}'),
        says(200, b'{"Attributes": 5}'),
        says(200, b"<html>Sign in</html>", Content_Type="text/html"),
        says(200, b"not gzip", Content_Encoding="gzip"),
        says(301, b"", Location="http://127.0.0.1:1/"),
        says(307, b"", Location="http://127.0.0.1:1/"),
        says(300, b"{}"),
        says(403, b"<html>No</html>", Content_Type="text/html"),
        says(400, b""),
        says(400, b"[]"),
        says(400, b'{"__type": 5}'),
        says(400, error("ConditionalCheckFailedException"), length=500),
        says(400, error("ConditionalCheckFailedException"), x_amz_crc32="1"),
        says(400, error("TransactionCanceledException")),
        says(400, error("TransactionInProgressException")),
        says(400, error("RequestTimeoutException")),
        says(408, b""),
        says(408, error("SomethingTimeout")),
        says(500, error("InternalServerError")),
        says(500, error("ConditionalCheckFailedException")),
        says(500, b"<html>Oops</html>", Content_Type="text/html"),
        says(502, b""),
        says(503, b"[1]"),
        lambda connection: connection.sendall(b"BLAH\r\n\r\n"),
        lambda connection: connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n"),
        lambda _: None,
        reset,
        stay_silent,
        begin_and_stop,
    ],
)
def test_whatever_is_not_surely_the_answer_leaves_it_unknown(behave: Behaviour):
    assert type(told_of(behave)) is Unknown


@pytest.mark.parametrize(
    ("behave", "kind"),
    [
        (says(400, error("ConditionalCheckFailedException", Item='{"pk": {"S": "a"}}')), Refused),
        (says(400, error("ThrottlingException")), Busy),
        (says(400, error("Throttling")), Busy),
        (says(400, error("ProvisionedThroughputExceededException")), Busy),
        (says(400, error("TransactionConflictException")), Busy),
        (says(429, b""), Busy),
        (says(429, error("TooManyRequestsException")), Busy),
        (says(400, error("ValidationException")), Rejected),
        (says(400, error("AccessDeniedException")), Rejected),
        (says(400, error("ExpiredTokenException")), Rejected),
    ],
)
def test_what_the_store_says_by_name_is_definite(behave: Behaviour, kind: type[Told]):
    assert type(told_of(behave)) is kind


@pytest.mark.parametrize(
    "behave",
    [
        says(400, error("ConditionalCheckFailedException")),
        says(400, error("TransactionCanceledException", CancellationReasons='[{"Code": "ConditionalCheckFailed"}]')),
        says(400, error("ThrottlingException")),
        says(400, error("ValidationException")),
        says(500, error("InternalServerError")),
        says(429, b""),
        says(200, b"{", length=50),
    ],
)
def test_an_error_is_dated_as_an_answer_is(behave: Behaviour):
    assert told_of(behave).date == NOON


def test_a_refusal_carries_what_stands_there():
    told = told_of(says(400, error("ConditionalCheckFailedException", Item='{"pk": {"S": "a"}}')))

    assert isinstance(told, Refused)
    assert told.item == ITEM


@pytest.mark.parametrize("status", [400, 429])
def test_a_throttle_is_told_from_a_conflict(status: int):
    throttle = told_of(says(status, error("ThrottlingException")))
    conflict = told_of(says(400, error("TransactionConflictException")))

    assert isinstance(throttle, Busy)
    assert isinstance(conflict, Busy)
    assert (throttle.is_throttle, conflict.is_throttle) == (True, False)


# --- Clocks


@pytest.mark.parametrize(
    ("code", "text", "is_ours"),
    [
        ("InvalidSignatureException", "Signature expired: 20261124T110000Z is now earlier than …", True),
        ("InvalidSignatureException", "Signature not yet current: 20261124T130000Z is still later than …", True),
        (
            "InvalidSignatureException",
            "The request signature we calculated does not match the one you provided.",
            False,
        ),
        ("RequestTimeTooSkewed", "…", True),
        ("RequestExpired", "…", True),
        ("ValidationException", "Signature expired", False),
    ],
)
def test_a_signature_out_of_its_time_is_the_fault_of_our_clock(code: str, text: str, is_ours: bool):
    told = told_of(says(400, error(code, text)))

    assert isinstance(told, Rejected)
    assert (told.code, told.date, is_clock_fault(told)) == (code, NOON, is_ours)
    assert not is_clock_fault(Unknown(text))


@pytest.mark.parametrize(
    "text",
    ["soon", "", "Tue, 24 Nov 2026 12:00:00", "Tue, 24 Nov 2026 12:00:00 -0000", "Tue, 24 Nov 99999 12:00:00 GMT"],
)
def test_a_date_that_means_no_moment_is_none(text: str):
    with store(says(200, b"{}", Date=text)) as (url, _):
        assert BotocoreTransport("us-east-1", url).call("ListTables", {}).date is None


def test_a_date_is_read_as_utc():
    date = date_of({"ResponseMetadata": {"HTTPHeaders": {"date": "Tue, 24 Nov 2026 14:00:00 +0200"}}})

    assert date is not None
    assert date.isoformat() == "2026-11-24T12:00:00+00:00"
    assert date_of({}) is None


# --- Cancelled transactions


FAILED = {"Code": "ConditionalCheckFailed", "Item": ITEM}
CONFLICT = {"Code": "TransactionConflict"}
THROTTLED = {"Code": "ThrottlingError"}
NO_REASON = {"Code": "None"}


def test_a_failed_condition_alone_is_definite():
    told = told_by_reasons([FAILED, NO_REASON])

    assert isinstance(told, Cancelled)
    assert [reason.item for reason in told.reasons] == [ITEM, None]


@pytest.mark.parametrize("passing", [CONFLICT, THROTTLED, {"Code": "ProvisionedThroughputExceeded"}])
def test_a_failed_condition_beside_a_reason_that_passes_is_busy(passing: dict[str, Any]):
    # The neighbour may be our own earlier attempt: the condition fails because it has written that row already.
    for reasons in ([FAILED, passing], [passing, FAILED], [passing, NO_REASON]):
        assert type(told_by_reasons(reasons)) is Busy


def test_a_conflict_is_no_throttle_even_beside_one():
    conflict, throttle = told_by_reasons([CONFLICT, THROTTLED]), told_by_reasons([THROTTLED, NO_REASON])

    assert isinstance(conflict, Busy)
    assert isinstance(throttle, Busy)
    assert (conflict.is_throttle, throttle.is_throttle) == (False, True)


@pytest.mark.parametrize("reasons", [[], [NO_REASON, NO_REASON], [{}]])
def test_a_transaction_that_was_cancelled_for_no_reason_is_unknown(reasons: list[dict[str, Any]]):
    assert type(told_by_reasons(reasons)) is Unknown


def test_an_answer_that_names_nothing_at_all_is_unknown():
    assert type(told_by({})) is Unknown


# --- What was never sent


def test_a_port_that_nobody_listens_at_was_not_reached():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with pytest.raises(Busy) as told:
        BotocoreTransport("us-east-1", f"http://127.0.0.1:{port}").call("ListTables", {})
    assert (told.value.code, told.value.is_throttle) == ("not_reached", False)


@pytest.mark.parametrize(
    ("operation", "request_", "code"),
    [
        ("PutItem", {"TableName": "t"}, "ParamValidationError"),
        ("PutItem", {"TableName": "t", "Item": {"pk": {"S": 5}}}, "ParamValidationError"),
        ("PutPoem", {}, "AttributeError"),
    ],
)
def test_a_request_that_cannot_be_written_is_rejected_unsent(operation: str, request_: dict[str, Any], code: str):
    with store(says(200, b"{}")) as (url, requests):
        with pytest.raises(Rejected) as told:
            BotocoreTransport("us-east-1", url).call(operation, request_)
        assert requests == []
    assert told.value.code == code


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps those it has found


@pytest.mark.usefixtures("no_credentials")
def test_without_credentials_a_request_is_rejected_unsent():
    with store(says(200, b"{}")) as (url, requests):
        with pytest.raises(Rejected) as told:
            BotocoreTransport("us-east-1", url).call("ListTables", {})
        assert requests == []
    assert told.value.code == "NoCredentialsError"


@pytest.mark.usefixtures("no_credentials")
def test_credentials_that_cannot_be_fetched_reject_a_request_unsent(monkeypatch: pytest.MonkeyPatch):
    # botocore will not ask a host that is neither this machine nor one of Amazon's containers.
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/credentials")

    with store(says(200, b"{}")) as (url, requests):
        with pytest.raises(Rejected):
            BotocoreTransport("us-east-1", url).call("ListTables", {})
        assert requests == []


def test_what_was_known_of_the_attempt_before_says_nothing_of_this_one():
    with store(says(500, b"")) as (url, requests):
        transport = BotocoreTransport("us-east-1", url)
        with pytest.raises(Unknown):
            transport.call("ListTables", {})
        with pytest.raises(Rejected):
            transport.call("ListTables", {"Limit": "many"})
        assert len(requests) == 1


# --- Many at once


def test_more_calls_at_once_than_connections_are_kept_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aws, "CONNECTIONS_MAX", 1)
    monkeypatch.setattr(aws, "READ_TIMEOUT_SECONDS", 5.0)
    all_here = threading.Barrier(3)
    answers = list[object]()

    def answer_when_all_are_here(connection: Connection) -> None:
        all_here.wait(timeout=4)
        connection.sendall(message(200, b'{"TableNames": []}'))

    with store(answer_when_all_are_here) as (url, _):
        transport = BotocoreTransport("us-east-1", url)
        aws.client("dynamodb", region="us-east-1", endpoint_url=url)  # one for all
        threads = [
            threading.Thread(target=lambda: answers.append(transport.call("ListTables", {}).body["TableNames"]))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=10)

    assert answers == [[], [], []]
