"""Reads that do not lose anything on the way: every page is followed, every key asked for is answered."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.dynamodb.writes import Database

KEYS_MAX: Final = 100
"""Keys of one BatchGetItem."""

Row = dict[str, Any]
RowKey = tuple[str, str, str | int]
"""A table, a partition key and a sort key."""


def get(database: Database, table: str, pk: str, sk: str | int) -> Row | None:
    """Read one row as it stands now."""
    answer = database.read(
        "GetItem", {"TableName": table, "Key": to_item({"pk": pk, "sk": sk}), "ConsistentRead": True}
    )
    return from_item(answer["Item"]) if "Item" in answer else None


def get_many(database: Database, keys: Sequence[RowKey]) -> dict[RowKey, Row]:
    """
    Read rows by (table, pk, sk), as they stand now; those that do not exist are left out.

    One request takes KEYS_MAX keys, of any tables. What an answer leaves out (it ends at 16 MB) is asked for again.
    """
    found: dict[RowKey, Row] = {}

    def take(answer: Mapping[str, Any]) -> None:
        for table, items in answer["Responses"].items():
            for row in map(from_item, items):
                found[table, row["pk"], row["sk"]] = row

    for start in range(0, len(keys), KEYS_MAX):
        database.read_batch(_batch_of(keys[start : start + KEYS_MAX]), take)
    return found


def _batch_of(keys: Sequence[RowKey]) -> dict[str, Any]:
    batch: dict[str, Any] = {}
    for table, pk, sk in keys:
        asked = batch.setdefault(table, {"Keys": [], "ConsistentRead": True})
        asked["Keys"].append(to_item({"pk": pk, "sk": sk}))
    return batch


def query(
    database: Database,
    table: str,
    pk: str,
    *,
    after: str | int | None = None,
    first: str | int | None = None,
    until: str | int | None = None,
    prefix: str | None = None,
    newest_first: bool = False,
    limit: int | None = None,
    first_page: int | None = None,
) -> Iterator[Row]:
    """
    Yield the rows of one partition in the order of their sort key, page by page as they are asked for.

    Beyond *after* (before it, if newest first), or from *first* on, and up to and with *until*; only those that begin
    with *prefix*. With a *limit*, no more than that many rows are read. DynamoDB takes one condition on a sort key, so
    of *after* and *until* it is told the first, and the walk ends at the second; newest first, where both bound one
    end, they do not go together. A walk that may end early asks for a *first_page* of so many rows, and for twice as
    many with each page: what is not looked at is paid for too.
    """
    condition, values = _condition(pk, after=after, first=first, until=until, prefix=prefix, newest_first=newest_first)
    request: dict[str, Any] = {
        "TableName": table,
        "KeyConditionExpression": condition,
        "ExpressionAttributeValues": to_item(values),
        "ConsistentRead": True,
        "ScanIndexForward": not newest_first,
    }
    left, page = limit, first_page
    while left is None or left > 0:
        sizes = [size for size in (left, page) if size is not None]
        if sizes:
            request["Limit"] = min(sizes)
        answer = database.read("Query", request)
        for item in answer["Items"]:
            row = from_item(item)
            if until is not None and after is not None and row["sk"] > until:
                return
            yield row
        if "LastEvaluatedKey" not in answer:
            return
        left = None if left is None else left - len(answer["Items"])
        page = None if page is None else 2 * page
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def _condition(
    pk: str,
    *,
    after: str | int | None,
    first: str | int | None,
    until: str | int | None,
    prefix: str | None,
    newest_first: bool,
) -> tuple[str, dict[str, Any]]:
    match (after, first, until, prefix):
        case (None, None, None, None):
            return "pk = :pk", {":pk": pk}
        case (_, None, _, None) if after is not None and not (newest_first and until is not None):
            return f"pk = :pk AND sk {'<' if newest_first else '>'} :sk", {":pk": pk, ":sk": after}
        case (None, _, None, None):
            return "pk = :pk AND sk >= :sk", {":pk": pk, ":sk": first}
        case (None, None, _, None):
            return "pk = :pk AND sk <= :sk", {":pk": pk, ":sk": until}
        case (None, _, _, None):
            return "pk = :pk AND sk BETWEEN :first AND :until", {":pk": pk, ":first": first, ":until": until}
        case (None, None, None, _):
            return "pk = :pk AND begins_with(sk, :sk)", {":pk": pk, ":sk": prefix}
        case _:
            raise ValueError("these bounds do not go together")
