"""The enumeration of crash points: it meets every one, and a scenario that cannot bear one is found."""

import itertools
from dataclasses import dataclass, field

import pytest

from holdfast.dynamodb.attributes import to_item
from holdfast.testing import Crash, Fuse, at_every_crash
from tests.dynamo_tables import TestTables, memory_stores
from tests.promises import event, events_of


@dataclass
class World:
    database: TestTables = field(default_factory=memory_stores)

    def balance(self) -> int:
        request = {"TableName": self.database.tables.of_role("balances"), "Key": BALANCE}
        row = self.database.transport.call("GetItem", request).body.get("Item")
        return int(row["n"]["N"]) if row else 0


BALANCE = to_item({"pk": "b", "sk": 0})


def append(world: World, fuse: Fuse) -> None:
    transport = fuse.wrap(world.database.transport)
    store = world.database.stores(transport=transport).of("t", "ann")
    store.append("a", 0, [event(1)], commit_id="mine")
    store.append("b", "any", [event(2)], commit_id="also mine")


def add_without_a_guard(world: World, fuse: Fuse) -> None:
    request = {
        "TableName": world.database.tables.of_role("balances"),
        "Key": BALANCE,
        "UpdateExpression": "ADD n :n",
        "ExpressionAttributeValues": to_item({":n": 1}),
    }
    fuse.wrap(world.database.transport).call("UpdateItem", request)


def test_an_append_resumed_after_any_crash_stands_once():
    seen = []

    def then(crash: Crash[World]) -> None:
        seen.append((crash.number, crash.after, crash.call))
        append(crash.world, Fuse())
        store = crash.world.database.stores().of("t", "ann")
        assert events_of([*store.read("a"), *store.read("b")]) == [event(1), event(2)]

    points = at_every_crash(World, append, then)

    calls = ["call Query", "call PutItem", "call Query", "call TransactWriteItems"]
    assert points == len(seen) == 2 * len(calls)
    assert [each[:2] for each in seen] == list(itertools.product(range(1, 5), (False, True)))
    assert [each[2] for each in seen[::2]] == calls


def test_a_bare_addition_is_found_to_add_twice_and_where():
    def then(crash: Crash[World]) -> None:
        add_without_a_guard(crash.world, Fuse())
        assert crash.world.balance() == 1

    with pytest.raises(AssertionError) as found:
        at_every_crash(World, add_without_a_guard, then)

    assert found.value.__notes__ == ["crashed after call 1: call UpdateItem"]


def test_a_process_that_has_ended_calls_nothing_any_more():
    def act(world: World, fuse: Fuse) -> None:
        try:
            append(world, fuse)
        finally:
            add_without_a_guard(world, fuse)

    ended = [crash.call for crash in worlds(act) if crash.call != "call UpdateItem" and crash.world.balance() > 0]

    assert ended == []


def test_a_scenario_that_is_not_the_same_each_time_is_told():
    runs = itertools.count()

    def act(world: World, fuse: Fuse) -> None:
        if next(runs) == 0:
            add_without_a_guard(world, fuse)

    with pytest.raises(AssertionError, match="not the same each time"):
        at_every_crash(World, act, lambda crash: None)


def test_a_scenario_without_calls_proves_nothing():
    with pytest.raises(AssertionError, match="0 calls"):
        at_every_crash(World, lambda world, fuse: None, lambda crash: None)


def worlds(act) -> list[Crash[World]]:
    crashed: list[Crash[World]] = []
    at_every_crash(World, act, crashed.append)
    return crashed
