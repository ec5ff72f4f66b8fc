"""
Batch writes, for rows that are a pure function of the log: a repeat puts the same bytes, in whatever order it comes.

Nothing else may be written so. A batch has no conditions, so it can neither lose to a newer row nor know its own.
"""

from collections.abc import Sequence
from typing import Any, Final

from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.reads import Row
from holdfast.dynamodb.writes import Database

ROWS_MAX: Final = 25
"""Rows of one BatchWriteItem."""


def put_many(database: Database, table: str, rows: Sequence[Row]) -> None:
    """
    Put *rows*, whatever stands at their keys; the last of those with one key counts.

    Raises:
        Throttled, Unavailable: some may have been put; repeat.
    """
    by_key = {(row["pk"], row["sk"]): row for row in rows}
    _write(database, table, [{"PutRequest": {"Item": to_item(row)}} for row in by_key.values()])


def delete_many(database: Database, table: str, keys: Sequence[tuple[str, str | int]]) -> None:
    """
    Delete the rows at *keys*, which nobody writes any more.

    Raises:
        Throttled, Unavailable: some may be gone; repeat.
    """
    _write(
        database, table, [{"DeleteRequest": {"Key": to_item({"pk": pk, "sk": sk})}} for pk, sk in dict.fromkeys(keys)]
    )


def _write(database: Database, table: str, requests: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(requests), ROWS_MAX):
        database.write_batch({table: list(requests[start : start + ROWS_MAX])})
