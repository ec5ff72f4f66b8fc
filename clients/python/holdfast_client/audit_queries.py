"""What else the audit trail can be asked: search, lists of streams, the log and its proofs, commits of many streams."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec

from holdfast_client.audit_operations import AsyncOperations, OperationCalls, Operations, reader_of, replayable
from holdfast_client.conversation import Call, Request
from holdfast_client.events import Event, cloudevent_of, stream_path, time_text
from holdfast_client.transport import AsyncTransport, Transport

PAGE_ITEMS = 100
"""Items asked for with one page of a listing."""

PARTITIONS = 4
"""Of every tenant's log."""

WaitFor = tuple[str, int] | None
"""A version of a stream that a read model must hold before it answers: a caller's own write, say."""


def partition_of(stream: str) -> int:
    """Say in which partition of the log a stream lies: the first four bytes of its name's SHA-256, modulo 4."""
    return int.from_bytes(sha256(stream.encode()).digest()[:4], "big") % PARTITIONS


class Found(msgspec.Struct, frozen=True):
    """One event that a search found: its envelope, and where it stands."""

    stream: str
    version: int
    id: str
    source: str
    type: str
    actor: str
    time: datetime
    recorded_at: datetime
    partition: int
    position: int
    subject: str | None = None
    event: dict[str, Any] | None = None
    """The whole CloudEvent, if it was asked for."""


class FoundPage(msgspec.Struct, frozen=True):
    items: list[Found]
    cursor: str | None = None


class StreamFacts(msgspec.Struct, frozen=True):
    """One stream, as the list of streams shows it."""

    stream: str
    version: int
    first_time: datetime
    last_time: datetime
    last_actor: str


class StreamsPage(msgspec.Struct, frozen=True):
    items: list[StreamFacts]
    cursor: str | None = None


class LogEntry(msgspec.Struct, frozen=True):
    """One commit at its place in the log; its events hold positions *position* and the following."""

    position: int
    events: int
    leaf: int
    stream: str
    first_version: int
    commit_id: str
    leaf_hash: str
    recorded_at: datetime


class LogPage(msgspec.Struct, frozen=True):
    partition: int
    entries: list[LogEntry]
    next_after: int | None = None


class LogHead(msgspec.Struct, frozen=True):
    """How far one partition has come: *size* commits, which hold *position* events, under one root."""

    partition: int
    size: int
    position: int
    root: str


class Ticket(msgspec.Struct, frozen=True):
    """What opens one WebSocket, once, within `expires_in` seconds."""

    ticket: str
    url: str
    expires_in: int


class LogFacts(msgspec.Struct, frozen=True):
    log_id: str
    partitions: int


class Proof(msgspec.Struct, frozen=True):
    """That one event is in the log: bytes in base64, to be checked against a head that is trusted otherwise."""

    event_bytes: str
    event_index: int
    event_path: list[str]
    header: str
    leaf: int
    size: int
    path: list[str]
    root: str


class Changes(msgspec.Struct, frozen=True):
    """What changed in a stream's state from one version to another."""

    patch: Any
    """A JSON merge patch (RFC 7396)."""
    from_version: int = msgspec.field(name="from")
    to_version: int = msgspec.field(name="to")


class AppendedTo(msgspec.Struct, frozen=True):
    """Where the events of one stream came to stand: at `first_version` to `version`, for ever."""

    stream: str
    version: int
    first_version: int
    recorded_at: datetime


class Committed(msgspec.Struct, frozen=True):
    """An acknowledged append to several streams, in the order in which they were given."""

    commit_id: str
    appends: list[AppendedTo]
    replayed: bool = False
    """The call had been carried out before; this is its first answer, given again."""


class QueryCalls(OperationCalls):
    """The calls, yet to be made; shared by both clients."""

    def search(self, facets: Mapping[str, Any], wait_for: WaitFor, cursor: str | None) -> Call[FoundPage]:
        query = {name.rstrip("_"): _text(value) for name, value in facets.items() if value is not None}
        return self._read("/v1/events", query | _cursor(cursor), reader_of(FoundPage), _waiting(wait_for, cursor))

    def streams(self, prefix: str, wait_for: WaitFor, cursor: str | None) -> Call[StreamsPage]:
        query = ({"prefix": prefix} if prefix else {}) | {"limit": str(PAGE_ITEMS)}
        return self._read("/v1/streams", query | _cursor(cursor), reader_of(StreamsPage), _waiting(wait_for, cursor))

    def log_facts(self) -> Call[LogFacts]:
        return self._read("/v1/log", {}, reader_of(LogFacts))

    def log(self, partition: int, after: int, limit: int) -> Call[LogPage]:
        return self._read(f"/v1/log/{partition}", {"after": str(after), "limit": str(limit)}, reader_of(LogPage))

    def head(self, partition: int) -> Call[LogHead]:
        return self._read(f"/v1/log/{partition}/head", {}, reader_of(LogHead))

    def ticket(self) -> Call[Ticket]:
        # No key: a ticket that nobody heard of expires, and another is as good.
        return Call(Request("POST", f"{self.url}/v1/tickets", self.headers), reader_of(Ticket))

    def prove(self, stream: str, version: int, size: int | None) -> Call[Proof]:
        query = {"stream": stream, "version": str(version)} | ({} if size is None else {"size": str(size)})
        return self._read(f"/v1/log/{partition_of(stream)}/inclusion", query, reader_of(Proof))

    def diff(self, stream: str, from_version: int, to_version: int | None) -> Call[Changes]:
        query = {"from_version": str(from_version)} | ({} if to_version is None else {"to_version": str(to_version)})
        return self._read(f"/v1/streams/{stream_path(stream)}/diff", query, reader_of(Changes))

    def append_many(
        self, appends: Iterable[tuple[str, Any, Iterable[Event | Mapping[str, Any]]]], key: str | None
    ) -> Call[Committed]:
        body = {
            "appends": [
                {"stream": stream, "expected_version": expected, "events": [cloudevent_of(event) for event in events]}
                for stream, expected, events in appends
            ]
        }
        return self._write("POST", "/v1/commits", body, key, replayable(Committed))


def _text(value: Any) -> str:
    return time_text(value) if isinstance(value, datetime) else str(value)


def _cursor(cursor: str | None) -> dict[str, str]:
    return {} if cursor is None else {"cursor": cursor}


def _waiting(wait_for: WaitFor, cursor: str | None) -> dict[str, str]:
    """Name what the first page waits for; what it held, the next ones hold."""
    return {} if wait_for is None or cursor else {"holdfast-wait-for": f"{wait_for[0]}@{wait_for[1]}"}


class Queries(Operations):
    """The blocking half; mixed into `Audit`."""

    calls: QueryCalls
    transport: Transport

    def search(self, *, wait_for: WaitFor = None, **facets: Any) -> Iterator[Found]:
        """
        Find events by `actor`, `type`, `subject`, `stream`, `from_`, `to` and `known_at`.

        `order="desc"` begins with the newest, `include="data"` brings whole events. Pages are read when asked for.
        With *wait_for* the answer holds that version of that stream.

        Raises:
            Invalid: `unbounded_search`; name a facet, or where to begin.
            Unavailable: `view_behind`; what was to be waited for is not there yet.
        """
        cursor: str | None = None
        while True:
            page = self.transport.run(self.calls.search(facets, wait_for, cursor))
            yield from page.items
            cursor = page.cursor
            if cursor is None:
                return

    def streams(self, prefix: str = "", *, wait_for: WaitFor = None) -> Iterator[StreamFacts]:
        """List the streams whose names begin with *prefix*, by name."""
        cursor: str | None = None
        while True:
            page = self.transport.run(self.calls.streams(prefix, wait_for, cursor))
            yield from page.items
            cursor = page.cursor
            if cursor is None:
                return

    def log(self, partition: int, after: int = 0, *, limit: int = PAGE_ITEMS) -> Iterator[LogEntry]:
        """Read the commits of one partition of the log, in its order, beyond position *after*."""
        at: int | None = after
        while at is not None:
            page = self.transport.run(self.calls.log(partition, at, limit))
            yield from page.entries
            at = page.next_after

    def prove(self, stream: str, version: int, *, size: int | None = None) -> Proof:
        """Ask for the proof that an event is in its log partition of *size* leaves, by default all there are."""
        return self.transport.run(self.calls.prove(stream, version, size))

    def diff(self, stream: str, from_version: int, to_version: int | None = None) -> Changes:
        """Say what changed from one version to another, by default the last, as a merge patch."""
        return self.transport.run(self.calls.diff(stream, from_version, to_version))

    def append_many(
        self,
        appends: Iterable[tuple[str, Any, Iterable[Event | Mapping[str, Any]]]],
        *,
        idempotency_key: str | None = None,
    ) -> Committed:
        """
        Append to several streams, given as (stream, expected version, events), all or nothing, exactly once.

        Raises:
            Stale: one of them is not where it was expected.
            Uncertain: nobody knows; ask again with the same key.
        """
        return self.transport.run(self.calls.append_many(appends, idempotency_key))


class AsyncQueries(AsyncOperations):
    """The awaiting half; every promise is that of `Queries`."""

    calls: QueryCalls
    transport: AsyncTransport

    async def search(self, *, wait_for: WaitFor = None, **facets: Any) -> AsyncIterator[Found]:
        cursor: str | None = None
        while True:
            page = await self.transport.run(self.calls.search(facets, wait_for, cursor))
            for item in page.items:
                yield item
            cursor = page.cursor
            if cursor is None:
                return

    async def streams(self, prefix: str = "", *, wait_for: WaitFor = None) -> AsyncIterator[StreamFacts]:
        cursor: str | None = None
        while True:
            page = await self.transport.run(self.calls.streams(prefix, wait_for, cursor))
            for item in page.items:
                yield item
            cursor = page.cursor
            if cursor is None:
                return

    async def log(self, partition: int, after: int = 0, *, limit: int = PAGE_ITEMS) -> AsyncIterator[LogEntry]:
        at: int | None = after
        while at is not None:
            page = await self.transport.run(self.calls.log(partition, at, limit))
            for entry in page.entries:
                yield entry
            at = page.next_after

    async def prove(self, stream: str, version: int, *, size: int | None = None) -> Proof:
        return await self.transport.run(self.calls.prove(stream, version, size))

    async def diff(self, stream: str, from_version: int, to_version: int | None = None) -> Changes:
        return await self.transport.run(self.calls.diff(stream, from_version, to_version))

    async def append_many(
        self,
        appends: Iterable[tuple[str, Any, Iterable[Event | Mapping[str, Any]]]],
        *,
        idempotency_key: str | None = None,
    ) -> Committed:
        return await self.transport.run(self.calls.append_many(appends, idempotency_key))
