"""The rows of the view `events` in memory, read as the store reads them, and counted."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from functions.audit.domain.searching import Rows, Span
from functions.audit.domain.views import EVENTS, EventRow
from holdfast.projections.views import Recorded


def found_event(position: int, time: datetime, **more: Any) -> EventRow:
    facts: dict[str, Any] = {
        "stream": "s",
        "version": position + 1,
        "first_version": position + 1,
        "id": str(position),
        "source": "urn:test",
        "type": "t",
        "subject": None,
        "actor": "ann",
        "time": time,
        "recorded_at": time,
        "partition": 0,
        "position": position,
    }
    return EventRow(**facts | more)


def recorded(found: EventRow) -> Recorded:
    """Make the event of which the view makes *found*."""
    attributes = {name: getattr(found, name) for name in ("id", "source", "type", "subject", "actor", "time")}
    return Recorded(
        tenant="acme",
        stream=found.stream,
        version=found.version,
        first_version=found.first_version,
        partition=found.partition,
        position=found.position,
        stored=msgspec.json.encode(attributes),
        actor="writer",
        recorded_at=found.recorded_at,
        commit_id="c",
    )


class Shelf:
    """What the view holds of events."""

    def __init__(self, events: Sequence[EventRow]) -> None:
        self._rows: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
        for each in events:
            for key, attributes in EVENTS.rows(recorded(each)):
                assert key.sk not in self._rows[key.pk]
                self._rows[key.pk][key.sk] = attributes
        self._keys = {pk: sorted(rows) for pk, rows in self._rows.items()}
        times = [each.time for each in events]
        self.span: Span | None = (min(times), max(times)) if times else None
        self.reads = 0
        self.rows_read = 0

    def read(self, rows: Rows) -> Iterator[tuple[str, Mapping[str, Any]]]:
        self.reads += 1
        keys = self._keys.get(rows.pk, [])
        start = 0 if rows.first is None else bisect_left(keys, rows.first)
        end = len(keys) if rows.until is None else bisect_right(keys, rows.until)
        if rows.after is not None:
            start, end = (start, bisect_left(keys, rows.after)) if rows.newest_first else (
                bisect_right(keys, rows.after), end
            )  # fmt: skip
        chosen = keys[start:end][::-1] if rows.newest_first else keys[start:end]
        for key in chosen[: rows.limit]:
            self.rows_read += 1
            yield key, self._rows[rows.pk][key]
