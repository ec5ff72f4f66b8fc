"""Batches of reads and of writes: what an answer leaves out is asked for again, within one budget and one deadline."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.clock import ManualClock
from holdfast.dynamodb import Database
from holdfast.dynamodb.attributes import from_item, item_bytes, to_item
from holdfast.dynamodb.batches import delete_many, put_many
from holdfast.dynamodb.reads import get_many
from holdfast.dynamodb.transport import Answer, Unknown
from holdfast.dynamodb.writes import CALLS
from holdfast.errors import ServiceError, Throttled, Unavailable
from holdfast.retry import deadline
from tests.memory_dynamodb import MemoryTransport
from tests.memory_dynamodb.values import kept_row

ROWS: list[dict[str, Any]] = [{"pk": f"p{number}", "sk": 0, "n": number} for number in range(60)]
PLACES = [("rows", row["pk"], row["sk"]) for row in ROWS]


class Watched(ManualClock):
    """A clock that notes how long it was slept on."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        super().sleep(seconds)


class LeavingOut:
    """A store that does only so many parts of a batch at a time."""

    def __init__(self, at_once: int) -> None:
        self.inner = MemoryTransport()
        self.inner.create_table("rows", "N")
        self.at_once = at_once
        self.calls = 0

    def call(self, operation: str, request: Any) -> Answer:
        self.calls += 1
        asked = request["RequestItems"]["rows"]
        is_read = operation == "BatchGetItem"
        parts = asked["Keys"] if is_read else asked
        done, left = parts[: self.at_once], parts[self.at_once :]

        def of(some: Any) -> Any:
            return {"rows": {**asked, "Keys": some} if is_read else some} if some else {}

        answer = self.inner.call(operation, {"RequestItems": of(done)}).body if done else {"Responses": {}}
        return Answer({**answer, "UnprocessedKeys" if is_read else "UnprocessedItems": of(left)}, None)


class Silent(LeavingOut):
    """A store that does something, and says nothing."""

    def call(self, operation: str, request: Any) -> Answer:
        super().call(operation, request)
        raise Unknown("no answer")


def rows_in(store: LeavingOut) -> list[Any]:
    return sorted(map(from_item, store.inner.rows("rows")), key=lambda row: row["n"])


def filled(at_once: int) -> LeavingOut:
    store = LeavingOut(25)
    put_many(Database.connect(store, ManualClock()), "rows", ROWS)
    store.at_once, store.calls = at_once, 0
    return store


BATCHES: list[Callable[[Database], Any]] = [
    lambda database: get_many(database, PLACES),
    lambda database: put_many(database, "rows", ROWS),
    lambda database: delete_many(database, "rows", [(row["pk"], row["sk"]) for row in ROWS]),
]


def test_what_an_answer_leaves_out_is_asked_for_again():
    store = filled(13)
    database = Database.connect(store, ManualClock())

    assert get_many(database, PLACES) == dict(zip(PLACES, ROWS, strict=True))
    assert store.calls == 5
    delete_many(database, "rows", [(row["pk"], row["sk"]) for row in ROWS[5:]])
    assert rows_in(store) == ROWS[:5]
    put_many(database, "rows", ROWS)
    assert rows_in(store) == ROWS


@pytest.mark.parametrize("batch", BATCHES)
def test_a_store_that_keeps_leaving_out_is_throttled_within_the_budget_of_a_call(batch):
    store, clock = filled(0), Watched()

    with pytest.raises(Throttled) as told:
        batch(Database.connect(store, clock))

    assert told.value.retry_after_seconds == 1
    assert store.calls == CALLS.attempts_max
    assert len(clock.waits) == CALLS.attempts_max - 1
    assert max(clock.waits) <= CALLS.longest_wait_seconds


@pytest.mark.parametrize("batch", BATCHES)
def test_no_wait_ends_behind_the_deadline(batch):
    store, clock = filled(0), Watched()

    with deadline(0.1, clock), pytest.raises(Throttled):
        batch(Database.connect(store, clock))

    assert sum(clock.waits) < 0.1
    assert store.calls < CALLS.attempts_max


@pytest.mark.parametrize("batch", BATCHES[1:])
@pytest.mark.parametrize("store", [Silent(25), LeavingOut(3)])
def test_nobody_says_that_nothing_happened_where_rows_were_written(batch, store):
    with pytest.raises((Throttled, Unavailable)) as told:
        batch(Database.connect(store, ManualClock()))

    error: ServiceError = told.value
    assert error.code in ("store_throttled", "store_unavailable")
    assert "Nothing happened" not in error.detail
    assert "repeat" in error.detail


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"text": "é☃", "": "x"},
        {"n": 0, "big": -(10**37), "yes": True, "none": None, "bytes": b"123"},
        {"list": [], "map": {}, "deep": [{"a": [1, "b", b"c", None, [[]]]}, {"d": {"e": {}}}]},
    ],
)
def test_an_item_is_never_weighed_as_less_than_it_is(row):
    item = to_item(row)

    assert kept_row(item).size <= item_bytes(item)


def test_an_item_that_is_nested_too_deep_is_not_weighed():
    nested: Any = {}
    for _ in range(32):
        nested = {"a": [nested]}

    with pytest.raises(ValueError, match="32 levels"):
        item_bytes(to_item(nested))
