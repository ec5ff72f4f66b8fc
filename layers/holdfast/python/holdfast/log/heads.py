"""Heads as rows, and the list of all of them."""

from collections.abc import Iterator, Sequence

from holdfast.clock import from_micros, to_micros
from holdfast.dynamodb.reads import Row, get_many, query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database
from holdfast.log.values import DIRECTORY_SHARDS, SOLE, Head, empty_head, head_key

_HASH_BYTES = 32


def head_row(head: Head) -> Row:
    return {
        "size": head.size,
        "pos": head.position,
        "root": head.root,
        "frontier": b"".join(head.frontier),
        "rt": to_micros(head.recorded_at) if head.recorded_at else 0,
    }


def head_of(tenant: str, partition: int, row: Row | None) -> Head:
    if row is None:
        return empty_head(tenant, partition)
    joined = row["frontier"]
    return Head(
        tenant=tenant,
        partition=partition,
        size=row["size"],
        position=row["pos"],
        root=row["root"],
        frontier=tuple(joined[at : at + _HASH_BYTES] for at in range(0, len(joined), _HASH_BYTES)),
        recorded_at=from_micros(row["rt"]),
    )


def read_heads(database: Database, tables: Tables, places: Sequence[tuple[str, int]]) -> list[Head]:
    """Read the heads of (tenant, partition) pairs; an empty one where nothing was indexed yet."""
    rows = get_many(database, [(tables.log, head_key(*place), SOLE) for place in places])
    return [head_of(*place, rows.get((tables.log, head_key(*place), SOLE))) for place in places]


def heads(database: Database, tables: Tables) -> Iterator[Head]:
    """Yield the head of every partition of every tenant, in no order."""
    for shard in range(DIRECTORY_SHARDS):
        places = [_place(row["sk"]) for row in query(database, tables.log, f"H#{shard}")]
        yield from read_heads(database, tables, places)


def _place(name: str) -> tuple[str, int]:
    tenant, partition = name.rsplit("#", 1)
    return tenant, int(partition)
