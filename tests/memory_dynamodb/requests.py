"""What a request may hold: the fields that are understood. Any other is refused, so that none is quietly ignored."""

from collections.abc import Mapping
from typing import Any, Final

from tests.memory_dynamodb.values import malformed

_NAMES: Final = frozenset({"ExpressionAttributeNames"})
_PLACEHOLDERS: Final = _NAMES | {"ExpressionAttributeValues"}
_CONDITIONAL: Final = _PLACEHOLDERS | {"ConditionExpression", "ReturnValuesOnConditionCheckFailure"}
_READ: Final = _NAMES | {"ProjectionExpression", "ConsistentRead"}
_PAGE: Final = _READ | _PLACEHOLDERS | {"FilterExpression", "Limit", "ExclusiveStartKey"}
_REPORT: Final = frozenset({"ReturnConsumedCapacity"})
_ALONE: Final = _REPORT | {"ReturnValues"}

_NEEDED_AND_MORE: Final[Mapping[str, tuple[set[str], frozenset[str]]]] = {
    "GetItem": ({"TableName", "Key"}, _READ | _REPORT),
    "PutItem": ({"TableName", "Item"}, _CONDITIONAL | _ALONE),
    "UpdateItem": ({"TableName", "Key"}, _CONDITIONAL | _ALONE | {"UpdateExpression"}),
    "DeleteItem": ({"TableName", "Key"}, _CONDITIONAL | _ALONE),
    "Query": ({"TableName", "KeyConditionExpression"}, _PAGE | _REPORT | {"ScanIndexForward"}),
    "Scan": ({"TableName"}, _PAGE | _REPORT | {"Segment", "TotalSegments"}),
    "BatchGetItem": ({"RequestItems"}, _REPORT),
    "KeysAndAttributes": ({"Keys"}, _READ),
    "BatchWriteItem": ({"RequestItems"}, _REPORT),
    "TransactGetItems": ({"TransactItems"}, _REPORT),
    "Get": ({"TableName", "Key"}, _NAMES | {"ProjectionExpression"}),
    "TransactWriteItems": ({"TransactItems"}, _REPORT | {"ClientRequestToken"}),
    "Put": ({"TableName", "Item"}, _CONDITIONAL),
    "Update": ({"TableName", "Key", "UpdateExpression"}, _CONDITIONAL),
    "Delete": ({"TableName", "Key"}, _CONDITIONAL),
    "ConditionCheck": ({"TableName", "Key", "ConditionExpression"}, _CONDITIONAL),
}
FIELDS: Final[Mapping[str, tuple[set[str], frozenset[str]]]] = {
    kind: (needed, more | needed) for kind, (needed, more) in _NEEDED_AND_MORE.items()
}
"""What each operation, and what lies inside some of them, must hold, and all that it may hold."""

REPORTS: Final = frozenset({"NONE", "TOTAL", "INDEXES"})


def check_fields(kind: str, request: Mapping[str, Any]) -> None:
    needed, allowed = FIELDS[kind]
    if not (needed <= request.keys() <= allowed):
        missing, unknown = sorted(needed - request.keys()), sorted(request.keys() - allowed)
        malformed(f"{kind}: missing {missing}, not understood {unknown}")


def choice(request: Mapping[str, Any], name: str, *allowed: str) -> str:
    """Read a word from a request; the first one allowed is the default."""
    chosen: str = request.get(name, allowed[0])
    if chosen not in allowed:
        malformed(f"{name} is one of {allowed}")
    return chosen


def whole(request: Mapping[str, Any], name: str, low: int, high: int | None = None) -> int | None:
    number = request.get(name)
    if number is None:
        return None
    if not isinstance(number, int) or isinstance(number, bool) or number < low or (high is not None and number > high):
        malformed(f"{name} is a whole number from {low}")
    return number
