"""The audit trail: append events to a stream, read them, and ask for its state at any time."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from holdfast_client.audit_operations import reader_of, replayable
from holdfast_client.audit_queries import AsyncQueries, Queries, QueryCalls
from holdfast_client.conversation import Answer, Call
from holdfast_client.events import Event, RecordedEvent, cloudevent_of, stream_path, time_text
from holdfast_client.tail import AsyncHttpSource, AsyncTail, HttpSource, Tail
from holdfast_client.transport import AsyncTransport, Transport

Expected = int | Literal["any"] | None
"""The version that the stream must be at: a number, None for a stream that must not exist yet, "any" for no check."""

PAGE_EVENTS = 1000
"""The most events of one page; the service ends a page earlier at 4 MB."""


class Appended(msgspec.Struct, frozen=True):
    """An acknowledged append: the events are at `first_version` to `version`, for ever."""

    version: int
    first_version: int
    commit_id: str
    recorded_at: datetime
    replayed: bool = False
    """The call had been carried out before; this is its first answer, given again."""


class EventsPage(msgspec.Struct, frozen=True):
    """One page of a stream; `next_after` is None on the last one."""

    stream: str
    events: list[RecordedEvent]
    last_version: int
    next_after: int | None


class State(msgspec.Struct, frozen=True):
    """The fold of a stream's events, up to a version, an event time and a recorded time."""

    stream: str
    state: Any
    version: int
    """The version of the last event that was applied; 0 before the first."""
    events_applied: int
    reducer: str
    last_version: int
    events_erased: int = 0
    unapplied: list[int] = []
    """The versions whose patch could not be applied, and changed nothing."""


class _RawPage(msgspec.Struct, frozen=True):
    stream: str
    events: list[dict[str, Any]]
    last_version: int
    next_after: int | None = None


class AuditCalls(QueryCalls):
    """What the audit trail can be asked, as calls that are yet to be made; shared by both clients."""

    def append(
        self,
        stream: str,
        events: Iterable[Event | Mapping[str, Any]],
        expected: Expected,
        idempotency_key: str | None,
    ) -> Call[Appended]:
        body = {"expected_version": expected, "events": [cloudevent_of(event) for event in events]}
        path = f"/v1/streams/{stream_path(stream)}/events"
        return self._write("POST", path, body, idempotency_key, replayable(Appended))

    def page(self, stream: str, after: int, limit: int) -> Call[EventsPage]:
        query = {"after": str(after), "limit": str(limit)}
        return self._read(f"/v1/streams/{stream_path(stream)}/events", query, _read_page)

    def state(
        self,
        stream: str,
        at: datetime | str | None,
        version: int | None,
        known_at: datetime | str | None,
    ) -> Call[State]:
        facets = {
            "at": None if at is None else time_text(at),
            "version": None if version is None else str(version),
            "known_at": None if known_at is None else time_text(known_at),
        }
        given = {name: value for name, value in facets.items() if value is not None}
        return self._read(f"/v1/streams/{stream_path(stream)}/state", given, reader_of(State))


def _read_page(answer: Answer) -> EventsPage:
    page = msgspec.json.decode(answer.body, type=_RawPage)
    events = [RecordedEvent.of(cloudevent) for cloudevent in page.events]
    return EventsPage(page.stream, events, page.last_version, page.next_after)


class _Paging:
    """Where an iteration over a stream stands; both iterators ask it for the next page and how much of it counts."""

    def __init__(self, after: int, limit: int | None) -> None:
        self.after: int | None = after
        self._left = limit

    @property
    def page_events(self) -> int:
        return PAGE_EVENTS if self._left is None else min(PAGE_EVENTS, self._left)

    @property
    def is_over(self) -> bool:
        return self.after is None or self._left == 0

    def take(self, page: EventsPage) -> list[RecordedEvent]:
        self.after = page.next_after
        events = page.events if self._left is None else page.events[: self._left]
        if self._left is not None:
            self._left -= len(events)
        return events


class Audit(Queries):
    """The audit trail; `AsyncAudit` is the same, awaited."""

    calls: AuditCalls
    transport: Transport
    """What is asked, and through what: for what is built on this client, such as an export."""

    def __init__(self, calls: AuditCalls, transport: Transport) -> None:
        self.calls = calls
        self.transport = transport

    def append(
        self,
        stream: str,
        events: Iterable[Event | Mapping[str, Any]],
        expected: Expected = "any",
        *,
        idempotency_key: str | None = None,
    ) -> Appended:
        """
        Append *events* to *stream*, all or none, exactly once.

        Raises:
            Stale: the stream is not at *expected*; carries its last version and, for readers, the winner's events.
            Uncertain: nobody knows; ask again with the same key.
        """
        return self.transport.run(self.calls.append(stream, events, expected, idempotency_key))

    def events(self, stream: str, after: int = 0, *, limit: int | None = None) -> Iterator[RecordedEvent]:
        """Read the events after version *after*, oldest first, page by page as they are asked for."""
        paging = _Paging(after, limit)
        while not paging.is_over:
            yield from paging.take(self.page(stream, paging.after or 0, limit=paging.page_events))

    def page(self, stream: str, after: int = 0, *, limit: int = PAGE_EVENTS) -> EventsPage:
        """Read one page: what `events` is made of."""
        return self.transport.run(self.calls.page(stream, after, limit))

    def state(
        self,
        stream: str,
        *,
        at: datetime | str | None = None,
        version: int | None = None,
        known_at: datetime | str | None = None,
    ) -> State:
        """
        Answer the state of *stream*: of events up to *version*, that happened by *at*, and were recorded by *known_at*.

        Raises:
            NotFound: there is no such stream, or *version* lies beyond its end.
        """
        return self.transport.run(self.calls.state(stream, at, version, known_at))

    def tail(self, prefix: str = "", *, after: Mapping[int, int] | None = None) -> Tail:
        """
        Follow the log: every event of streams that begin with *prefix*, as it comes, without loss or repeats.

        *after* names positions by partition (`Tail.positions` of an earlier one); where it names none, it begins now.
        The token needs the scope `audit:read`.

        Raises:
            Invalid: `unknown_partition`; and at the first step `beyond_the_log`, if the log does not reach *after*.
        """
        return Tail(HttpSource(self.calls, self.transport), prefix, after)


class AsyncAudit(AsyncQueries):
    """The audit trail; every promise is that of `Audit`."""

    calls: AuditCalls
    transport: AsyncTransport

    def __init__(self, calls: AuditCalls, transport: AsyncTransport) -> None:
        self.calls = calls
        self.transport = transport

    async def append(
        self,
        stream: str,
        events: Iterable[Event | Mapping[str, Any]],
        expected: Expected = "any",
        *,
        idempotency_key: str | None = None,
    ) -> Appended:
        return await self.transport.run(self.calls.append(stream, events, expected, idempotency_key))

    async def events(self, stream: str, after: int = 0, *, limit: int | None = None) -> AsyncIterator[RecordedEvent]:
        paging = _Paging(after, limit)
        while not paging.is_over:
            for event in paging.take(await self.page(stream, paging.after or 0, limit=paging.page_events)):
                yield event

    async def page(self, stream: str, after: int = 0, *, limit: int = PAGE_EVENTS) -> EventsPage:
        return await self.transport.run(self.calls.page(stream, after, limit))

    async def state(
        self,
        stream: str,
        *,
        at: datetime | str | None = None,
        version: int | None = None,
        known_at: datetime | str | None = None,
    ) -> State:
        return await self.transport.run(self.calls.state(stream, at, version, known_at))

    def tail(self, prefix: str = "", *, after: Mapping[int, int] | None = None) -> AsyncTail:
        """Follow the log with `async for`; `await` its `close` and its `positions`."""
        return AsyncTail(AsyncHttpSource(self.calls, self.transport), prefix, after)
