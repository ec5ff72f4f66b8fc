"""DynamoDB in memory by DynamoDB's own rules, where the local engine is no judge; and what only tests ask of it."""

import sys
import threading

import pytest

from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.transport import Cancelled, Rejected
from tests.memory_dynamodb import MemoryTransport
from tests.memory_dynamodb.one_table import TABLE, faulty, item, key, put, update
from tests.memory_dynamodb.values import kept, kept_row


@pytest.fixture
def store() -> MemoryTransport:
    store = MemoryTransport()
    store.create_table("t", "N")
    return store


# ----- values


@pytest.mark.parametrize(
    ("attribute", "octets"),
    [
        ({"S": ""}, 0),
        ({"S": "é☃"}, 5),
        ({"B": b"abc"}, 3),
        ({"BOOL": True}, 1),
        ({"NULL": True}, 1),
        ({"N": "0"}, 1),
        ({"N": "7"}, 2),
        ({"N": "123"}, 3),
        ({"N": "1000"}, 2),
        ({"N": "-12.5"}, 4),
        ({"L": []}, 3),
        ({"L": [{"S": "ab"}]}, 6),
        ({"M": {}}, 3),
        ({"M": {"key": {"S": "ab"}}}, 9),
        ({"SS": ["a", "bc"]}, 3),
    ],
)
def test_values_are_measured_by_the_published_rules(attribute, octets):
    assert kept(attribute)[1] == octets


def test_names_count_towards_an_items_size():
    assert kept_row({"pk": {"S": "a"}, "né": {"N": "12"}}).size == 3 + 5


@pytest.mark.parametrize(
    ("given", "kept_as"),
    [("007", "7"), ("1e2", "100"), ("0.10", "0.1"), ("-0", "0"), ("+5", "5"), ("1" * 38, "1" * 38), ("1e-3", "0.001")],
)
def test_a_number_has_one_form(given, kept_as):
    assert kept({"N": given})[0] == {"N": kept_as}


@pytest.mark.parametrize(
    "text", ["1" * 39, "1e126", "1e-131", "", "one", "0x1", "NaN", "Infinity", "1_000", " 1", "\u0661"]
)
def test_what_dynamodb_cannot_hold_is_no_number(text):
    with pytest.raises(Rejected):
        kept({"N": text})


@pytest.mark.parametrize("attribute", [{"SS": []}, {"SS": ["a", "a"]}, {"NS": ["1", "1.0"]}, {"BS": [b"a", b"a"]}])
def test_a_set_has_members_and_each_once(attribute):
    with pytest.raises(Rejected):
        kept(attribute)


def test_a_sum_is_exact_or_refused(store):
    put(store, n=10**37)
    request = update("SET n = n + :n", n={"N": "1"})
    store.call("UpdateItem", request)
    assert item(store)["n"] == {"N": str(10**37 + 1)}

    put(store, n=int("9" * 38))
    request = update("SET n = n + :n", n={"N": "2"})
    assert "38" in faulty(store, "UpdateItem", request)
    with pytest.raises(Cancelled) as cancelled:
        store.call("TransactWriteItems", {"TransactItems": [{"Update": request}]})
    assert [reason.code for reason in cancelled.value.reasons] == ["ValidationError"]


def test_a_value_may_be_nested_so_deep_and_no_deeper():
    def nested(depth):
        return {"S": "a"} if depth == 0 else {"L": [nested(depth - 1)]}

    kept(nested(32))
    with pytest.raises(Rejected):
        kept(nested(33))


def test_an_item_may_be_so_large_and_no_larger(store):
    octets = 400 * 1024 - kept_row(key()).size - 1
    store.call("PutItem", TABLE | {"Item": key() | {"b": {"B": b"x" * octets}}})

    faulty(store, "PutItem", TABLE | {"Item": key() | {"b": {"B": b"x" * (octets + 1)}}})
    grown = update("SET c = :c", c={"BOOL": True})
    faulty(store, "UpdateItem", grown)
    with pytest.raises(Cancelled) as cancelled:
        store.call("TransactWriteItems", {"TransactItems": [{"Update": grown}]})
    assert cancelled.value.reasons[0].code == "ValidationError"


@pytest.mark.parametrize(("octets", "is_taken"), [(2048, True), (2049, False)])
def test_a_partition_key_may_be_so_long(store, octets, is_taken):
    request = TABLE | {"Item": to_item({"pk": "é" * (octets // 2) + "a" * (octets % 2), "sk": 1})}

    if is_taken:
        store.call("PutItem", request)
    else:
        faulty(store, "PutItem", request)


def test_rows_are_apart_from_what_was_given_and_what_is_answered(store):
    row = key() | {"l": {"L": [{"S": "a"}]}, "n": {"N": "1"}}
    store.call("PutItem", TABLE | {"Item": row})
    row["l"]["L"].append({"S": "b"})
    answer = item(store)
    answer["n"]["N"] = "2"
    del answer["l"]

    assert item(store) == key() | {"l": {"L": [{"S": "a"}]}, "n": {"N": "1"}}


# ----- several items


def test_a_transaction_tells_every_reason_and_writes_nothing(store):
    put(store, 1, n=1)
    absent = {"ConditionExpression": "attribute_not_exists(pk)"}
    actions = [
        {"Put": TABLE | {"Item": key(1), "ReturnValuesOnConditionCheckFailure": "ALL_OLD"} | absent},
        {"Put": TABLE | {"Item": key(2)} | absent},
        {"ConditionCheck": TABLE | {"Key": key(3), "ConditionExpression": "attribute_exists(pk)"}},
        {"Update": update("SET n = gone", 4)},
    ]

    with pytest.raises(Cancelled) as cancelled:
        store.call("TransactWriteItems", {"TransactItems": actions})

    codes = [reason.code for reason in cancelled.value.reasons]
    assert codes == ["ConditionalCheckFailed", "None", "ConditionalCheckFailed", "ValidationError"]
    assert [reason.item for reason in cancelled.value.reasons] == [key(1) | to_item({"n": 1}), None, None, None]
    assert [item(store, number) is None for number in (1, 2, 3, 4)] == [False, True, True, True]


def test_a_transaction_holds_so_many_bytes(store):
    def puts(octets):
        return {"TransactItems": [{"Put": TABLE | {"Item": key(n) | to_item({"b": bytes(octets)})}} for n in range(12)]}

    store.call("TransactWriteItems", puts(340_000))
    faulty(store, "TransactWriteItems", puts(360_000))


def test_a_token_is_known_until_it_is_forgotten(store):
    request = {"TransactItems": [{"Update": update("ADD n :n", n={"N": "1"})}], "ClientRequestToken": "t"}
    for expected in ("1", "1"):
        store.call("TransactWriteItems", request)
        assert item(store)["n"] == {"N": expected}

    store.forget_tokens()
    store.call("TransactWriteItems", request)

    assert item(store)["n"] == {"N": "2"}


def test_a_batch_of_reads_leaves_out_what_is_over_16_mb(store):
    for number in range(45):
        put(store, number, b=bytes(380_000))
    asked = {"t": {"Keys": [key(number) for number in range(45)], "ConsistentRead": True}}

    body = store.call("BatchGetItem", {"RequestItems": asked}).body

    assert len(body["Responses"]["t"]) == 44
    assert body["UnprocessedKeys"] == {"t": {"Keys": [key(44)], "ConsistentRead": True}}


@pytest.mark.parametrize("operation", ["ListTables", "CreateTable", "ExecuteStatement", "getItem"])
def test_operations_that_are_not_known_here_are_refused(store, operation):
    with pytest.raises(Rejected):
        store.call(operation, {})


# ----- pages


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("sk = :x", [2]),
        ("sk < :x", [-1, 0]),
        ("sk <= :x", [-1, 0, 2]),
        ("sk > :x", [10]),
        ("sk >= :x", [2, 10]),
        ("sk BETWEEN :x AND :y", [2]),
        ("sk BETWEEN :x AND :x", [2]),
    ],
)
@pytest.mark.parametrize("is_forward", [True, False])
def test_a_query_finds_its_range_in_the_order_of_numbers(store, condition, found, is_forward):
    for number in (10, 2, -1, 0):
        put(store, number)
    values = to_item({":pk": "a", ":x": 2} | ({":y": 9} if ":y" in condition else {}))
    request = TABLE | {"KeyConditionExpression": f"pk = :pk AND {condition}", "ExpressionAttributeValues": values}

    body = store.call("Query", request | {"ScanIndexForward": is_forward}).body

    assert [int(row["sk"]["N"]) for row in body["Items"]] == (found if is_forward else found[::-1])


def test_a_query_by_the_beginning_of_a_text_finds_no_neighbours(store):
    store.create_table("texts", "S")
    for text in ("a", "a#", "a#1", "a#\U0010ffff\U0010ffff", "a$", "b"):
        store.call("PutItem", {"TableName": "texts", "Item": to_item({"pk": "a", "sk": text})})
    request = {
        "TableName": "texts",
        "KeyConditionExpression": "pk = :pk AND begins_with(sk, :sk)",
        "ExpressionAttributeValues": to_item({":pk": "a", ":sk": "a#"}),
    }

    found = [row["sk"]["S"] for row in store.call("Query", request).body["Items"]]

    assert found == ["a#", "a#1", "a#\U0010ffff\U0010ffff"]


def test_a_page_holds_no_more_than_a_megabyte(store):
    for number in range(7):
        put(store, number, b=bytes(300_000))
    request = TABLE | {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": to_item({":pk": "a"})}

    for operation, asked in (("Query", request), ("Scan", TABLE)):
        first = store.call(operation, asked).body
        assert (len(first["Items"]), first["LastEvaluatedKey"]) == (3, key(2))
        rest = store.call(operation, asked | {"ExclusiveStartKey": key(5)}).body
        assert (len(rest["Items"]), "LastEvaluatedKey" in rest) == (1, False)


def test_a_walk_goes_on_behind_a_key_that_has_gone(store):
    for number in range(6):
        put(store, number)
    request = TABLE | {
        "KeyConditionExpression": "pk = :pk AND sk <= :sk",
        "ExpressionAttributeValues": to_item({":pk": "a", ":sk": 4}),
        "Limit": 2,
    }
    first = store.call("Query", request).body
    store.call("DeleteItem", TABLE | {"Key": key(1)})

    rest = store.call("Query", request | {"ExclusiveStartKey": first["LastEvaluatedKey"]}).body
    back = {"ExclusiveStartKey": key(3), "ScanIndexForward": False}

    assert [row["sk"]["N"] for row in rest["Items"]] == ["2", "3"]
    assert [row["sk"]["N"] for row in store.call("Query", request | back).body["Items"]] == ["2", "0"]
    for outside in (key(5), key(1, pk="b")):
        faulty(store, "Query", request | {"ExclusiveStartKey": outside})


def test_a_page_that_ends_at_its_limit_says_that_there_may_be_more(store):
    put(store)
    request = TABLE | {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": to_item({":pk": "a"})}

    assert "LastEvaluatedKey" in store.call("Query", request | {"Limit": 1}).body
    assert "LastEvaluatedKey" not in store.call("Query", request | {"Limit": 2}).body


def test_a_filter_counts_what_it_leaves_out(store):
    for number in range(5):
        put(store, number, n=number % 2)
    request = TABLE | {
        "KeyConditionExpression": "pk = :pk",
        "FilterExpression": "n = :n",
        "ExpressionAttributeValues": to_item({":pk": "a", ":n": 1}),
    }

    body = store.call("Query", request | {"Limit": 3}).body

    assert (body["Count"], body["ScannedCount"], body["LastEvaluatedKey"]) == (1, 3, key(2))
    assert "non-primary" in faulty(store, "Query", request | {"FilterExpression": "n = :n AND sk > :n"})


def test_a_scan_does_not_follow_the_order_of_writing(store):
    names = [f"p{number}" for number in range(40)]
    for name in names:
        put(store, pk=name)

    scanned = [row["pk"]["S"] for row in store.call("Scan", TABLE).body["Items"]]

    assert scanned != names
    assert sorted(scanned) == sorted(names)
    assert scanned == [row["pk"]["S"] for row in store.rows("t")]


# ----- changes, forks, threads


def test_changes_are_told_in_order_and_only_where_something_changed(store):
    put(store, n=1)
    put(store, n=1)
    put(store, n=2)
    store.call("DeleteItem", TABLE | {"Key": key()})
    store.call("DeleteItem", TABLE | {"Key": key()})

    records = store.stream_records("t")

    assert [record.event_name for record in records] == ["INSERT", "MODIFY", "REMOVE"]
    assert {repr(record.keys) for record in records} == {repr(key())}
    assert [record.new_image and record.new_image["n"] for record in records] == [{"N": "1"}, {"N": "2"}, None]
    assert [record.old_image and record.old_image["n"] for record in records] == [None, {"N": "1"}, {"N": "2"}]
    assert store.stream_records("t", after=records[1].number) == records[2:]


def test_two_forks_go_their_own_ways(store):
    put(store, n=1)
    fork = store.copy()
    put(fork, n=2)
    put(fork, 2, "new")
    put(store, n=3)

    assert (item(store)["n"], item(fork)["n"]) == ({"N": "3"}, {"N": "2"})
    assert (item(store, 2, "new"), len(store.stream_records("t")), len(fork.stream_records("t"))) == (None, 2, 3)

    store.restore(fork)
    store.call("DeleteItem", TABLE | {"Key": key()})
    assert (item(store), item(fork)["n"]) == (None, {"N": "2"})


@pytest.fixture
def hurried():
    """Threads that take turns all the time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hurried")
def test_threads_do_not_lose_each_others_counts(store):
    request = update("ADD n :n", n={"N": "1"})

    def count():
        for _ in range(200):
            store.call("UpdateItem", request)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert item(store)["n"] == {"N": "1600"}
