"""Read models: searches and lists, each answer with how far its view has come."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from functions.audit import domain
from holdfast import cloudevents
from holdfast.cursors import Cursors
from holdfast.errors import Invalid
from holdfast.log.values import PARTITIONS
from holdfast.projections.rows import Generation
from holdfast.streams import Commit

T = TypeVar("T")


class Standing(Protocol):
    """How far a generation of a view has come."""

    @property
    def generation(self) -> Generation: ...
    @property
    def positions(self) -> Mapping[int, int]: ...
    @property
    def span(self) -> domain.Span | None: ...
    def lag_seconds(self, now: datetime) -> float: ...


class Views(Protocol):
    """One tenant's read models (`holdfast.projections.reader.ViewReader`)."""

    def standing(self, view: str, number: int | None = None) -> Standing: ...

    def rows(
        self,
        generation: Generation,
        pk: str,
        *,
        after: str | None = None,
        first: str | None = None,
        until: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[str, Mapping[str, Any]]]: ...

    def wait_for(self, view: str, stream: str, version: int) -> int: ...


class Bodies(Protocol):
    """Where the events behind rows are, in the table or in the archive."""

    def __call__(self, rows: Iterable[domain.EventRow]) -> Iterator[Commit[bytes]]:
        """Yield, for each of *rows* in its order, its event alone in a commit with that commit's facts."""


class Asking(msgspec.Struct, frozen=True):
    """Of which generation is asked, and what it must hold."""

    generation: int | None = None
    """By default the live one."""
    wait_for: tuple[str, int] | None = None
    """A version of a stream that the live one must hold first."""


class Answered(msgspec.Struct, Generic[T], frozen=True):
    """One page of a read model."""

    items: tuple[T, ...]
    cursor: str | None
    positions: tuple[int, ...]
    """How far the view has come, by partition."""
    lag_seconds: float


class FoundEvent(msgspec.Struct, frozen=True):
    """An event that was found; *event* is the whole of it as JSON, if that was asked for."""

    row: domain.EventRow
    event: bytes | None = None


@dataclass(frozen=True)
class ReadModels:
    """One tenant's read models."""

    tenant: str
    views: Views
    bodies: Bodies
    cursors: Callable[[], Cursors]
    now: Callable[[], datetime]

    def search(
        self, search: domain.Search, *, cursor: str | None, limit: int, asking: Asking, with_events: bool
    ) -> Answered[FoundEvent]:
        """
        Find events; with_events brings their bodies, as many as one answer carries.

        Raises:
            Invalid: `unbounded_search`, `invalid_range`, `invalid_query`, `invalid_cursor`.
            NotFound: `generation_not_found`.
            Unavailable: `view_behind`.
        """
        domain.check_search(search)
        query = ("events", asking.generation, search)
        place = self._opened(query, cursor, domain.Bookmark)
        standing = self._standing(domain.EVENTS.name, asking)

        def read(rows: domain.Rows) -> Iterator[tuple[str, Mapping[str, Any]]]:
            return self.views.rows(
                standing.generation,
                rows.pk,
                after=rows.after,
                first=rows.first,
                until=rows.until,
                newest_first=rows.newest_first,
                limit=rows.limit,
            )

        page = domain.find(search, standing.span, read, place=place, limit=limit)
        if not with_events:
            items = tuple(FoundEvent(row) for _, row in page.found)
            return self._answered(items, query, page.goes_on, standing)
        items = tuple(self._with_events(page))
        goes_on = page.goes_on if len(items) == len(page.found) else page.found[len(items) - 1][0]
        return self._answered(items, query, goes_on, standing)

    def _with_events(self, page: domain.SearchPage) -> Iterator[FoundEvent]:
        rows = [row for _, row in page.found]
        taken_bytes = 0
        for row, commit in zip(rows, self.bodies(rows), strict=True):
            (event,) = cloudevents.rendered(commit)
            encoded = msgspec.json.encode(event)
            first, taken_bytes = not taken_bytes, taken_bytes + domain.travelling_bytes(encoded)
            if taken_bytes > domain.PAGE_BYTES_MAX and not first:
                return
            yield FoundEvent(row, encoded)

    def streams(self, prefix: str, *, cursor: str | None, limit: int, asking: Asking) -> Answered[domain.StreamFacts]:
        """List the streams whose names begin with *prefix*, by name; raises as `search`."""
        query = ("streams", asking.generation, prefix)
        bounds = domain.streams_within(prefix, self._opened(query, cursor, str))
        standing = self._standing(domain.STREAMS.name, asking)
        listed = self._merged(standing, bounds, limit)
        items = tuple(domain.StreamFacts.of(stream, row) for stream, (row,) in listed.rows)
        return self._answered(items, query, listed.goes_on, standing)

    def activity(
        self, first: datetime | None, last: datetime | None, *, cursor: str | None, limit: int, asking: Asking
    ) -> Answered[domain.Count]:
        """Count events by day and type, on the days of *first* and *last* and in between; raises as `search`."""
        domain.check_span(first, last)
        query = ("activity", asking.generation, first, last)
        bounds = domain.days_within(first, last, self._opened(query, cursor, str))
        standing = self._standing(domain.ACTIVITY.name, asking)
        listed = self._merged(standing, bounds, limit)
        items = tuple(domain.Count.of(place, rows) for place, rows in listed.rows)
        return self._answered(items, query, listed.goes_on, standing)

    def _merged(self, standing: Standing, bounds: domain.Bounds, limit: int) -> domain.Listed:
        partitions = [
            self.views.rows(
                standing.generation,
                str(partition),
                after=bounds.after,
                first=bounds.first,
                until=bounds.until,
                limit=limit + 1,
            )
            for partition in range(PARTITIONS)
        ]
        return domain.merged(partitions, limit)

    def _standing(self, view: str, asking: Asking) -> Standing:
        if not asking.wait_for:
            return self.views.standing(view, asking.generation)
        if asking.generation is not None:
            raise Invalid("invalid_wait_for", "Only the live generation is waited for; leave one of the two out.")
        # The one that was waited for, even if another has taken its place since.
        return self.views.standing(view, self.views.wait_for(view, *asking.wait_for))

    def _opened(self, query: object, cursor: str | None, kind: type[T]) -> T | None:
        if cursor is None:
            return None
        return msgspec.convert(self.cursors().open(self.tenant, query, cursor), kind)

    def _answered(self, items: tuple[T, ...], query: object, goes_on: object, standing: Standing) -> Answered[T]:
        cursor = None if goes_on is None else self.cursors().seal(self.tenant, query, goes_on)
        positions = tuple(standing.positions[partition] for partition in range(PARTITIONS))
        return Answered(items, cursor, positions, standing.lag_seconds(self.now()))
