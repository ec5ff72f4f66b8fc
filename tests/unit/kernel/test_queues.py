"""One message of a batch fails alone; in a FIFO queue it takes those behind it with it."""

from typing import Any

import pytest

from holdfast.queues import each_message

PLAIN = "arn:aws:sqs:us-east-1:123456789012:intake"


def batch(*bodies: str, queue: str = PLAIN) -> dict[str, Any]:
    return {
        "Records": [
            {"messageId": f"m{number}", "body": body, "eventSourceARN": queue} for number, body in enumerate(bodies)
        ]
    }


def failed(answer: dict[str, Any]) -> list[str]:
    return [each["itemIdentifier"] for each in answer["batchItemFailures"]]


class Handler:
    """Takes messages, except those that say `bad`."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def __call__(self, body: bytes) -> None:
        if body == b"bad":
            raise ValueError("a bad message")
        self.taken.append(body)


@pytest.fixture
def handler() -> Handler:
    return Handler()


def test_each_message_is_handed_over_in_order(handler):
    assert each_message(batch("a", "b", "ç"), handler) == {"batchItemFailures": []}
    assert handler.taken == [b"a", b"b", "ç".encode()]


def test_a_message_that_fails_is_named_and_the_others_go_on(handler):
    assert failed(each_message(batch("a", "bad", "c", "bad"), handler)) == ["m1", "m3"]
    assert handler.taken == [b"a", b"c"]


def test_in_a_fifo_queue_nothing_overtakes_a_failure(handler):
    assert failed(each_message(batch("a", "bad", "c", queue=f"{PLAIN}.fifo"), handler)) == ["m1", "m2"]
    assert handler.taken == [b"a"]


def test_a_record_without_a_body_fails_alone(handler):
    event = batch("a", "b")
    del event["Records"][0]["body"]

    assert failed(each_message(event, handler)) == ["m0"]
    assert handler.taken == [b"b"]


def test_a_kill_is_no_failure_of_a_message():
    def killed(_: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        each_message(batch("a"), killed)
