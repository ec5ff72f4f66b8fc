"""What requests cost, by AWS's published rules."""

import pytest

from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.transport import Cancelled, Refused
from tests.capacity import Capacity, Cost
from tests.dynamo_tables import memory_stores
from tests.memory_dynamodb import MemoryTransport

ABSENT = {"ConditionExpression": "attribute_not_exists(pk)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


@pytest.fixture
def capacity() -> Capacity:
    store = MemoryTransport()
    for name in ("t", "u"):
        store.create_table(name, "N")
    return Capacity(store)


def key(number):
    return to_item({"pk": "a", "sk": number})


def sized(number, octets):
    return key(number) | {"b": {"B": bytes(octets - 8)}}


def put(number, octets, **more):
    return {"TableName": "t", "Item": sized(number, octets), **more}


def whole(*requests, capacity):
    for operation, request in requests:
        capacity.call(operation, request)
    return capacity.take()


@pytest.mark.parametrize(("octets", "units"), [(10, 1), (1024, 1), (1025, 2), (409_600, 400)])
def test_a_write_costs_a_unit_a_kilobyte(capacity, octets, units):
    assert whole(("PutItem", put(1, octets)), capacity=capacity) == Cost({"PutItem": 1}, {}, {"t": units})


def test_a_write_costs_what_is_larger_of_before_and_after(capacity):
    whole(("PutItem", put(1, 3_000)), capacity=capacity)
    shrink = {"Key": key(1), "UpdateExpression": "REMOVE b"}

    assert whole(("PutItem", put(1, 10)), capacity=capacity).write_units == 3
    assert whole(("PutItem", put(1, 5_000)), capacity=capacity).write_units == 5
    assert whole(("UpdateItem", {"TableName": "t"} | shrink), capacity=capacity).write_units == 5
    assert whole(("DeleteItem", {"TableName": "t", "Key": key(1)}), capacity=capacity).write_units == 1
    assert whole(("DeleteItem", {"TableName": "t", "Key": key(1)}), capacity=capacity).write_units == 1


@pytest.mark.parametrize(("octets", "units"), [(10, 1), (4_096, 1), (4_097, 2), (0, 1)])
@pytest.mark.parametrize("is_consistent", [True, False])
def test_a_read_costs_a_unit_for_four_kilobytes_or_half_of_it(capacity, octets, units, is_consistent):
    if octets:
        whole(("PutItem", put(1, octets)), capacity=capacity)
    request = {"TableName": "t", "Key": key(1), "ConsistentRead": is_consistent}

    cost = whole(("GetItem", request), capacity=capacity)

    assert cost == Cost({"GetItem": 1}, {"t": units if is_consistent else units / 2}, {})


def test_a_query_rounds_the_sum_and_a_batch_each_item(capacity):
    for number in range(8):
        capacity.call("PutItem", put(number, 1_024))
    capacity.take()
    query = {
        "TableName": "t",
        "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": to_item({":pk": "a"}),
        "ProjectionExpression": "sk",
        "ConsistentRead": True,
    }
    batch = {"RequestItems": {"t": {"Keys": [key(number) for number in range(8)], "ConsistentRead": True}}}
    together = {"TransactItems": [{"Get": {"TableName": "t", "Key": key(number)}} for number in range(8)]}

    assert whole(("Query", query), capacity=capacity).read_units == 2
    assert whole(("Scan", {"TableName": "t", "ConsistentRead": True}), capacity=capacity).read_units == 2
    assert whole(("BatchGetItem", batch), capacity=capacity).read_units == 8
    assert whole(("TransactGetItems", together), capacity=capacity).read_units == 16


def test_a_transaction_costs_twice_and_its_repeat_reads(capacity):
    request = {
        "TransactItems": [
            {"Put": put(1, 1_500)},
            {"Put": {"TableName": "u", "Item": sized(1, 10)}},
            {"ConditionCheck": {"TableName": "u", "Key": key(2), "ConditionExpression": "attribute_not_exists(pk)"}},
        ],
        "ClientRequestToken": "once",
    }

    assert whole(("TransactWriteItems", request), capacity=capacity).writes == {"t": 4, "u": 4}
    again = whole(("TransactWriteItems", request), capacity=capacity)
    assert (again.reads, again.writes) == ({"t": 2, "u": 4}, {})


def test_a_batch_of_writes_costs_what_its_writes_cost(capacity):
    capacity.call("PutItem", put(1, 3_000))
    capacity.take()
    batch = {"t": [{"DeleteRequest": {"Key": key(1)}}, {"PutRequest": {"Item": sized(2, 1_500)}}]}

    assert whole(("BatchWriteItem", {"RequestItems": batch}), capacity=capacity).write_units == 5


def test_what_is_refused_costs_as_well(capacity):
    capacity.call("PutItem", put(1, 3_000))
    capacity.take()

    with pytest.raises(Refused):
        capacity.call("PutItem", put(1, 10, **ABSENT))
    assert capacity.take().write_units == 3
    with pytest.raises(Cancelled):
        capacity.call("TransactWriteItems", {"TransactItems": [{"Put": put(1, 10, **ABSENT)}, {"Put": put(2, 1_500)}]})
    assert capacity.take() == Cost({"TransactWriteItems": 1}, {}, {"t": 10})


def test_an_append_is_one_query_and_one_put():
    database = memory_stores()
    capacity = Capacity(database.transport)
    store = database.stores(transport=capacity).of("t", "ann")
    commits = database.tables.commits

    first = store.append("orders/1", 0, [b'{"n":1}'], commit_id="a")
    assert capacity.take() == Cost({"Query": 1, "PutItem": 1}, {commits: 1}, {commits: 1})
    assert first.boundary is not None
    store.append("orders/1", first.boundary, [b'{"n":2}'], commit_id="b")
    assert capacity.take() == Cost({"PutItem": 1}, {}, {commits: 1})
