"""What a transport says is known after one attempt, for every answer and every silence."""

import socket
import threading
from typing import Any

import pytest

from holdfast.aws import client
from holdfast.dynamodb.transport import (
    BotocoreTransport,
    Busy,
    Cancelled,
    Refused,
    Rejected,
    Unknown,
    date_of,
    told_by,
    told_by_reasons,
)

ITEM = {"pk": {"S": "a"}}


def answer(code: str, status: int = 400, **more: Any) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": "…"}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (answer("ConditionalCheckFailedException", Item=ITEM), Refused),
        (answer("ThrottlingException"), Busy),
        (answer("ProvisionedThroughputExceededException"), Busy),
        (answer("TransactionConflictException"), Busy),
        (answer("TransactionInProgressException"), Unknown),
        (answer("InternalServerError", 500), Unknown),
        (answer("SomethingNew", 503), Unknown),
        (answer("ValidationException"), Rejected),
        (answer("AccessDeniedException"), Rejected),
    ],
)
def test_an_error_answer_says_what_is_known(response, kind):
    assert type(told_by(response)) is kind


def test_a_refusal_carries_what_stands_there():
    told = told_by(answer("ConditionalCheckFailedException", Item=ITEM))

    assert isinstance(told, Refused)
    assert told.item == ITEM


def test_a_conflict_with_a_neighbour_is_busy_not_refused():
    told = told_by_reasons([{"Code": "None"}, {"Code": "TransactionConflict"}])

    assert isinstance(told, Busy)
    assert not told.is_throttle


def test_a_failed_condition_beside_a_conflict_is_definite():
    told = told_by_reasons([{"Code": "ConditionalCheckFailed", "Item": ITEM}, {"Code": "TransactionConflict"}])

    assert isinstance(told, Cancelled)
    assert told.reasons[0].item == ITEM


def test_the_date_of_an_answer_is_read_as_utc():
    date = date_of({"ResponseMetadata": {"HTTPHeaders": {"date": "Tue, 24 Nov 2026 00:00:00 GMT"}}})

    assert date is not None
    assert date.isoformat() == "2026-11-24T00:00:00+00:00"
    assert date_of({}) is None


@pytest.fixture
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client.cache_clear()
    yield
    client.cache_clear()


def test_a_port_that_nobody_listens_at_was_not_reached(credentials):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with pytest.raises(Busy) as told:
        BotocoreTransport("us-east-1", f"http://127.0.0.1:{port}").call("ListTables", {})
    assert told.value.code == "not_reached"


def test_a_connection_cut_before_the_answer_leaves_it_unknown_after_one_attempt(credentials):
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def cut() -> None:
            connection, _ = server.accept()
            accepted.append(connection.recv(65536))
            connection.close()

        thread = threading.Thread(target=cut)
        thread.start()
        with pytest.raises(Unknown):
            BotocoreTransport("us-east-1", f"http://127.0.0.1:{server.getsockname()[1]}").call("ListTables", {})
        thread.join(timeout=10)
    assert len(accepted) == 1
