"""Python values and DynamoDB's attribute values: exact, and only the kinds that rows are made of."""

from collections.abc import Mapping
from typing import Any, Final


def to_attribute(value: Any) -> dict[str, Any]:
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case bytes():
            return {"B": value}
        case None:
            return {"NULL": True}
        case Mapping():
            return {"M": to_item(value)}
        case list() | tuple():
            return {"L": [to_attribute(member) for member in value]}
        case _:
            # Floats are left out on purpose: what must be exact is counted in integers.
            raise TypeError(
                f"{type(value).__name__} is not kept in rows; use str, int, bytes, bool, None, list or dict"
            )


def from_attribute(attribute: Mapping[str, Any]) -> Any:
    ((kind, value),) = attribute.items()
    match kind:
        case "S" | "B" | "BOOL":
            return value
        case "N":
            return int(value)
        case "NULL":
            return None
        case "M":
            return from_item(value)
        case "L":
            return [from_attribute(member) for member in value]
        case _:
            raise TypeError(f"attributes of kind {kind} are not written by Holdfast")


def to_item(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: to_attribute(value) for name, value in row.items()}


def from_item(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: from_attribute(attribute) for name, attribute in item.items()}


NUMBER_BYTES_MAX: Final = 21
CONTAINER_BYTES: Final = 3
"""Of a list or a mapping, beside its members."""
LEVELS_MAX: Final = 32
"""Of lists and mappings within each other."""


def item_bytes(item: Mapping[str, Mapping[str, Any]], level: int = 0) -> int:
    """
    Count what an item takes of DynamoDB's limits, or some bytes more (developer guide, "Item sizes and formats").

    Raises ValueError if it is nested deeper than DynamoDB takes.
    """
    return sum(len(name.encode()) + _attribute_bytes(attribute, level) for name, attribute in item.items())


def _attribute_bytes(attribute: Mapping[str, Any], level: int) -> int:
    ((kind, value),) = attribute.items()
    if kind in ("M", "L") and level == LEVELS_MAX:
        raise ValueError(f"Lists and mappings in a row are nested up to {LEVELS_MAX} levels deep.")
    match kind:
        case "S":
            return len(value.encode())
        case "B":
            return len(value)
        case "N":
            return NUMBER_BYTES_MAX
        case "M":
            return CONTAINER_BYTES + len(value) + item_bytes(value, level + 1)
        case "L":
            return CONTAINER_BYTES + len(value) + sum(_attribute_bytes(member, level + 1) for member in value)
        case _:
            return 1


ORDERED_DIGITS: Final = 16
"""Enough for every whole number that JSON carries exactly."""


def ordered(number: int) -> str:
    """Write a number from 0 so that text sorts as the numbers do: a part of a sort key."""
    return f"{number:0{ORDERED_DIGITS}d}"
