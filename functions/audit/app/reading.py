"""Routes of read models: searches and lists. Every answer says how far its view has come."""

from typing import Annotated, Any, Literal

import msgspec

from functions.audit import domain
from functions.audit.app.door import (
    STORE_ERRORS,
    STORE_UNAVAILABLE,
    Generation,
    Limit,
    WaitFor,
    app,
    asking,
    moment,
    read_models,
    stream_named,
)
from functions.audit.app.recording import recorded
from functions.audit.service.reading import Answered, FoundEvent
from holdfast.clock import to_text
from holdfast.http import Answer, Caller, Header

Cursor = Annotated[str, msgspec.Meta(max_length=2_048)]
Prefix = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:@+/~-]{0,200}\Z")]


class SearchQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from", "last": "to"}):
    actor: str | None = None
    type: str | None = None
    subject: str | None = None
    stream: str | None = None
    first: str | None = None
    """Find what happened from then on (RFC 3339)."""
    last: str | None = None
    """Find what happened until then (RFC 3339)."""
    known_at: str | None = None
    """Find what had been recorded by then (RFC 3339)."""
    order: Literal["asc", "desc"] = "asc"
    limit: Limit = 100
    include: Literal["data"] | None = None
    """Bring the whole events along; that takes the scope `audit:read` as well."""
    cursor: Cursor | None = None
    generation: Generation | None = None
    """Of the view; the live one if not said."""


class FoundItem(msgspec.Struct, frozen=True, omit_defaults=True):
    stream: str
    version: int
    id: str
    source: str
    type: str
    actor: str
    time: str
    recorded_at: str
    partition: int
    position: int
    subject: str | None = None
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """The whole CloudEvent, with `include=data`."""

    @classmethod
    def of(cls, item: FoundEvent) -> "FoundItem":
        row = item.row
        return cls(
            stream=row.stream,
            version=row.version,
            id=row.id,
            source=row.source,
            type=row.type,
            actor=row.actor,
            time=to_text(row.time),
            recorded_at=to_text(row.recorded_at),
            partition=row.partition,
            position=row.position,
            subject=row.subject,
            event=msgspec.UNSET if item.event is None else msgspec.Raw(item.event),
        )


class SearchAnswer(msgspec.Struct, frozen=True):
    items: list[FoundItem]
    cursor: str | None


class StreamsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prefix: Prefix = ""
    cursor: Cursor | None = None
    limit: Limit = 100
    generation: Generation | None = None


class StreamItem(msgspec.Struct, frozen=True):
    stream: str
    version: int
    first_time: str
    last_time: str
    last_actor: str


class StreamsAnswer(msgspec.Struct, frozen=True):
    items: list[StreamItem]
    cursor: str | None


class ActivityQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from", "last": "to"}):
    first: str | None = None
    """Count from that moment's day on (RFC 3339)."""
    last: str | None = None
    """Count until that moment's day, this day included (RFC 3339)."""
    by: Literal["day"] = "day"
    cursor: Cursor | None = None
    limit: Limit = 1_000
    generation: Generation | None = None


class ActivityItem(msgspec.Struct, frozen=True):
    day: str
    type: str
    count: int


class ActivityAnswer(msgspec.Struct, frozen=True):
    items: list[ActivityItem]
    cursor: str | None


VIEW_POSITION = Header(
    "Holdfast-View-Position", "How far the view has come: a position for each partition of the log, in order."
)
LAG_SECONDS = Header("Holdfast-Lag-Seconds", "How long the view is behind the log.", {"type": "number", "minimum": 0})
STANDING = [VIEW_POSITION, LAG_SECONDS]
VIEW_ERRORS = {
    **STORE_ERRORS,
    400: ["invalid_cursor", "invalid_wait_for", "invalid_stream"],
    404: ["generation_not_found"],
    503: [*STORE_UNAVAILABLE, "view_behind", "cursor_key_unknown", "not_recorded"],
}
SEARCH_ERRORS = {
    **VIEW_ERRORS,
    400: [*VIEW_ERRORS[400], "unbounded_search", "invalid_range", "invalid_time"],
    503: [*VIEW_ERRORS[503], "keys_unavailable"],
}
ACTIVITY_ERRORS = {**VIEW_ERRORS, 400: [*VIEW_ERRORS[400], "invalid_range", "invalid_time"]}


@app.get("/v1/events", scope="audit:search", raises=SEARCH_ERRORS, headers=STANDING)
@recorded("search")
def get_found_events(caller: Caller, query: SearchQuery, wait_for: WaitFor) -> Answer[SearchAnswer]:
    """Find events by who did what to whom and when; all that is given must hold, bounds included."""
    if query.include == "data":
        caller.require("audit:read")
    search = domain.Search(
        actor=query.actor,
        type=query.type,
        subject=query.subject,
        stream=None if query.stream is None else stream_named(query.stream),
        first=moment(query.first, "from"),
        last=moment(query.last, "to"),
        known_at=moment(query.known_at, "known_at"),
        newest_first=query.order == "desc",
    )
    answered = read_models(caller).search(
        search,
        cursor=query.cursor,
        limit=query.limit,
        asking=asking(wait_for, query.generation),
        with_events=query.include == "data",
    )
    return Answer(SearchAnswer([*map(FoundItem.of, answered.items)], answered.cursor), headers=standing_of(answered))


@app.get("/v1/streams", scope="audit:search", raises=VIEW_ERRORS, headers=STANDING)
@recorded("streams")
def get_streams(caller: Caller, query: StreamsQuery, wait_for: WaitFor) -> Answer[StreamsAnswer]:
    """List the streams whose names begin with a prefix, by name."""
    answered = read_models(caller).streams(
        query.prefix.replace("~", "/"),
        cursor=query.cursor,
        limit=query.limit,
        asking=asking(wait_for, query.generation),
    )
    items = [
        StreamItem(each.stream, each.version, to_text(each.first_time), to_text(each.last_time), each.last_actor)
        for each in answered.items
    ]
    return Answer(StreamsAnswer(items, answered.cursor), headers=standing_of(answered))


@app.get("/v1/activity", scope="audit:search", raises=ACTIVITY_ERRORS, headers=STANDING)
@recorded("activity")
def get_activity(caller: Caller, query: ActivityQuery, wait_for: WaitFor) -> Answer[ActivityAnswer]:
    """Count events by day and type."""
    answered = read_models(caller).activity(
        moment(query.first, "from"),
        moment(query.last, "to"),
        cursor=query.cursor,
        limit=query.limit,
        asking=asking(wait_for, query.generation),
    )
    items = [ActivityItem(each.day, each.type, each.count) for each in answered.items]
    return Answer(ActivityAnswer(items, answered.cursor), headers=standing_of(answered))


def standing_of(answered: Answered[Any]) -> dict[str, str]:
    """Say how far the view has come: a position for each partition of the log, in order."""
    return {
        VIEW_POSITION.name: ", ".join(map(str, answered.positions)),
        LAG_SECONDS.name: f"{answered.lag_seconds:.3f}",
    }
