"""What is tried under every fault: each kind of append, and how it is told that it was applied once."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from holdfast.clock import ManualClock
from holdfast.dynamodb import DynamoEventStore
from holdfast.dynamodb.attributes import to_item
from holdfast.streams import ANY, Append, Is, Put, Update
from tests.dynamo_tables import TestTables, row_reader
from tests.promises import event, events_of

TENANT = "t"


BACK = timedelta(minutes=15)


ATTEMPTS_COVERED = 4
"""Every call sequence of one append fits in these; a test below sees to it."""


Act = Callable[[DynamoEventStore[bytes], str], Any]


def append_expected(store: DynamoEventStore[bytes], tenant: str) -> Any:
    return store.append("a", 1, [event(2), event(3)], commit_id="mine")


def append_any(store: DynamoEventStore[bytes], tenant: str) -> Any:
    return store.append("a", ANY, [event(2), event(3)], commit_id="mine")


def append_with_companion(store: DynamoEventStore[bytes], tenant: str) -> Any:
    spend = Update("balances", balance_key(tenant), (Is("v", 1),), set={"v": 2}, add={"amount": -4})
    return store.append("a", 1, [event(2), event(3)], commit_id="mine", companions=[spend])


def append_to_two(store: DynamoEventStore[bytes], tenant: str) -> Any:
    return store.append_many([Append("a", 1, [event(2), event(3)]), Append("b", ANY, [event(9)])], commit_id="mine")


ACTS: list[Act] = [append_expected, append_any, append_with_companion, append_to_two]


def balance_key(tenant: str) -> dict[str, Any]:
    return {"pk": f"balance#{tenant}", "sk": 0}


def begun(database: TestTables, tenant: str) -> DynamoEventStore[bytes]:
    """Give a store without faults, on a stream with one event and a balance of 10."""
    store = database.stores(ManualClock()).of(tenant, "ann")
    store.append(
        "a",
        0,
        [event(1)],
        commit_id="before",
        companions=[Put("balances", balance_key(tenant), {"amount": 10, "v": 1})],
    )
    return store


def found_at(database: TestTables, tenant: str, version: int) -> Any:
    """Read a commit's item as it goes over the network."""
    key = {"pk": f"S#{tenant}#a", "sk": version}
    return database.transport.call("GetItem", {"TableName": database.tables.commits, "Key": to_item(key)}).body["Item"]


def applied_once(database: TestTables, store: DynamoEventStore[bytes], tenant: str, act: Act) -> bool:
    row = row_reader(database)("balances", balance_key(tenant))
    assert row is not None
    spent = act is append_with_companion
    return (
        events_of(list(store.read("a"))) == [event(1), event(2), event(3)]
        and row["amount"] == (6 if spent else 10)
        and len(events_of(list(store.read("b")))) == (1 if act is append_to_two else 0)
    )
