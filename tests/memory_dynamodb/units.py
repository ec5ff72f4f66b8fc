"""
Capacity units by the rules of the developer guide, "DynamoDB read and write operations".

Sizes are rounded up item by item, but over all items of a query or scan. What does not exist costs the least there is.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

WRITE_BYTES: Final = 1024
"""One write unit."""
READ_BYTES: Final = 4096
"""One read unit, if the read is consistent."""
TRANSACTION: Final = 2
"""Every item of a transaction is prepared and committed."""

Kind = Literal["Read", "Write"]


def write_units(size: int) -> float:
    """Count a write of an item, which was *size* bytes before or after it, whichever is more."""
    return max(1, -(-size // WRITE_BYTES))


def read_units(size: int, *, is_consistent: bool) -> float:
    units = max(1, -(-size // READ_BYTES))
    return units if is_consistent else units / 2


def report(table: str, units: float, *, detail: str, kind: Kind | None = None) -> dict[str, Any]:
    """Tell what one table was asked for, as DynamoDB does; a transaction says which kind of units these are."""
    said = {"CapacityUnits": float(units)} | ({f"{kind}CapacityUnits": float(units)} if kind else {})
    return {"TableName": table, **said} | ({"Table": said} if detail == "INDEXES" else {})


def reports(units: Mapping[str, float], *, detail: str, kind: Kind | None = None) -> list[dict[str, Any]]:
    return [report(table, count, detail=detail, kind=kind) for table, count in units.items()]
