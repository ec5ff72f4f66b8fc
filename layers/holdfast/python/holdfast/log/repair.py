"""
Repair: finds what no hint told of.

A hint can be lost, and the hint of a stream's last commit has no successor that would betray it. So the table of
commits is walked in slices, one after the other, for ever: what a slice shows of a stream is a hint like any other. A
pass over the table takes as long as its size needs at a fixed pace; where it stands is kept, so any call goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.dynamodb.batches import put_many
from holdfast.dynamodb.reads import Row, get
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database
from holdfast.errors import Unavailable
from holdfast.log.indexer import Hint, Indexer
from holdfast.log.values import SOLE

CURSOR_KEY: Final = "RP#cursor"
PAGES_MAX: Final = 10
"""Of 1 MB, in one call: at a call a minute about 20 read units a second, and 14 GB in a day."""
COMMIT_PREFIX: Final = "S#"
OF_TIME: Final = frozenset({"unfinished", "out_of_time"})
"""Of what could be done if there were more time."""


class Walked(msgspec.Struct, frozen=True):
    """What one call has walked over."""

    commits: int
    indexed: int
    """Commits that had been missed."""
    is_last: bool
    """The slice ended where the table does; the next begins anew."""
    met: tuple[Hint, ...] = ()
    """The streams met, each with its newest commit in the slice."""


@dataclass(frozen=True)
class Repair:
    """Walk over the commits of one service."""

    database: Database
    tables: Tables
    indexer: Indexer

    def walk(self, pages_max: int = PAGES_MAX) -> Walked:
        """
        Walk on for *pages_max* pages, and index what the log does not hold.

        May be repeated; two walks beside each other do the same work twice. What fails for a reason of its own is left
        to the next pass, holds up nothing else, and is raised at the end; what there was no time for is left to the
        next call.
        """
        cursor = get(self.database, self.tables.log, CURSOR_KEY, SOLE)
        start, commits, indexed, is_last = cursor["start"] if cursor else None, 0, 0, False
        failed: list[Exception] = []
        met: dict[tuple[str, str], Hint] = {}
        for _ in range(pages_max):
            answer = self.database.read("Scan", self._request(start))
            rows = [from_item(item) for item in answer["Items"]]
            commits += len(rows)
            hints = _hints(rows)
            met |= {(hint.tenant, hint.stream): hint for hint in hints}
            try:
                indexed += self.indexer.index(hints)
            except Exception as error:
                if isinstance(error, Unavailable) and error.code in OF_TIME:
                    raise
                failed.append(error)
            start = from_item(answer["LastEvaluatedKey"]) if "LastEvaluatedKey" in answer else None
            is_last = start is None
            self._keep(start)
            if is_last:
                break
        if failed:
            raise failed[0]
        return Walked(commits, indexed, is_last, tuple(met.values()))

    def _request(self, start: Row | None) -> Mapping[str, Any]:
        request: dict[str, Any] = {
            "TableName": self.tables.commits,
            # A hint may come late: what is not seen now is seen by the next walk.
            "ProjectionExpression": "pk, sk",
        }
        return request | {"ExclusiveStartKey": to_item(start)} if start else request

    def _keep(self, start: Row | None) -> None:
        # Where a walk stands is nobody's truth: losing it, or putting it back, only walks over something again.
        row: Row = {"pk": CURSOR_KEY, "sk": SOLE, "start": start}
        put_many(self.database, self.tables.log, [row])


def _hints(rows: list[Row]) -> list[Hint]:
    newest: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["pk"].startswith(COMMIT_PREFIX):
            _, tenant, stream = row["pk"].split("#", 2)
            newest[tenant, stream] = max(row["sk"], newest.get((tenant, stream), 0))
    return [Hint(tenant, stream, first_version) for (tenant, stream), first_version in newest.items()]
