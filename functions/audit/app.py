"""How the audit trail is reached: its routes, and the wiring behind them."""

from typing import Annotated, Any, Literal

import msgspec

from functions.audit import adapters, domain
from functions.audit.service import AuditTrail
from holdfast.clock import from_text, to_text
from holdfast.cloudevents import BATCH_TYPE
from holdfast.folds import encode_state
from holdfast.http import Answer, Api, Caller, Headers, IdempotencyKey, RawBody
from holdfast.http.faults import to_body
from holdfast.streams import check_stream

app = Api("audit", title="Holdfast audit trail", version="1")

PAGE_EVENTS_MAX = 1_000
EXPECTED_SCHEMA = [{"type": "integer", "minimum": 0, "maximum": domain.VERSION_MAX}, {"const": "any"}, {"type": "null"}]


class AppendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events to append, and where the stream is expected to end."""

    events: list[dict[str, Any]]
    """CloudEvents 1.0: `specversion`, `source`, `type` and `id`; the id may be left out beside an Idempotency-Key."""
    expected_version: Annotated[Any, msgspec.Meta(extra_json_schema={"anyOf": EXPECTED_SCHEMA})] = msgspec.UNSET
    """The stream's last version, 0 or null if it must not exist, or "any"."""


class AppendAnswer(msgspec.Struct, frozen=True):
    version: int
    first_version: int
    commit_id: str
    recorded_at: str


class EventsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    after: Annotated[int, msgspec.Meta(ge=0, le=domain.VERSION_MAX)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_EVENTS_MAX)] = 100
    order: Literal["asc", "desc"] = "asc"


class EventsAnswer(msgspec.Struct, frozen=True):
    stream: str
    events: list[msgspec.Raw]
    last_version: int
    next_after: int | None


class StateQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at: str | None = None
    """Count events that happened until then (RFC 3339)."""
    version: Annotated[int, msgspec.Meta(ge=0, le=domain.VERSION_MAX)] | None = None
    """Count events up to this version."""
    known_at: str | None = None
    """Count events that had been recorded by then (RFC 3339)."""


class StateAnswer(msgspec.Struct, frozen=True):
    stream: str
    state: msgspec.Raw
    version: int
    events_applied: int
    events_erased: int
    unapplied: list[int]
    reducer: str
    last_version: int


STORE_ERRORS = {429: ["store_throttled"], 503: ["store_unavailable"]}
READ_ERRORS = {400: ["invalid_stream"], 404: ["stream_not_found"], **STORE_ERRORS}
STATE_ERRORS = {
    **READ_ERRORS,
    400: ["invalid_stream", "invalid_time"],
    404: ["stream_not_found", "version_not_found"],
    422: ["state_too_large"],
}
APPEND_ERRORS = {
    400: [
        "invalid_body",
        "unknown_field",
        "invalid_stream",
        "invalid_expected_version",
        "no_events",
        "invalid_event",
        "invalid_time",
        "duplicate_event_id",
    ],
    403: ["actor_not_allowed"],
    409: ["stale"],
    413: ["event_too_large", "commit_too_large", "too_many_events"],
    422: ["idempotency_mismatch"],
    429: ["store_throttled"],
    503: ["contended", "clock_skew", "boundary_expired", "store_unavailable", "outcome_unknown"],
}


@app.post(
    "/v1/streams/{stream}/events",
    scope="audit:append",
    status=201,
    content_types={"application/json": AppendBody, BATCH_TYPE: list[dict[str, Any]]},
    raises=APPEND_ERRORS,
)
def post_events(
    caller: Caller, stream: str, body: RawBody, headers: Headers, key: IdempotencyKey | None
) -> Answer[AppendAnswer]:
    """Append events to a stream, all or none, where it ends at the expected version."""
    name = stream_named(stream)
    writing = domain.understand_append(
        request_of(body, headers),
        stream=name,
        tenant=caller.tenant,
        subject=caller.subject,
        may_act_as="audit:act-as" in caller.scopes,
        idempotency_key=key,
    )
    appended = trail(caller).append(name, writing)
    answer = AppendAnswer(appended.version, appended.first_version, appended.commit_id, to_text(appended.recorded_at))
    return Answer(answer, headers={"Idempotency-Replayed": "true"} if appended.is_replay else {})


@app.get(
    "/v1/streams/{stream}/events",
    scope="audit:read",
    raises=READ_ERRORS,
)
def get_events(caller: Caller, stream: str, query: EventsQuery) -> EventsAnswer:
    """Read a stream's events, a page at a time, oldest or newest first."""
    name = stream_named(stream)
    found = trail(caller).events(name, after=query.after, limit=query.limit, newest_first=query.order == "desc")
    return EventsAnswer(
        stream=name,
        events=[msgspec.Raw(event) for event in found.page.events],
        last_version=found.last_version,
        next_after=found.page.next_after,
    )


@app.get(
    "/v1/streams/{stream}/state",
    scope="audit:read",
    raises=STATE_ERRORS,
)
def get_state(caller: Caller, stream: str, query: StateQuery) -> StateAnswer:
    """Answer a stream's state at a version, at a time, or as it was known at a time."""
    name = stream_named(stream)
    found = trail(caller).state(
        name,
        version=query.version,
        at=from_text(query.at) if query.at is not None else None,
        known_at=from_text(query.known_at) if query.known_at is not None else None,
    )
    return StateAnswer(
        stream=name,
        state=msgspec.Raw(encode_state(found.folded.state)),
        version=found.folded.version,
        events_applied=found.folded.events_applied,
        events_erased=0,
        unapplied=list(found.folded.unapplied),
        reducer=found.reducer,
        last_version=found.last_version,
    )


def trail(caller: Caller) -> AuditTrail:
    """Wire the service to the caller's own streams."""
    return AuditTrail(adapters.event_stores().of(caller.tenant, caller.subject))


def stream_named(segment: str) -> str:
    """Read a stream's name from a path segment, where `~` stands for `/` (no name holds a `~`)."""
    return check_stream(segment.replace("~", "/"))


def request_of(body: RawBody, headers: Headers) -> domain.AppendRequest:
    """Read either media type: an object with its expectation, or a bare batch that carries it in a header."""
    if body.content_type == BATCH_TYPE:
        return domain.AppendRequest(domain.expected_in(headers.get("holdfast-expected-version")), body.content, "")
    content = to_body(body.content, AppendBody)
    return domain.AppendRequest(content.expected_version, content.events, "/events")
