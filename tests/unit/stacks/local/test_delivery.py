"""What follows when a function has answered: retry, split, give up, in the order of the stream."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacks.local.delivery import Batch, Failed, FailedFrom, Record, Step, Succeeded, decide, understand
from stacks.local.profile import RETRY_FOR_EVER, StreamSource

ROUNDS_MAX = 10_000


def record(number: int) -> Record:
    return {"dynamodb": {"SequenceNumber": str(number)}}


def batch(*numbers: int, failures: int = 0) -> Batch:
    return Batch(tuple(record(number) for number in numbers), failures)


def source(**settings: Any) -> StreamSource:
    return StreamSource(table="t", function_name="f", **settings)


def answer(*identifiers: Any) -> bytes:
    return json.dumps({"batchItemFailures": [{"itemIdentifier": each} for each in identifiers]}).encode()


REPORTS = source(reports_item_failures=True)


@pytest.mark.parametrize("payload", [b"", b"null", b"{}", answer(), b'{"batchItemFailures": null}'])
def test_an_empty_answer_is_success(payload: bytes):
    assert understand(payload, batch(1, 2), REPORTS) == Succeeded()


def test_the_first_named_record_in_stream_order_counts_whatever_the_order_of_names():
    assert understand(answer("3", "2"), batch(1, 2, 3), REPORTS) == FailedFrom(1)


@pytest.mark.parametrize(
    "payload", [answer("9"), answer(""), answer(None), b'{"batchItemFailures": [{"id": "1"}]}', b'"done"', b"not json"]
)
def test_an_answer_that_names_nothing_known_fails_the_whole_batch(payload: bytes):
    assert understand(payload, batch(1, 2), REPORTS) == Failed()


def test_an_answer_is_not_read_where_item_failures_are_not_reported():
    assert understand(answer("1"), batch(1), source()) == Succeeded()


def test_success_leaves_nothing_to_do():
    assert decide(batch(1, 2), Succeeded(), source()) == Step()


def test_a_named_record_is_retried_with_all_that_follow_it_and_none_before():
    assert decide(batch(1, 2, 3), FailedFrom(1), source()) == Step(to_try=(batch(2, 3, failures=1),))


def test_a_failed_batch_is_retried_whole_without_bisect():
    assert decide(batch(1, 2), Failed(), source()) == Step(to_try=(batch(1, 2, failures=1),))


def test_a_failed_batch_is_split_in_two_with_bisect_and_that_is_no_retry():
    step = decide(batch(1, 2, 3, failures=2), Failed(), source(bisect=True, retries_max=2))

    assert step == Step(to_try=(batch(1), batch(2, 3)))


def test_the_whole_rest_is_given_up_without_bisect():
    step = decide(batch(1, 2, failures=2), Failed(), source(retries_max=2))

    assert step == Step(given_up=batch(1, 2, failures=3))


def test_only_the_named_record_is_given_up_with_bisect():
    step = decide(batch(1, 2, failures=2), FailedFrom(0), source(bisect=True, retries_max=2))

    assert step == Step(given_up=batch(1, failures=3), to_try=(batch(2),))


def test_a_record_is_tried_as_often_as_the_limit_says_and_once_more():
    tries, left = 0, batch(1)
    while True:
        tries += 1
        step = decide(left, Failed(), source(retries_max=2))
        if step.given_up:
            break
        [left] = step.to_try
    assert tries == 3


def test_without_a_limit_nothing_is_ever_given_up():
    assert decide(batch(1, failures=1_000_000), Failed(), source(retries_max=RETRY_FOR_EVER)).given_up is None


@given(
    count=st.integers(1, 20),
    poison=st.sets(st.integers(0, 19)),
    retries_max=st.integers(0, 3),
    reports=st.booleans(),
)
def test_with_bisect_exactly_the_poison_is_given_up_and_all_else_is_delivered_in_order(
    count: int, poison: set[int], retries_max: int, reports: bool
):
    settings = source(bisect=True, retries_max=retries_max, reports_item_failures=reports)
    to_try, delivered, given_up = [batch(*range(count))], [], []
    for _ in range(ROUNDS_MAX):
        if not to_try:
            break
        tried = to_try.pop(0)
        numbers = [int(each["dynamodb"]["SequenceNumber"]) for each in tried.records]
        bad = [number for number in numbers if number in poison]
        if not bad:
            delivered += numbers
            result = decide(tried, Succeeded(), settings)
        elif reports:
            delivered += numbers[: numbers.index(bad[0])]
            result = decide(tried, understand(answer(str(bad[0])), tried, settings), settings)
        else:
            result = decide(tried, Failed(), settings)
        if result.given_up:
            given_up += [int(each["dynamodb"]["SequenceNumber"]) for each in result.given_up.records]
        to_try = [*result.to_try, *to_try]

    assert delivered == [number for number in range(count) if number not in poison]
    assert given_up == [number for number in range(count) if number in poison]
