"""What else the audit trail can be asked: search, lists of streams, the log and its proofs, rebuilds, and subjects."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import quote, urlencode
from uuid import uuid4

import msgspec

from holdfast_client.conversation import Answer, Call, Request
from holdfast_client.events import Event, cloudevent_of, json_bytes, stream_path, time_text
from holdfast_client.transport import AsyncTransport, Transport

PAGE_ITEMS = 100
"""Items asked for with one page of a listing."""

PARTITIONS = 4
"""Of every tenant's log."""

Moment = datetime | str | None


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


class Rebuild(msgspec.Struct, frozen=True):
    """A view that is being made again, as the service tells it."""

    rebuild_id: str
    view: str
    generation: int
    state: str
    partitions: list[dict[str, Any]] = []
    rate: float | None = None
    remaining_seconds: float | None = None


class QueryCalls:
    """The calls, yet to be made; shared by both clients."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url.rstrip("/")
        self._headers = headers

    def search(self, facets: Mapping[str, Any], cursor: str | None) -> Call[FoundPage]:
        query = {name.rstrip("_"): _text(value) for name, value in facets.items() if value is not None}
        return self._read("/v1/events", query | _cursor(cursor), FoundPage)

    def streams(self, prefix: str, cursor: str | None) -> Call[StreamsPage]:
        query = ({"prefix": prefix} if prefix else {}) | {"limit": str(PAGE_ITEMS)}
        return self._read("/v1/streams", query | _cursor(cursor), StreamsPage)

    def log_facts(self) -> Call[LogFacts]:
        return self._read("/v1/log", {}, LogFacts)

    def log(self, partition: int, after: int, limit: int) -> Call[LogPage]:
        return self._read(f"/v1/log/{partition}", {"after": str(after), "limit": str(limit)}, LogPage)

    def head(self, partition: int) -> Call[LogHead]:
        return self._read(f"/v1/log/{partition}/head", {}, LogHead)

    def ticket(self) -> Call[Ticket]:
        # No key: a ticket that nobody heard of expires, and another is as good.
        return Call(Request("POST", f"{self._url}/v1/tickets", self._headers), _reader(Ticket))

    def prove(self, stream: str, version: int, size: int | None) -> Call[Proof]:
        query = {"stream": stream, "version": str(version)} | ({} if size is None else {"size": str(size)})
        return self._read(f"/v1/log/{partition_of(stream)}/inclusion", query, Proof)

    def diff(self, stream: str, from_version: int, to_version: int) -> Call[dict[str, Any]]:
        query = {"from_version": str(from_version), "to_version": str(to_version)}
        return self._read(f"/v1/streams/{stream_path(stream)}/diff", query, dict[str, Any])

    def append_many(
        self, appends: Iterable[tuple[str, Any, Iterable[Event | Mapping[str, Any]]]], key: str | None
    ) -> Call[dict[str, Any]]:
        body = {
            "appends": [
                {"stream": stream, "expected_version": expected, "events": [cloudevent_of(event) for event in events]}
                for stream, expected, events in appends
            ]
        }
        return self._write("POST", "/v1/commits", body, key, dict[str, Any])

    def rebuild(self, view: str, reason: str, as_of: Moment, key: str | None, *, auto_flip: bool) -> Call[Rebuild]:
        body: dict[str, Any] = {"view": view, "reason": reason, "auto_flip": auto_flip}
        if as_of is not None:
            body["as_of"] = time_text(as_of)
        return self._write("POST", "/v1/rebuilds", body, key, Rebuild)

    def rebuild_state(self, rebuild_id: str) -> Call[Rebuild]:
        return self._read(f"/v1/rebuilds/{quote(rebuild_id, safe='')}", {}, Rebuild)

    def rebuild_change(
        self, rebuild_id: str, change: Literal["flip", "rollback", "abandon"], key: str | None
    ) -> Call[Rebuild]:
        return self._write("POST", f"/v1/rebuilds/{quote(rebuild_id, safe='')}/{change}", {}, key, Rebuild)

    def hold(self, subject: str, reason: str, until: Moment, key: str | None) -> Call[dict[str, Any]]:
        body = {"reason": reason} | ({} if until is None else {"until": time_text(until)})
        return self._write("PUT", f"/v1/subjects/{quote(subject, safe='')}/hold", body, key, dict[str, Any])

    def release(self, subject: str, reason: str, key: str | None) -> Call[dict[str, Any]]:
        return self._write(
            "DELETE", f"/v1/subjects/{quote(subject, safe='')}/hold", {"reason": reason}, key, dict[str, Any]
        )

    def erase(self, subject: str, reason: str, key: str | None) -> Call[dict[str, Any]]:
        return self._write(
            "POST", f"/v1/subjects/{quote(subject, safe='')}/erasure", {"reason": reason}, key, dict[str, Any]
        )

    def _read(self, path: str, query: Mapping[str, str], kind: type[Any]) -> Call[Any]:
        url = f"{self._url}{path}"
        return Call(Request("GET", f"{url}?{urlencode(query)}" if query else url, self._headers), _reader(kind))

    def _write(self, method: str, path: str, body: Any, key: str | None, kind: type[Any]) -> Call[Any]:
        key = key or str(uuid4())
        headers = {**self._headers, "content-type": "application/json", "idempotency-key": key}
        return Call(Request(method, f"{self._url}{path}", headers, json_bytes(body), key), _reader(kind))


def _reader(kind: type[Any]) -> Any:
    def read(answer: Answer) -> Any:
        return msgspec.json.decode(answer.body, type=kind)

    return read


def _text(value: Any) -> str:
    return time_text(value) if isinstance(value, datetime) else str(value)


def _cursor(cursor: str | None) -> dict[str, str]:
    return {} if cursor is None else {"cursor": cursor}


class Queries:
    """The blocking half; mixed into `Audit`."""

    _queries: QueryCalls
    _transport: Transport

    def search(self, **facets: Any) -> Iterator[Found]:
        """
        Find events by `actor`, `type`, `subject`, `stream`, `from_`, `to` and `known_at`.

        `order="desc"` begins with the newest, `include="data"` brings whole events. Pages are read when asked for.

        Raises:
            Invalid: `unbounded_search`; name a facet, or where to begin.
        """
        cursor: str | None = None
        while True:
            page = self._transport.run(self._queries.search(facets, cursor))
            yield from page.items
            cursor = page.cursor
            if cursor is None:
                return

    def streams(self, prefix: str = "") -> Iterator[StreamFacts]:
        """List the streams whose names begin with *prefix*, by name."""
        cursor: str | None = None
        while True:
            page = self._transport.run(self._queries.streams(prefix, cursor))
            yield from page.items
            cursor = page.cursor
            if cursor is None:
                return

    def log(self, partition: int, after: int = 0, *, limit: int = PAGE_ITEMS) -> Iterator[LogEntry]:
        """Read the commits of one partition of the log, in its order, beyond position *after*."""
        at: int | None = after
        while at is not None:
            page = self._transport.run(self._queries.log(partition, at, limit))
            yield from page.entries
            at = page.next_after

    def prove(self, stream: str, version: int, *, size: int | None = None) -> Proof:
        """Ask for the proof that an event is in its log partition of *size* leaves, by default all there are."""
        return self._transport.run(self._queries.prove(stream, version, size))

    def diff(self, stream: str, from_version: int, to_version: int) -> dict[str, Any]:
        """Say what changed between two versions, as a merge patch."""
        return self._transport.run(self._queries.diff(stream, from_version, to_version))

    def append_many(
        self,
        appends: Iterable[tuple[str, Any, Iterable[Event | Mapping[str, Any]]]],
        *,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """
        Append to several streams, given as (stream, expected version, events), all or nothing, exactly once.

        Raises:
            Stale: one of them is not where it was expected.
            Uncertain: nobody knows; ask again with the same key.
        """
        return self._transport.run(self._queries.append_many(appends, idempotency_key))

    def rebuild(
        self,
        view: str,
        reason: str,
        *,
        as_of: Moment = None,
        auto_flip: bool = True,
        idempotency_key: str | None = None,
    ) -> Rebuild:
        """Begin to make a view again beside the live one; with *as_of*, as it was known then."""
        return self._transport.run(self._queries.rebuild(view, reason, as_of, idempotency_key, auto_flip=auto_flip))

    def rebuild_state(self, rebuild_id: str) -> Rebuild:
        return self._transport.run(self._queries.rebuild_state(rebuild_id))

    def change_rebuild(
        self, rebuild_id: str, change: Literal["flip", "rollback", "abandon"], *, idempotency_key: str | None = None
    ) -> Rebuild:
        """Swap a rebuilt view in, take it back, or give it up."""
        return self._transport.run(self._queries.rebuild_change(rebuild_id, change, idempotency_key))

    def hold(
        self, subject: str, reason: str, *, until: Moment = None, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Forbid that a subject's content is erased, until a time or until it is released."""
        return self._transport.run(self._queries.hold(subject, reason, until, idempotency_key))

    def release(self, subject: str, reason: str, *, idempotency_key: str | None = None) -> dict[str, Any]:
        return self._transport.run(self._queries.release(subject, reason, idempotency_key))

    def erase(self, subject: str, reason: str, *, idempotency_key: str | None = None) -> dict[str, Any]:
        """
        Destroy a subject's content for good; every proof still holds.

        Raises:
            Conflict: `held`.
        """
        return self._transport.run(self._queries.erase(subject, reason, idempotency_key))


class AsyncQueries:
    """The awaiting half; every promise is that of `Queries`."""

    _queries: QueryCalls
    _transport: AsyncTransport

    async def search(self, **facets: Any) -> AsyncIterator[Found]:
        cursor: str | None = None
        while True:
            page = await self._transport.run(self._queries.search(facets, cursor))
            for item in page.items:
                yield item
            cursor = page.cursor
            if cursor is None:
                return

    async def streams(self, prefix: str = "") -> AsyncIterator[StreamFacts]:
        cursor: str | None = None
        while True:
            page = await self._transport.run(self._queries.streams(prefix, cursor))
            for item in page.items:
                yield item
            cursor = page.cursor
            if cursor is None:
                return

    async def log(self, partition: int, after: int = 0, *, limit: int = PAGE_ITEMS) -> AsyncIterator[LogEntry]:
        at: int | None = after
        while at is not None:
            page = await self._transport.run(self._queries.log(partition, at, limit))
            for entry in page.entries:
                yield entry
            at = page.next_after

    async def prove(self, stream: str, version: int, *, size: int | None = None) -> Proof:
        return await self._transport.run(self._queries.prove(stream, version, size))

    async def diff(self, stream: str, from_version: int, to_version: int) -> dict[str, Any]:
        return await self._transport.run(self._queries.diff(stream, from_version, to_version))

    async def append_many(
        self,
        appends: Iterable[tuple[str, Any, Iterable[Event | Mapping[str, Any]]]],
        *,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        return await self._transport.run(self._queries.append_many(appends, idempotency_key))
