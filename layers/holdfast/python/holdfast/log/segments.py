"""Reading a partition in its order."""

from collections.abc import Iterator

from holdfast.dynamodb.attributes import ordered
from holdfast.dynamodb.reads import query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database
from holdfast.log.values import Entry, entries_of, segment_key


def entries(
    database: Database,
    tables: Tables,
    tenant: str,
    partition: int,
    after: int,
    *,
    until: int | None = None,
    first_page: int | None = None,
) -> Iterator[Entry]:
    """
    Yield the commits that hold positions beyond *after*, and none that begins beyond *until*, in order.

    The first may begin at or before *after*: commits come whole. Whoever may not go to the end says how many segments
    the *first_page* shall have.
    """
    pk = segment_key(tenant, partition)
    for row in query(database, tables.log, pk, after=ordered(after), first_page=first_page):
        for entry in entries_of(partition, row["first"], row["leaf"], row["refs"]):
            if until is not None and entry.position > until:
                return
            if entry.last_position > after:
                yield entry
