"""Short words for asking a store that has one table, `t`, sorted by numbers."""

from typing import Any

import pytest

from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.transport import Rejected
from tests.memory_dynamodb import MemoryTransport

TABLE = {"TableName": "t"}


def key(number: int = 1, pk: str = "a") -> dict[str, Any]:
    return to_item({"pk": pk, "sk": number})


def put(store: MemoryTransport, number: int = 1, pk: str = "a", **row: Any) -> None:
    store.call("PutItem", TABLE | {"Item": key(number, pk) | to_item(row)})


def update(expression: str, number: int = 1, **values: Any) -> dict[str, Any]:
    placeholders = {f":{name}": value for name, value in values.items()}
    return (
        TABLE
        | {"Key": key(number), "UpdateExpression": expression}
        | ({"ExpressionAttributeValues": placeholders} if values else {})
    )


def item(store: MemoryTransport, number: int = 1, pk: str = "a") -> Any:
    return store.call("GetItem", TABLE | {"Key": key(number, pk)}).body.get("Item")


def faulty(store: MemoryTransport, operation: str, request: dict[str, Any]) -> str:
    """Insist that a request is refused as invalid; give the reason."""
    with pytest.raises(Rejected) as rejected:
        store.call(operation, request)
    assert rejected.value.code == "ValidationException"
    return rejected.value.message
