"""
Searching the view `events`: which rows are read, in which order, and where a page ends. Pure.

A search reads the most selective facet that it names, bucket by bucket between its bounds, and filters the rest. What
it reads for one page is bounded, whatever it finds: a page may be empty and still say where the next one begins.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import MAXYEAR, UTC, date, datetime
from typing import Any, Final

import msgspec

from functions.audit.domain.views import DAY_FACET, EventRow, bucket_of, search_key
from holdfast.clock import to_text
from holdfast.errors import Invalid

ROWS_MAX: Final = 1_000
"""Rows read for one page."""
BUCKETS_MAX: Final = 64
"""Buckets looked into for one page; an empty one costs a request too."""
SPAN_YEARS_MAX: Final = 5
"""By the calendar, from the first to the last moment that one search asks for."""
VALUE_BYTES_MAX: Final = 512
"""Of what is searched for: no event holds more (CloudEvents attributes that are parts of keys)."""
FACETS: Final = ("subject", "actor", "type")
"""By how few events share a value, as a rule; without any of them a search goes by days."""

_BEHIND_TIME: Final = "$"
"""Follows `#`: behind a time it lies beyond every place at that time."""


class Search(msgspec.Struct, frozen=True):
    """What is searched for; all that is given must hold. Bounds are included."""

    actor: str | None = None
    type: str | None = None
    subject: str | None = None
    stream: str | None = None
    first: datetime | None = None
    last: datetime | None = None
    known_at: datetime | None = None
    newest_first: bool = False

    @property
    def facet(self) -> str:
        return next((facet for facet in FACETS if self.value_of(facet) is not None), DAY_FACET)

    def value_of(self, facet: str) -> str | None:
        value: str | None = getattr(self, facet, None)
        return value

    def finds(self, found: EventRow) -> bool:
        """Tell whether what lies between the bounds is searched for."""
        wished = {facet: self.value_of(facet) for facet in (*FACETS, "stream")}
        return all(value in (None, getattr(found, facet)) for facet, value in wished.items()) and (
            self.known_at is None or found.recorded_at <= self.known_at
        )


Span = tuple[datetime, datetime]


class Bookmark(msgspec.Struct, frozen=True, array_like=True):
    """Where a search goes on: behind a row of a bucket, or at the bucket's begin."""

    bucket: str
    after: str = ""


class Rows(msgspec.Struct, frozen=True):
    """Rows to read: those under *pk* behind *after*, or else between *first* and *until*, no more than *limit*."""

    pk: str
    after: str | None
    first: str | None
    until: str | None
    newest_first: bool
    limit: int


ReadRows = Callable[[Rows], Iterator[tuple[str, Mapping[str, Any]]]]
"""Answers rows with their sort keys, in order."""


class SearchPage(msgspec.Struct, frozen=True):
    """What was found, each with its bookmark; *goes_on* is where the next page begins, None where nothing follows."""

    found: tuple[tuple[Bookmark, EventRow], ...]
    goes_on: Bookmark | None


def check_search(search: Search) -> None:
    """
    Refuse what would read without end.

    Raises:
        Invalid: `unbounded_search`, `invalid_range` or `invalid_query`.
    """
    for facet in FACETS:
        value = search.value_of(facet)
        if value is not None and not 0 < len(value.encode()) <= VALUE_BYTES_MAX:
            raise Invalid("invalid_query", f"It takes 1 to {VALUE_BYTES_MAX} bytes.", pointer=f"/{facet}")
    if search.facet == DAY_FACET and search.first is None:
        raise Invalid("unbounded_search", "Name an actor, a type or a subject, or say from when on.", pointer="/from")
    check_span(search.first, search.last)


def check_span(first: datetime | None, last: datetime | None) -> None:
    """
    Refuse bounds in the wrong order, or too far apart.

    Raises:
        Invalid: `invalid_range`.
    """
    if first is None or last is None:
        return
    if first > last:
        raise Invalid("invalid_range", "`from` lies behind `to`.", pointer="/from")
    if last > _years_after(first, SPAN_YEARS_MAX):
        raise Invalid("invalid_range", "From `from` to `to` are more than five years: ask for less.", pointer="/to")


def _years_after(moment: datetime, years: int) -> datetime:
    """Move *moment* on by years of the calendar; from a 29 February to the first of March where there is none."""
    year = moment.year + years
    if year > MAXYEAR:
        return datetime.max.replace(tzinfo=UTC)
    try:
        return moment.replace(year=year)
    except ValueError:
        return moment.replace(year=year, month=3, day=1)


def find(search: Search, span: Span | None, read: ReadRows, *, place: Bookmark | None, limit: int) -> SearchPage:
    """
    Find up to *limit* events, from *place* on.

    *span* bounds the times of all events that the view holds; None if it holds none.

    Raises:
        Invalid: `invalid_range`; without a facet and without `to`, the events up to the last are too many years.
    """
    bounds = _bounds(search, span, is_first=place is None)
    if bounds is None:
        return SearchPage((), None)
    first, until = _between(bounds)
    found: list[tuple[Bookmark, EventRow]] = []
    examined = 0
    for looked_into, bucket in enumerate(_buckets(search, bounds, place)):
        if looked_into == BUCKETS_MAX:
            return SearchPage(tuple(found), Bookmark(bucket))
        begin = place if place and place.bucket == bucket else Bookmark(bucket)
        # Where nothing is filtered, one more row than is wanted tells whether anything follows.
        asked = ROWS_MAX - examined if _filters(search) else min(ROWS_MAX - examined, limit - len(found) + 1)
        for at, row in read(_rows(search, bounds, begin, asked)):
            if not first <= at <= until:
                break
            examined += 1
            event = EventRow.of(row)
            if search.finds(event):
                if len(found) == limit:
                    return SearchPage(tuple(found), found[-1][0])
                found.append((Bookmark(bucket, at), event))
            if examined == ROWS_MAX:
                return SearchPage(tuple(found), Bookmark(bucket, at))
    return SearchPage(tuple(found), None)


def _bounds(search: Search, span: Span | None, *, is_first: bool) -> Span | None:
    """Narrow the search to where there are events; None if there are none."""
    if span is None:
        return None
    first = span[0] if search.first is None else max(search.first, span[0])
    last = span[1] if search.last is None else min(search.last, span[1])
    # An event may claim any time. Later pages go on all the same when one that lies far off has come meanwhile.
    if is_first and search.facet == DAY_FACET and search.last is None:
        check_span(first, max(first, last))
    return (first, last) if first <= last else None


def _buckets(search: Search, bounds: Span, place: Bookmark | None) -> Iterator[str]:
    """
    Yield the buckets between the bounds in the search's order, from where it goes on.

    They are made as they are asked for: an event may claim any time, and some claim the year 9999.
    """
    facet = search.facet
    first, last = (_number(facet, bucket_of(facet, moment)) for moment in bounds)
    start = None if place is None else _number(facet, place.bucket)
    if search.newest_first:
        numbers = range(last if start is None else min(start, last), first - 1, -1)
    else:
        numbers = range(first if start is None else max(start, first), last + 1)
    return (_name(facet, number) for number in numbers)


def _rows(search: Search, bounds: Span, place: Bookmark, limit: int) -> Rows:
    """Name the rows of a bucket between the bounds; where it goes on, the reader ends at the other bound."""
    pk = search_key(search.facet, place.bucket, search.value_of(search.facet) or "")
    if place.after:
        return Rows(pk, place.after, None, None, search.newest_first, limit)
    return Rows(pk, None, *_between(bounds), search.newest_first, limit)


def _between(bounds: Span) -> tuple[str, str]:
    return to_text(bounds[0]), to_text(bounds[1]) + _BEHIND_TIME


def _filters(search: Search) -> bool:
    """Tell whether rows that are read may be left out."""
    others = [value for facet in (*FACETS, "stream") if facet != search.facet and (value := search.value_of(facet))]
    return bool(others) or search.known_at is not None


def _number(facet: str, bucket: str) -> int:
    """Number buckets, so that neighbours have neighbouring numbers."""
    if facet == DAY_FACET:
        return date.fromisoformat(bucket).toordinal()
    year, month = map(int, bucket.split("-"))
    return year * 12 + month - 1


def _name(facet: str, number: int) -> str:
    if facet == DAY_FACET:
        return date.fromordinal(number).isoformat()
    return f"{number // 12:04d}-{number % 12 + 1:02d}"
