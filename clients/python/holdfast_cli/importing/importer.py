"""
Import a history into streams so that running it again ends with exactly the same streams.

A stream is read first, and each item must be the event that the stream holds at that place; from where
the stream ends, items are appended in batches, each with the integer version that it expects. So a
killed import needs no record of its own: what is in the stream *is* how far it came.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any

from holdfast_cli.importing.items import DamagedError, Item
from holdfast_client.audit import Audit
from holdfast_client.errors import Conflict, Invalid, NotFound, Stale
from holdfast_client.events import RecordedEvent

BATCH_BYTES_MAX = 3_000_000
"""Under the 4 MB of one body, with room for the envelope."""

PENDING_BYTES_MAX = 32_000_000
"""What may lie unwritten over all streams of a file; when so much has been read, every stream is written out."""

PAGE_EVENTS = 500
STALE_ROUNDS_MAX = 8
"""How often another writer may come in between before the import gives up."""


class ContradictionError(Exception):
    """The stream holds something else than the history says."""

    def __init__(self, item: Item, version: int, why: str) -> None:
        super().__init__(f"{item.where} contradicts version {version} of {item.stream}: {why}")
        self.item = item
        self.version = version


@dataclass
class Tally:
    """How far an import has come."""

    events_read: int = 0
    events_appended: int = 0
    events_already_there: int = 0
    streams: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=monotonic)

    @property
    def seconds(self) -> float:
        return monotonic() - self.started

    def as_json(self) -> dict[str, Any]:
        return {
            "events_read": self.events_read,
            "events_appended": self.events_appended,
            "events_already_there": self.events_already_there,
            "streams": self.streams,
            "seconds": round(self.seconds, 3),
        }


def import_items(
    audit: Audit, items: Iterable[Item], *, batch_events: int, on_progress: Callable[[Tally], None]
) -> Tally:
    """
    Bring *items* in, in their order, in bounded memory.

    Raises:
        DamagedError: the history cannot be read on, or the service refuses an item for good;
            everything before it is in its stream.
        ContradictionError: a stream disagrees; nothing after that was appended to it.
    """
    tally = Tally()
    streams: dict[str, _StreamImport] = {}
    unflushed_bytes = 0
    try:
        for item in items:
            tally.events_read += 1
            unflushed_bytes += item.bytes
            if item.stream not in streams:
                streams[item.stream] = _StreamImport(audit, item.stream, batch_events, tally)
            streams[item.stream].take(item)
            if unflushed_bytes > PENDING_BYTES_MAX:
                _flush(streams)
                unflushed_bytes = 0
            on_progress(tally)
    except DamagedError:
        _flush(streams)
        raise
    _flush(streams)
    on_progress(tally)
    return tally


def _flush(streams: Mapping[str, "_StreamImport"]) -> None:
    for stream in streams.values():
        stream.flush()


class _StreamImport:
    """One stream: first agreeing with what it holds, then appending."""

    def __init__(self, audit: Audit, name: str, batch_events: int, tally: Tally) -> None:
        self._audit = audit
        self._name = name
        self._batch_events = batch_events
        self._tally = tally
        self._version = 0
        self._recorded = self._read_on()
        self.pending: list[Item] = []
        self.pending_bytes = 0

    def take(self, item: Item) -> None:
        if self._is_there(item):
            return
        if self.pending and self.pending_bytes + item.bytes > BATCH_BYTES_MAX:
            self.flush()
        self.pending.append(item)
        self.pending_bytes += item.bytes
        if len(self.pending) >= self._batch_events:
            self.flush()

    def flush(self) -> None:
        """Append what is pending; a batch that is refused is halved until the item at fault stands alone."""
        batch_events = len(self.pending)
        stale_rounds = 0
        while self.pending:
            batch = self.pending[:batch_events]
            try:
                appended = self._audit.append(self._name, [item.event for item in batch], self._version or None)
            except Stale:
                stale_rounds += 1
                if stale_rounds > STALE_ROUNDS_MAX:
                    raise
                self._catch_up()
            except (Invalid, Conflict) as error:
                if len(batch) == 1:
                    raise DamagedError(batch[0].where, f"the service refuses it: {error}") from error
                batch_events = (len(batch) + 1) // 2
            else:
                self._set_version(appended.version)
                self._tally.events_appended += len(batch)
                self._keep_pending(self.pending[len(batch) :])

    def _catch_up(self) -> None:
        """Another writer was faster, perhaps with the same history: agree with what it wrote, then go on."""
        self._recorded = self._read_on()
        self._keep_pending([item for item in self.pending if not self._is_there(item)])

    def _is_there(self, item: Item) -> bool:
        for recorded in self._recorded:
            if item.owns_source and recorded.source != item.event["source"]:
                continue
            if difference := disagreement(item.event, recorded):
                raise ContradictionError(item, recorded.streamversion, difference)
            self._tally.events_already_there += 1
            return True
        return False

    def _read_on(self) -> Iterator[RecordedEvent]:
        after: int | None = self._version
        while after is not None:
            try:
                page = self._audit.page(self._name, after, limit=PAGE_EVENTS)
            except NotFound:
                return
            self._set_version(page.last_version)
            yield from page.events
            after = page.next_after

    def _set_version(self, version: int) -> None:
        self._version = version
        self._tally.streams[self._name] = version

    def _keep_pending(self, items: list[Item]) -> None:
        self.pending = items
        self.pending_bytes = sum(item.bytes for item in items)


def disagreement(event: Mapping[str, Any], recorded: RecordedEvent) -> str | None:
    """
    Say what *recorded* has otherwise than *event*, or None if it is that event.

    What the event left open (time, actor, content type) the service filled in, so only what the event
    says is compared; times are compared as moments, to the microsecond that the service keeps.
    """
    stored = recorded.cloudevent
    for name in sorted({*event, *(stored.keys() & {"subject", "data", "data_base64"})}, key=_identity_first):
        if name == "time" and isinstance(event["time"], str):
            if _moment(event["time"]) == recorded.time:
                continue
        elif name in event and name in stored and _canonical(event[name]) == _canonical(stored[name]):
            continue
        return f"{name} is {_short(stored.get(name))} there, and {_short(event.get(name))} here"
    return None


def _identity_first(name: str) -> tuple[bool, str]:
    return name != "id", name


def _canonical(value: Any) -> str:
    """Write *value* so that equal texts are equal JSON; to Python, `1`, `1.0` and `true` are equal too."""
    return json.dumps(value, sort_keys=True)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"  # noqa: PLR2004  one terminal line
