"""The key that seals cursors, wherever it is kept."""

import base64
from datetime import timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws

from holdfast.aws import client
from holdfast.clock import ManualClock
from holdfast.cursor_keys import REFRESH_SECONDS, RETRY_SECONDS, CursorKey, cursor_key_from, read_key_parameter
from holdfast.errors import Invalid, Unavailable
from holdfast.retry import deadline

NAME = "/holdfast/auth/cursor-key"


class Kept:
    """A key that may be away, or be replaced."""

    def __init__(self, key: bytes | None) -> None:
        self.key = key
        self.reads = 0

    def __call__(self) -> bytes:
        self.reads += 1
        if self.key is None:
            raise ConnectionError("nobody answers")
        return self.key


@pytest.fixture
def clock():
    return ManualClock()


def test_the_key_is_read_once_for_many_cursors(clock: ManualClock):
    kept = Kept(b"k" * 32)
    key = CursorKey(kept, clock)

    cursor = key.cursors().seal("acme", "q", 7)

    assert key.cursors().open("acme", "q", cursor) == 7
    assert kept.reads == 1


def test_a_key_that_was_replaced_is_taken_up(clock: ManualClock):
    kept = Kept(b"k" * 32)
    key = CursorKey(kept, clock)
    cursor = key.cursors().seal("acme", "q", 7)

    kept.key = b"K" * 32
    clock.advance(timedelta(seconds=REFRESH_SECONDS))

    with pytest.raises(Invalid):
        key.cursors().open("acme", "q", cursor)


@pytest.mark.parametrize("seconds", [REFRESH_SECONDS, -REFRESH_SECONDS])
def test_a_key_that_was_replaced_while_the_sandbox_was_frozen_is_taken_up(clock: ManualClock, seconds: int):
    kept = Kept(b"k" * 32)
    key = CursorKey(kept, clock)
    cursor = key.cursors().seal("acme", "q", 7)

    kept.key = b"K" * 32
    clock.jump(timedelta(seconds=seconds))

    with pytest.raises(Invalid):
        key.cursors().open("acme", "q", cursor)


def test_a_key_that_is_known_serves_while_it_cannot_be_read_again(clock: ManualClock):
    kept = Kept(b"k" * 32)
    key = CursorKey(kept, clock)
    key.cursors()

    kept.key = None
    clock.advance(timedelta(seconds=REFRESH_SECONDS))

    assert key.cursors() is key.cursors()
    assert kept.reads == 2


def test_without_a_key_there_are_no_cursors_and_not_every_request_waits_for_it(clock: ManualClock):
    kept = Kept(None)
    key = CursorKey(kept, clock)

    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            key.cursors()
        assert caught.value.code == "cursor_key_unknown"
    assert kept.reads == 1

    kept.key = b"k" * 32
    clock.advance(timedelta(seconds=RETRY_SECONDS))
    assert key.cursors()


def test_a_key_that_is_too_short_is_none(clock: ManualClock):
    with pytest.raises(Unavailable):
        CursorKey(Kept(b"short"), clock).cursors()


@mock_aws
def test_the_key_is_the_secure_parameter_that_the_function_is_told(monkeypatch: pytest.MonkeyPatch, clock: ManualClock):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client.cache_clear()
    value = base64.b64encode(b"k" * 32).decode()
    boto3.client("ssm").put_parameter(Name=NAME, Value=value, Type="SecureString")
    key = cursor_key_from({"HOLDFAST_CURSOR_KEY_PARAMETER": NAME}, clock)

    try:
        cursor = key.cursors().seal("acme", "q", 7)
    finally:
        client.cache_clear()

    assert CursorKey(lambda: b"k" * 32, clock).cursors().open("acme", "q", cursor) == 7


def test_a_request_that_ran_out_of_time_asks_for_no_key(clock: ManualClock):
    ssm: Any = None

    with deadline(0, clock), pytest.raises(Unavailable) as caught:
        read_key_parameter(ssm, NAME)

    assert caught.value.code == "out_of_time"
