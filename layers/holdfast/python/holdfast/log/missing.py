"""
What a tenant has stored and its log does not hold: for whoever wants to be sure now, and not when repair has passed by.

The log cannot tell it: it does not know a stream of which it has seen nothing. So the table of commits is walked, in
slices that one request can pay for; of a stream that was indexed meanwhile nothing is told. A walk reads the commits of
all tenants, and shows those of one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.dynamodb.reads import Row, get_many
from holdfast.dynamodb.tables import Tables, stream_key
from holdfast.dynamodb.writes import Database
from holdfast.log.blocks import watermark_of
from holdfast.log.values import SOLE, watermark_key

PAGES_MAX: Final = 4
"""Of 1 MB, in one slice."""


class Behind(msgspec.Struct, frozen=True):
    """A stream that goes on beyond what the log holds of it."""

    stream: str
    logged: int
    """The version up to which the log holds it."""
    version: int
    """The version at which the newest commit begins that this slice shows of it."""
    commits: int
    """How many this slice shows that the log does not hold."""


class Slice(msgspec.Struct, frozen=True):
    behind: list[Behind]
    commits: int
    """How many of the tenant's commits were looked at."""
    following: Row | None
    """Where the next slice begins, a key of whichever tenant; None at the end of the table."""


@dataclass(frozen=True)
class Missing:
    """Compare what one tenant has stored with its log."""

    database: Database
    tables: Tables
    tenant: str

    def slice(self, start: Row | None = None, pages_max: int = PAGES_MAX) -> Slice:
        """Look at the next commits from *start* on."""
        stored: dict[str, list[int]] = {}
        for _ in range(pages_max):
            answer = self.database.read("Scan", self._request(start))
            for row in map(from_item, answer["Items"]):
                stored.setdefault(row["pk"].split("#", 2)[2], []).append(row["sk"])
            start = from_item(answer["LastEvaluatedKey"]) if "LastEvaluatedKey" in answer else None
            if start is None:
                break
        return Slice(list(self._behind(stored)), sum(map(len, stored.values())), start)

    def _request(self, start: Row | None) -> Mapping[str, Any]:
        request: dict[str, Any] = {
            "TableName": self.tables.commits,
            "FilterExpression": "begins_with(pk, :tenant)",
            "ExpressionAttributeValues": to_item({":tenant": stream_key(self.tenant, "")}),
            "ProjectionExpression": "pk, sk",
            # What was acknowledged before must be seen.
            "ConsistentRead": True,
        }
        return request | {"ExclusiveStartKey": to_item(start)} if start else request

    def _behind(self, stored: Mapping[str, Iterable[int]]) -> Iterator[Behind]:
        log = self.tables.log
        rows = get_many(self.database, [(log, watermark_key(self.tenant, stream), SOLE) for stream in stored])
        for stream, versions in stored.items():
            logged = watermark_of(rows.get((log, watermark_key(self.tenant, stream), SOLE))).version
            beyond = [version for version in versions if version > logged]
            if beyond:
                yield Behind(stream, logged, max(beyond), len(beyond))
