"""
Ask the engine's module of DynamoDB the same twice, before and after it is hurried; run by the engine's own Python.

Rows are put, changed and taken away while they are asked for, as they would be of a partition that keeps its order.
"""

import gc
import importlib
import itertools
import json
import random
import runpy
import sys
from collections.abc import Iterator
from typing import Any

dynamodb: Any = importlib.import_module("ministack.services.dynamodb")

ROWS = 200
LARGE_BYTES = 19_000
"""Of each row: a page, which ends at 1 MB, holds about fifty."""
KINDS = {"N": lambda n: {"N": str(n * 7 % ROWS - 50)}, "S": lambda n: {"S": f"k{n * 7 % ROWS}"}}
BOUNDS = {
    "N": [
        ({"N": "5"}, {"N": "90"}),
        ({"N": "90"}, {"N": "5"}),
        ({"N": "-1000"}, {"N": "7.0"}),
        ({"N": "x"}, {"N": "9"}),
    ],
    "S": [({"S": "k1"}, {"S": "k3"}), ({"S": "k9"}, {"S": "k1"}), ({"S": ""}, {"S": "k2"}), ({"N": "1"}, {"N": "9"})],
}
CONDITIONS = (
    "pk = :a", "pk = :a AND sk BETWEEN :low AND :high", "pk = :a AND sk > :low", "pk = :a AND sk >= :low",
    "pk = :a AND sk < :high", "pk = :a AND sk <= :high", "pk = :a AND sk = :low", "#pk = :a", "pk == :a",
    "((pk = :a))", "pk = :a AND", "status = :a", "pk = :a AND no < :high", "sk = :a AND pk > :low",
    "pk = :a AND begins_with(sk, :low)", "pk = :gone", "", "pk",
)  # fmt: skip
LIMITS = (None, 1, 7, ROWS, 0, "3")
STARTS = (None, 30, 199)


def ask(operation: str, data: dict[str, Any]) -> Any:
    status, _, body = getattr(dynamodb, f"_{operation}")(json.loads(json.dumps(data)))
    told = json.loads(body)
    for row in told.get("Items", []):
        row["fill"] = len(row["fill"]["S"])
    return [status, told]


def make(kind: str) -> None:
    keys = [("pk", "HASH", "S"), ("sk", "RANGE", kind)]
    ask("create_table", {
        "TableName": f"keyed-by-{kind}", "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [{"AttributeName": name, "KeyType": place} for name, place, _ in keys],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": of} for name, _, of in keys],
    })  # fmt: skip
    for number in range(ROWS):
        put(kind, number, "large" if number % 2 else "small")


def put(kind: str, number: int, size: str) -> Any:
    fill = {"S": "x" * (LARGE_BYTES if size == "large" else 1)}
    return ask(
        "put_item",
        {"TableName": f"keyed-by-{kind}", "Item": {"pk": {"S": "a"}, "sk": KINDS[kind](number), "fill": fill}},
    )


def queries(kind: str) -> Iterator[dict[str, Any]]:
    for (low, high), condition in itertools.product(BOUNDS[kind], CONDITIONS):
        noise = random.Random(f"{low}{high}{condition}")
        for is_forward, limit, start in itertools.product((True, False), noise.sample(LIMITS, 2), STARTS):
            asked: dict[str, Any] = {"TableName": f"keyed-by-{kind}", "KeyConditionExpression": condition}
            values = {":a": {"S": "a"}, ":gone": {"S": "gone"}, ":low": low, ":high": high}
            asked["ExpressionAttributeValues"] = {name: each for name, each in values.items() if name in condition}
            if "#pk" in condition:
                asked["ExpressionAttributeNames"] = {"#pk": "pk"}
            if limit is not None:
                asked["Limit"] = limit
            if start is not None:
                asked["ExclusiveStartKey"] = {"pk": {"S": "a"}, "sk": KINDS[kind](start)}
            yield asked | {"ScanIndexForward": is_forward}


def answers(kind: str) -> Iterator[Any]:
    make(kind)
    noise = random.Random(kind)
    for asked in queries(kind):
        yield ask("query", asked)
        changed = noise.randrange(ROWS)
        match noise.randrange(4):
            case 0:
                key = {"pk": {"S": "a"}, "sk": KINDS[kind](changed)}
                yield ask("delete_item", {"TableName": f"keyed-by-{kind}", "Key": key})
            case 1:
                yield put(kind, changed, "large")
            case 2:
                yield put(kind, changed, "small")
    yield ask("scan", {"TableName": f"keyed-by-{kind}", "Limit": 20})
    yield ask("delete_table", {"TableName": f"keyed-by-{kind}"})


def told(kind: str) -> list[Any]:
    return json.loads(json.dumps(list(answers(kind)), default=str))


def without_times(answer: Any) -> Any:
    """Leave out what a table's description says of itself; it is made anew each time."""
    return [each for each in answer if "TableDescription" not in each[1]]


before = {kind: without_times(told(kind)) for kind in KINDS}
shortcuts = runpy.run_path(sys.argv[1])
shortcuts["hurry"](dynamodb)
partition, walks = shortcuts["Partition"], itertools.count()
within = partition.within
partition.within = lambda *asked, **named: (next(walks), within(*asked, **named))[1]
after = {kind: without_times(told(kind)) for kind in KINDS}

pages = [answer for kind in KINDS for status, answer in before[kind] if status == 200 and "Items" in answer]
json.dump(
    {
        "is_same": before == after,
        "answers": sum(map(len, before.values())),
        "pages_with_rows": sum(bool(page["Items"]) for page in pages),
        "pages_that_go_on": sum("LastEvaluatedKey" in page for page in pages),
        "refused": sum(status == 400 for kind in KINDS for status, _ in before[kind]),
        "walked": next(walks),
        "left_to_stay": gc.collect() >= 0 and gc.get_freeze_count(),
        "read": dynamodb._tokenize.cache_info().misses,
    },
    sys.stdout,
)
