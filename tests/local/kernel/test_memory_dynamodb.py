"""
DynamoDB in memory beside the running engine: the same requests, the same answers and the same refusals.

Where the engine is known to differ from AWS, requests are not made, or the difference is left out of the comparison;
each such place says so.
"""

import itertools
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings

from holdfast.aws import client
from holdfast.dynamodb import BotocoreTransport, Transport
from holdfast.dynamodb.transport import Cancelled, Refused, Rejected
from tests.dynamo_tables import REGION
from tests.memory_dynamodb import MemoryTransport
from tests.memory_dynamodb.at_random import KINDS, REQUESTS
from tests.soak import examples

_NUMBERS = itertools.count()


class Pair:
    """The engine and memory, with tables of the same names."""

    def __init__(self, engine: Transport, prefix: str) -> None:
        self.engine = engine
        self.memory = MemoryTransport()
        self.prefix = prefix
        for role, kind in KINDS.items():
            self.memory.create_table(self.table(role), kind)

    def table(self, role: str) -> str:
        return f"{self.prefix}-{role}"

    def ask(self, operation: str, request: Mapping[str, Any]) -> Any:
        """Ask both; give the engine's outcome if they agree."""
        theirs, ours = outcome(self.engine, operation, request), outcome(self.memory, operation, request)
        assert ours == theirs, (operation, request)
        return ours


@pytest.fixture(scope="module")
def pair(stack):
    dynamodb = stack.client("dynamodb")
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client.cache_clear()
    made = Pair(BotocoreTransport(REGION, stack.running.engine.dynamodb_endpoint_url), f"pair-{uuid.uuid4().hex[:8]}")
    for role, kind in KINDS.items():
        dynamodb.create_table(
            TableName=made.table(role),
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": kind},
            ],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        )
    yield made
    client.cache_clear()
    patch.undo()
    for role in KINDS:
        dynamodb.delete_table(TableName=made.table(role))


def outcome(transport: Transport, operation: str, request: Mapping[str, Any]) -> Any:
    """Say what came of a request, in a form that two stores can be compared by; messages are nobody's promise."""
    try:
        body = dict(transport.call(operation, request).body)
    except Refused as refused:
        return "refused", plain(refused.item)
    except Cancelled as cancelled:
        return "cancelled", reasons_of(cancelled)
    except Rejected as rejected:
        return "rejected", rejected.code
    body.pop("ResponseMetadata", None)
    if "ReturnConsumedCapacity" not in request:
        body.pop("ConsumedCapacity", None)
    if body.get("Attributes") == {}:
        del body["Attributes"]
    if operation == "BatchGetItem":
        body["Responses"] = {name: sorted(items, key=repr) for name, items in plain(body["Responses"]).items()}
    return "answered", plain(body)


def reasons_of(cancelled: Cancelled) -> list[Any]:
    """Where a condition fails, the engine does not look whether the other actions' updates fit; AWS tells both."""
    reasons = [(reason.code, plain(reason.item)) for reason in cancelled.reasons]
    if any(code == "ConditionalCheckFailed" for code, _ in reasons):
        return [("None", None) if code == "ValidationError" else (code, item) for code, item in reasons]
    return reasons


def plain(value: Any) -> Any:
    """Order what has no order: the members of sets, and of mappings for `repr`."""
    if isinstance(value, Mapping):
        return {
            name: sorted(part) if name in {"SS", "NS", "BS"} and isinstance(part, list) else plain(part)
            for name, part in sorted(value.items())
        }
    return [plain(part) for part in value] if isinstance(value, list) else value


def placed(value: Any, pair: Pair, world: str) -> Any:
    """Name the tables, and set one example's partitions apart from all others'."""
    if isinstance(value, list):
        return [placed(part, pair, world) for part in value]
    if not isinstance(value, Mapping):
        return value
    if value.keys() == {"S"} and value["S"] in {"one", "two"}:
        return {"S": f"{world}-{value['S']}"}
    return {
        pair.table(name) if name in KINDS else name: pair.table(part)
        if name == "TableName"
        else placed(part, pair, world)
        for name, part in value.items()
    }


@given(requests=REQUESTS)
@settings(
    max_examples=examples(150, soak=5_000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_requests_are_answered_as_the_engine_answers_them(pair, requests):
    world = f"w{next(_NUMBERS)}"
    for operation, request in requests:
        note(f"{operation} {request}")
        pair.ask(operation, placed(request, pair, world))


# ----- what chance would not find


def key(world: str, number: int = 1) -> dict[str, Any]:
    return {"pk": {"S": world}, "sk": {"N": str(number)}}


def sized(world: str, number: int, octets: int) -> dict[str, Any]:
    return key(world, number) | {"b": {"B": b"x" * octets}}


@pytest.fixture
def world() -> str:
    return f"w{next(_NUMBERS)}"


@pytest.fixture
def numbers(pair) -> dict[str, Any]:
    return {"TableName": pair.table("numbers")}


def text_key(text: str) -> dict[str, Any]:
    return {"pk": {"S": "a"}, "sk": {"S": text}}


BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "empty partition key": ("PutItem", {"Item": {"pk": {"S": ""}, "sk": {"N": "1"}}}),
    "key of another kind": ("PutItem", {"Item": text_key("a")}),
    "no sort key": ("PutItem", {"Item": {"pk": {"S": "a"}}}),
    "no sort key to get": ("GetItem", {"Key": {"pk": {"S": "a"}}}),
    "more than a key to get": ("GetItem", {"Key": key("a") | {"x": {"N": "1"}}}),
    "empty set": ("PutItem", {"Item": key("a") | {"x": {"SS": []}}}),
    "set with repeats": ("PutItem", {"Item": key("a") | {"x": {"SS": ["a", "a"]}}}),
    "39 digits": ("PutItem", {"Item": key("a") | {"x": {"N": "1" * 39}}}),
    "no number": ("PutItem", {"Item": key("a") | {"x": {"N": "one"}}}),
    "too large a number": ("PutItem", {"Item": key("a") | {"x": {"N": "1e126"}}}),
    "number that is none": ("PutItem", {"Item": key("a") | {"x": {"N": 1}}}),
    "too large an item": ("PutItem", {"Item": sized("a", 1, 400 * 1024)}),
    "unknown field": ("PutItem", {"Item": key("a"), "Sometimes": True}),
    "unused value": (
        "PutItem",
        {
            "Item": key("a"),
            "ConditionExpression": "attribute_not_exists(pk)",
            "ExpressionAttributeValues": {":x": {"N": "1"}},
        },
    ),
    "undefined value": ("PutItem", {"Item": key("a"), "ConditionExpression": "x = :x"}),
    "undefined name": ("PutItem", {"Item": key("a"), "ConditionExpression": "attribute_exists(#x)"}),
    "reserved word": ("PutItem", {"Item": key("a"), "ConditionExpression": "attribute_exists(name)"}),
    "torn expression": ("PutItem", {"Item": key("a"), "ConditionExpression": "attribute_exists(x"}),
    "change of a key": (
        "UpdateItem",
        {"Key": key("a"), "UpdateExpression": "SET sk = :x", "ExpressionAttributeValues": {":x": {"N": "2"}}},
    ),
    "no such attribute to add to": (
        "UpdateItem",
        {"Key": key("a"), "UpdateExpression": "SET x = y + :x", "ExpressionAttributeValues": {":x": {"N": "2"}}},
    ),
    "query without a partition": (
        "Query",
        {"KeyConditionExpression": "sk = :x", "ExpressionAttributeValues": {":x": {"N": "2"}}},
    ),
    "query by a part of a partition key": (
        "Query",
        {"KeyConditionExpression": "begins_with(pk, :x)", "ExpressionAttributeValues": {":x": {"S": "a"}}},
    ),
    "query of another kind": (
        "Query",
        {
            "KeyConditionExpression": "pk = :p AND sk > :x",
            "ExpressionAttributeValues": {":p": {"S": "a"}, ":x": {"S": "a"}},
        },
    ),
    "query for nothing": (
        "Query",
        {"KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": {"S": "a"}}, "Limit": 0},
    ),
    "segment beyond the last": ("Scan", {"Segment": 4, "TotalSegments": 4}),
}
"""Requests that no store takes."""


@pytest.mark.parametrize("name", BAD)
def test_what_the_engine_refuses_is_refused_with_the_same_code(pair, numbers, name):
    operation, request = BAD[name]

    assert pair.ask(operation, numbers | request)[0] == "rejected"


def test_the_numbers_of_requests_are_bounded_alike(pair, numbers, world):
    table = numbers["TableName"]
    puts = [{"PutRequest": {"Item": key(world, number)}} for number in range(26)]
    actions = [{"Put": numbers | {"Item": key(world, number)}} for number in range(101)]
    keys_asked = [key(world, number) for number in range(101)]

    for count, expected in ((0, "answered"), (1, "rejected")):
        assert pair.ask("BatchWriteItem", {"RequestItems": {table: puts[: 25 + count]}})[0] == expected
        assert pair.ask("TransactWriteItems", {"TransactItems": actions[: 100 + count]})[0] == expected
        assert pair.ask("BatchGetItem", {"RequestItems": {table: {"Keys": keys_asked[: 100 + count]}}})[0] == expected
    for twice in (
        ("BatchWriteItem", {"RequestItems": {table: puts[:1] * 2}}),
        ("BatchGetItem", {"RequestItems": {table: {"Keys": keys_asked[:1] * 2}}}),
        ("TransactWriteItems", {"TransactItems": actions[:1] * 2}),
    ):
        assert pair.ask(*twice) == ("rejected", "ValidationException")
    assert pair.ask("GetItem", {"TableName": "none", "Key": key(world)}) == ("rejected", "ResourceNotFoundException")


def test_a_transaction_is_done_once_under_its_token(pair, numbers, world):
    token = str(uuid.uuid4())

    def add(amount: int) -> dict[str, Any]:
        update = {
            "Key": key(world),
            "UpdateExpression": "ADD n :n",
            "ExpressionAttributeValues": {":n": {"N": str(amount)}},
        }
        return {"TransactItems": [{"Update": numbers | update}], "ClientRequestToken": token}

    assert pair.ask("TransactWriteItems", add(1)) == pair.ask("TransactWriteItems", add(1))
    assert pair.ask("TransactWriteItems", add(2)) == ("rejected", "IdempotentParameterMismatchException")
    assert pair.ask("GetItem", numbers | {"Key": key(world)})[1]["Item"]["n"] == {"N": "1"}


@pytest.mark.parametrize("is_forward", [True, False])
def test_pages_end_at_the_same_rows(pair, numbers, world, is_forward):
    for number in range(12):
        pair.ask("PutItem", numbers | {"Item": sized(world, number, 200 * 1024)})
    request = numbers | {
        "KeyConditionExpression": "pk = :pk",
        "ExpressionAttributeValues": {":pk": {"S": world}},
        "ScanIndexForward": is_forward,
        "ProjectionExpression": "sk",
    }

    pages = []
    while True:
        _, body = pair.ask("Query", request)
        pages.append(len(body["Items"]))
        if "LastEvaluatedKey" not in body:
            break
        request["ExclusiveStartKey"] = body["LastEvaluatedKey"]

    assert pages == [5, 5, 2]


def test_a_parallel_scan_meets_every_row_once(pair, numbers, world):
    for number in range(60):
        pair.ask("PutItem", numbers | {"Item": key(f"{world}-{number % 20}", number)})

    def scanned(transport: Transport) -> list[str]:
        found = []
        for segment in range(4):
            request = numbers | {"Segment": segment, "TotalSegments": 4, "Limit": 7}
            while True:
                body = transport.call("Scan", request).body
                found += [repr(plain(item)) for item in body["Items"] if item["pk"]["S"].startswith(f"{world}-")]
                if "LastEvaluatedKey" not in body:
                    break
                request["ExclusiveStartKey"] = body["LastEvaluatedKey"]
        return sorted(found)

    assert scanned(pair.memory) == scanned(pair.engine)
    assert len(set(scanned(pair.memory))) == 60


def test_writes_and_small_reads_cost_what_the_engine_says(pair, numbers, world):
    """Of reads over 4 KB, repeated transactions and batches of reads, the engine reports other units than AWS."""
    octets = (10, 3_000, 10, 1_011, 1_012, 1_013, 1_014, 1_015, 1_016, 1_017)
    asked: list[tuple[str, dict[str, Any]]] = [("PutItem", {"Item": sized(world, 1, size)}) for size in octets]
    asked += [
        ("PutItem", {"Item": sized(world, 2, 5_000)}),
        (
            "UpdateItem",
            {"Key": key(world, 2), "UpdateExpression": "SET b = :b", "ExpressionAttributeValues": {":b": {"N": "1"}}},
        ),
        ("GetItem", {"Key": key(world, 2)}),
        ("GetItem", {"Key": key(world, 2), "ConsistentRead": True}),
        ("GetItem", {"Key": key(world, 99), "ConsistentRead": True}),
        (
            "Query",
            {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": world}}}
            | {"ConsistentRead": True},
        ),
        ("DeleteItem", {"Key": key(world, 1)}),
        ("DeleteItem", {"Key": key(world, 1)}),
    ]
    actions = [
        {"Put": numbers | {"Item": sized(world, 3, 1_500)}},
        {"Delete": numbers | {"Key": key(world, 2)}},
        {"ConditionCheck": numbers | {"Key": key(world, 9), "ConditionExpression": "attribute_not_exists(pk)"}},
    ]
    batch = [{"PutRequest": {"Item": sized(world, 3, 10)}}, {"PutRequest": {"Item": sized(world, 4, 2_500)}}]
    total = {"ReturnConsumedCapacity": "TOTAL"}

    for operation, request in asked:
        assert "ConsumedCapacity" in pair.ask(operation, numbers | request | total)[1]
    for operation, request in (
        ("TransactWriteItems", {"TransactItems": actions}),
        ("BatchWriteItem", {"RequestItems": {numbers["TableName"]: batch}}),
    ):
        assert "ConsumedCapacity" in pair.ask(operation, request | total)[1]
