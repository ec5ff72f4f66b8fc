"""
The audit trail's read models, as functions of its events: pure.

They hold envelopes and never data, so that what is found in them betrays nothing that destroying a subject's key must
hide. An event without a time of its own happened when it was recorded.

A view whose rows are to be others gets the next version, beside the old one in `VIEWS`. That one may go when every live
generation has been rebuilt; until then its rows are read as well, so whoever reads knows both.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from holdfast.clock import from_micros, to_micros, to_text
from holdfast.dynamodb.attributes import ordered
from holdfast.projections.views import Attributes, Key, Recorded, View


class Envelope(msgspec.Struct, frozen=True):
    """What the views say of an event, its actor and its time filled in from the commit that holds it."""

    id: str
    source: str
    type: str
    subject: str | None
    actor: str
    time: datetime


class _Stored(msgspec.Struct, frozen=True):
    id: str
    source: str
    type: str
    subject: str | None = None
    actor: str | None = None
    time: datetime | None = None


_STORED: Final = msgspec.json.Decoder(_Stored)


def envelope_of(event: Recorded) -> Envelope:
    stored = _STORED.decode(event.stored)
    return Envelope(
        id=stored.id,
        source=stored.source,
        type=stored.type,
        subject=stored.subject,
        actor=event.actor if stored.actor is None else stored.actor,
        time=stored.time or event.recorded_at,
    )


DAY_FACET: Final = "day"
"""Every event lies under its day; under the other facets it lies month by month."""


def day_of(moment: datetime) -> str:
    return to_text(moment)[: len("2026-01-31")]


def month_of(moment: datetime) -> str:
    return to_text(moment)[: len("2026-01")]


def bucket_of(facet: str, moment: datetime) -> str:
    return day_of(moment) if facet == DAY_FACET else month_of(moment)


def search_key(facet: str, bucket: str, value: str) -> str:
    """Name the rows of one facet's value in one bucket. The value comes last: it may hold anything."""
    return f"{facet}#{bucket}#{value}"


def search_place(time: datetime, partition: int, position: int) -> str:
    """Say where an event lies among those of its bucket: by its time, and where times are equal by its place."""
    return f"{to_text(time)}#{partition}#{ordered(position)}"


class Events:
    """Every event by its day, its actor, its type and its subject: what a search reads."""

    name = "events"
    version = 1

    def rows(self, event: Recorded) -> Iterable[tuple[Key, Attributes]]:
        envelope = envelope_of(event)
        attributes: dict[str, Any] = {
            "stream": event.stream,
            "v": event.version,
            "fv": event.first_version,
            "id": envelope.id,
            "source": envelope.source,
            "type": envelope.type,
            "actor": envelope.actor,
            "time": to_micros(envelope.time),
            "rt": to_micros(event.recorded_at),
            "p": event.partition,
            "pos": event.position,
        }
        facets = {DAY_FACET: "", "actor": envelope.actor, "type": envelope.type}
        if envelope.subject is not None:
            attributes["subject"] = facets["subject"] = envelope.subject
        place = search_place(envelope.time, event.partition, event.position)
        for facet, value in facets.items():
            yield Key(search_key(facet, bucket_of(facet, envelope.time), value), place), attributes


class EventRow(msgspec.Struct, frozen=True):
    """One event as the view `events` holds it."""

    stream: str
    version: int
    first_version: int
    """Of the commit that holds it."""
    id: str
    source: str
    type: str
    subject: str | None
    actor: str
    time: datetime
    recorded_at: datetime
    partition: int
    position: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "EventRow":
        return cls(
            stream=row["stream"],
            version=row["v"],
            first_version=row["fv"],
            id=row["id"],
            source=row["source"],
            type=row["type"],
            subject=row.get("subject"),
            actor=row["actor"],
            time=from_micros(row["time"]),
            recorded_at=from_micros(row["rt"]),
            partition=row["p"],
            position=row["pos"],
        )


class Streams:
    """One row for each stream: how far it goes, the bounds of its events' times, and who wrote last."""

    name = "streams"
    version = 2

    def keys(self, event: Recorded) -> Iterable[Key]:
        return (Key(str(event.partition), event.stream),)

    def change(self, key: Key, row: Attributes | None, event: Recorded) -> Attributes:  # noqa: ARG002 - there is one
        envelope = envelope_of(event)
        time = to_micros(envelope.time)
        return {
            "version": event.version,
            "first_time": min(time, row["first_time"]) if row else time,
            "last_time": max(time, row["last_time"]) if row else time,
            "last_actor": envelope.actor,
        }


class Activity:
    """How many events of each type happened on each day."""

    name = "activity"
    version = 1

    def keys(self, event: Recorded) -> Iterable[Key]:
        envelope = envelope_of(event)
        return (Key(str(event.partition), activity_place(day_of(envelope.time), envelope.type)),)

    def change(self, key: Key, row: Attributes | None, event: Recorded) -> Attributes:  # noqa: ARG002 - it counts
        return {"count": (row["count"] if row else 0) + 1}


def activity_place(day: str, event_type: str) -> str:
    return f"{day}#{event_type}"


EVENTS: Final = Events()
STREAMS: Final = Streams()
ACTIVITY: Final = Activity()

VIEWS: Final[tuple[View, ...]] = (EVENTS, STREAMS, ACTIVITY)
