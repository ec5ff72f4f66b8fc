"""Pages of views that keep rows for each partition of the log, merged into one order: pure."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import msgspec

from functions.audit.domain.views import activity_place, day_of
from holdfast.clock import from_micros

Row = tuple[str, Mapping[str, Any]]
"""A sort key, and what lies there."""

_BEHIND_NAMES = "~"
"""No name of a stream holds it, and it follows every character that one may hold."""


class Bounds(msgspec.Struct, frozen=True):
    """Sort keys to read: behind *after*, or else from *first* on, and up to *until*, as far as they are given."""

    after: str | None = None
    first: str | None = None
    until: str | None = None


class Listed(msgspec.Struct, frozen=True):
    """Rows in order, those of one sort key together; *goes_on* is the last of them if more follow."""

    rows: tuple[tuple[str, tuple[Mapping[str, Any], ...]], ...]
    goes_on: str | None


def merged(partitions: Sequence[Iterator[Row]], limit: int) -> Listed:
    """Merge the rows of all partitions, each in its order, up to *limit* different sort keys."""
    groups = groupby(heapq.merge(*partitions, key=itemgetter(0)), key=itemgetter(0))
    taken = [(at, tuple(row for _, row in rows)) for at, rows in islice(groups, limit)]
    follows = next(groups, None) is not None
    return Listed(tuple(taken), taken[-1][0] if follows else None)


def streams_within(prefix: str, after: str | None) -> Bounds:
    """Bound the names that begin with *prefix*."""
    return Bounds(after, prefix if prefix and after is None else None, prefix + _BEHIND_NAMES if prefix else None)


def days_within(first: datetime | None, last: datetime | None, after: str | None) -> Bounds:
    """Bound the days that *first* and *last* lie in, those two included."""
    begin = None if first is None or after is not None else day_of(first)
    return Bounds(after, begin, None if last is None else _behind_day(day_of(last)))


def _behind_day(day: str) -> str:
    number = date.fromisoformat(day).toordinal()
    if number == date.max.toordinal():
        return activity_place(day, chr(0x10FFFF))
    return (date.fromordinal(number) + timedelta(days=1)).isoformat()


class StreamFacts(msgspec.Struct, frozen=True):
    """One stream, as the view `streams` holds it."""

    stream: str
    version: int
    first_time: datetime
    last_time: datetime
    last_actor: str

    @classmethod
    def of(cls, stream: str, row: Mapping[str, Any]) -> "StreamFacts":
        return cls(
            stream, row["version"], from_micros(row["first_time"]), from_micros(row["last_time"]), row["last_actor"]
        )


class Count(msgspec.Struct, frozen=True):
    """How many events of one type happened on one day."""

    day: str
    type: str
    count: int

    @classmethod
    def of(cls, place: str, rows: Sequence[Mapping[str, Any]]) -> "Count":
        day, event_type = place.split("#", 1)
        return cls(day, event_type, sum(row["count"] for row in rows))
