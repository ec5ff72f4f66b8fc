"""Conditions and updates of DynamoDB in memory mean what DynamoDB documents, and nothing else is taken."""

import re
from typing import Any

import pytest

from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.transport import Refused
from tests.memory_dynamodb import MemoryTransport
from tests.memory_dynamodb.expressions import RESERVED
from tests.memory_dynamodb.one_table import TABLE, faulty, item, key, put, update


@pytest.fixture
def store() -> MemoryTransport:
    store = MemoryTransport()
    store.create_table("t", "N")
    return store


# ----- conditions


@pytest.mark.parametrize(
    ("condition", "is_true"),
    [
        ("attribute_exists(n)", True),
        ("attribute_not_exists(gone)", True),
        ("n = :five", True),
        ("n <> :five", False),
        ("gone = :five", False),
        ("gone <> :five", True),
        ("gone < :five", False),
        ("NOT gone < :five", True),
        ("n <= :five AND n >= :five", True),
        ("s < :five", False),
        ("s > :five", False),
        ("n = :five OR n = :five AND gone = :five", True),
        ("(n = :five OR n = :five) AND gone = :five", False),
        ("NOT n = :five AND gone = :five", False),
        ("NOT (n = :five AND gone = :five)", True),
        ("n BETWEEN :five AND :five", True),
        ("n = :five AND n BETWEEN :five AND :five AND attribute_exists(s)", True),
        ("begins_with(s, :te)", True),
        ("begins_with(n, :te)", False),
        ("begins_with(s, :te) and not begins_with(l, :te)", True),
        ("l[1] = :te", True),
        ("m.k = :five", True),
        ("m.k.k = :five", False),
        ("m = :m", True),
    ],
)
def test_conditions_mean_what_they_say(store, condition, is_true):
    put(store, n=5, s="text", l=["a", "te"], m={"k": 5})
    given = to_item({":five": 5, ":te": "te", ":m": {"k": 5}})
    used = {name: value for name, value in given.items() if re.search(rf"{name}\b", condition)}
    request = TABLE | {"Key": key(), "ConditionExpression": condition}
    request |= {"ExpressionAttributeValues": used} if used else {}

    if is_true:
        store.call("DeleteItem", request)
    else:
        with pytest.raises(Refused):
            store.call("DeleteItem", request)
    assert (item(store) is None) == is_true


@pytest.mark.parametrize(
    "condition",
    [
        "n < :flag",
        "begins_with(s, :flag)",
        "attribute_exists(n) OR n < :flag",
        "n BETWEEN :flag AND :flag",
    ],
)
def test_what_cannot_be_meant_is_refused_whatever_the_item(store, condition):
    request = {"ConditionExpression": condition, "ExpressionAttributeValues": {":flag": {"BOOL": True}}}

    for number in (1, 2):  # one that is there, and one that is not
        put(store, 1, n=1, s="a")
        faulty(store, "DeleteItem", TABLE | {"Key": key(number)} | request)


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "n",
        "n =",
        "= :x",
        "n == :x",
        "n = :x)",
        "n = :x n = :x",
        "(n = :x",
        "size(n) = :x",
        "contains(n, :x)",
        "n IN (:x)",
        "n = 5",
        "n = 'a'",
        "attribute_exists(:x)",
        "l[a] = :x",
        "n = :x; DROP",
        "AND n = :x",
    ],
)
def test_what_is_no_condition_or_not_known_here_is_refused(store, condition):
    faulty(
        store,
        "DeleteItem",
        TABLE | {"Key": key(), "ConditionExpression": condition} | {"ExpressionAttributeValues": {":x": {"N": "1"}}},
    )


def test_reserved_words_are_not_bare_names(store):
    assert {"NAME", "STATUS", "TTL", "VIEW", "DATA", "COUNT"} <= RESERVED
    assert "reserved" in faulty(
        store, "DeleteItem", TABLE | {"Key": key(), "ConditionExpression": "attribute_exists(Status)"}
    )


# ----- updates


@pytest.mark.parametrize(
    ("expression", "values", "after"),
    [
        ("SET n = :v", {"v": 2}, {"n": 2, "l": ["a", "b", "c"], "m": {"k": 1}}),
        ("SET n = x + :v", {"v": 2}, None),
        ("SET n = n - :v", {"v": 7}, {"n": -6, "l": ["a", "b", "c"], "m": {"k": 1}}),
        ("SET x = n, n = if_not_exists(x, :v)", {"v": 9}, {"n": 9, "x": 1, "l": ["a", "b", "c"], "m": {"k": 1}}),
        ("SET x = if_not_exists(n, :v)", {"v": 9}, {"n": 1, "x": 1, "l": ["a", "b", "c"], "m": {"k": 1}}),
        ("SET l = list_append(l, :v)", {"v": ["d"]}, {"n": 1, "l": ["a", "b", "c", "d"], "m": {"k": 1}}),
        ("SET l = list_append(:v, l)", {"v": ["d"]}, {"n": 1, "l": ["d", "a", "b", "c"], "m": {"k": 1}}),
        ("SET l[1] = :v", {"v": 0}, {"n": 1, "l": ["a", 0, "c"], "m": {"k": 1}}),
        ("SET l[9] = :v", {"v": 0}, {"n": 1, "l": ["a", "b", "c", 0], "m": {"k": 1}}),
        ("SET m.x = :v, m.k = :v", {"v": 0}, {"n": 1, "l": ["a", "b", "c"], "m": {"k": 0, "x": 0}}),
        ("SET x.k = :v", {"v": 0}, None),
        ("SET n.k = :v", {"v": 0}, None),
        ("ADD n :v", {"v": 2}, {"n": 3, "l": ["a", "b", "c"], "m": {"k": 1}}),
        ("ADD x :v", {"v": 2}, {"n": 1, "x": 2, "l": ["a", "b", "c"], "m": {"k": 1}}),
        ("ADD l :v", {"v": 2}, None),
        ("ADD n :v", {"v": "a"}, None),
        ("REMOVE l[0], l[2], m.k, gone", {}, {"n": 1, "l": ["b"], "m": {}}),
        ("REMOVE gone.k", {}, None),
        ("SET x = :v REMOVE n ADD m.k :v", {"v": 1}, {"x": 1, "l": ["a", "b", "c"], "m": {"k": 2}}),
        ("SET n = :v, n = :v", {"v": 1}, None),
        ("SET m = :v REMOVE m.k", {"v": 1}, None),
        ("SET n = :v SET x = :v", {"v": 1}, None),
        ("SET sk = :v", {"v": 1}, None),
        ("DELETE s :v", {"v": 1}, None),
        ("SET n = n * :v", {"v": 1}, None),
        ("SET n :v", {"v": 1}, None),
        ("UPSERT n", {}, None),
    ],
)
def test_updates_do_what_they_say_or_nothing(store, expression, values, after):
    before: dict[str, Any] = {"n": 1, "l": ["a", "b", "c"], "m": {"k": 1}}
    put(store, **before)
    request = update(expression, 1, **to_item(values))

    if after is None:
        faulty(store, "UpdateItem", request)
    else:
        store.call("UpdateItem", request)
    assert item(store) == key() | to_item(before if after is None else after)


def test_sets_are_added_to(store):
    for members in (["a"], ["b", "a"]):
        store.call("UpdateItem", update("ADD s :s", s={"SS": members}))

    assert sorted(item(store)["s"]["SS"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("returned", "attributes"),
    [
        ("NONE", None),
        ("ALL_OLD", {"pk": "a", "sk": 1, "n": 1, "x": 9}),
        ("ALL_NEW", {"pk": "a", "sk": 1, "n": 2, "x": 9, "y": 0}),
        ("UPDATED_OLD", {"n": 1}),
        ("UPDATED_NEW", {"n": 2, "y": 0}),
    ],
)
def test_an_update_returns_what_was_asked_for(store, returned, attributes):
    put(store, n=1, x=9)
    request = update("ADD n :n SET y = :y", n={"N": "1"}, y={"N": "0"}) | {"ReturnValues": returned}

    answer = store.call("UpdateItem", request).body

    assert answer == ({} if attributes is None else {"Attributes": to_item(attributes)})
