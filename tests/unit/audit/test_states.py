"""What changed between two states, and how fast a rebuild goes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.audit.domain import merge_patch, pace_of
from holdfast.errors import Invalid
from holdfast.folds import merge

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {}, {"a": None}),
        ({}, {"a": {"b": [None]}}, {"a": {"b": [None]}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 3}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": None}}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": [1]}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": True}, {"a": 1}, {"a": 1}),
        ({"n": None, "a": 1}, {"n": None, "a": 2}, {"a": 2}),
        ([1], {"a": 1}, {"a": 1}),
        ({"a": 1}, [1], [1]),
        ({"a": 1}, None, None),
    ],
)
def test_a_merge_patch_says_what_changed(before: Any, after: Any, patch: Any):
    assert merge_patch(before, after) == patch
    assert merge(before, patch) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, {"a": None}), ({"a": 1}, {"a": None}), ({}, {"a": {"b": None}}), ({"a": 1}, {"a": {"b": None}})],
)
def test_a_null_that_came_to_be_cannot_be_said(before: Any, after: Any):
    with pytest.raises(Invalid) as caught:
        merge_patch(before, after)

    assert (caught.value.code, caught.value.http_status) == ("no_merge_patch", 422)


@pytest.mark.parametrize(
    ("positions", "seconds", "finished", "pace"),
    [
        ((0, 0), 10, False, (None, None)),
        ((50, 0), 10, False, (5.0, 10.0)),
        ((50, 50), 10, False, (10.0, 0.0)),
        ((70, 50), 10, False, (10.0, 0.0)),  # the live one has gone further meanwhile
        ((50, 0), 10, True, (5.0, 0.0)),
        ((50, 0), 0, False, (None, None)),
    ],
)
def test_a_rebuild_s_rate_tells_how_long_it_will_take(
    positions: tuple[int, ...], seconds: int, finished: bool, pace: tuple[Any, Any]
):
    now = START + timedelta(seconds=seconds)
    found = pace_of(positions, (50, 50), started_at=START, finished_at=now if finished else None, now=now)

    assert (found.rate, found.remaining_seconds) == pace
