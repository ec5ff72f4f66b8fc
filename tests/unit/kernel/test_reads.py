"""Walks over one partition: where they begin, where they end, and which bounds go together."""

from typing import Any

import pytest

from holdfast.dynamodb import Database
from holdfast.dynamodb.reads import query
from tests.memory_dynamodb import MemoryTransport
from tests.memory_dynamodb.one_table import put

NUMBERS = range(1, 10)


@pytest.fixture
def database() -> Database:
    store = MemoryTransport()
    store.create_table("t", "N")
    for number in NUMBERS:
        put(store, number)
    return Database.connect(store)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({}, [*NUMBERS]),
        ({"after": 3}, [4, 5, 6, 7, 8, 9]),
        ({"first": 7}, [7, 8, 9]),
        ({"until": 2}, [1, 2]),
        ({"first": 3, "until": 5}, [3, 4, 5]),
        ({"after": 3, "until": 5}, [4, 5]),
        ({"after": 3, "until": 5, "first_page": 1}, [4, 5]),
        ({"after": 3, "limit": 2}, [4, 5]),
        ({"after": 3, "newest_first": True}, [2, 1]),
        ({"until": 3, "newest_first": True, "limit": 2}, [3, 2]),
        ({"first": 3, "until": 5, "newest_first": True}, [5, 4, 3]),
    ],
)
def test_a_walk_yields_what_lies_within_its_bounds(database: Database, bounds: dict[str, Any], expected: list[int]):
    assert [row["sk"] for row in query(database, "t", "a", **bounds)] == expected


@pytest.mark.parametrize(
    "bounds",
    [
        {"after": 5, "until": 3, "newest_first": True},
        {"after": 3, "first": 3},
        {"prefix": "x", "after": "a"},
    ],
)
def test_bounds_that_contradict_each_other_are_a_mistake_and_not_half_heeded(
    database: Database, bounds: dict[str, Any]
):
    with pytest.raises(ValueError, match="do not go together"):
        list(query(database, "t", "a", **bounds))
