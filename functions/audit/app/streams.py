"""Routes of streams: append, read, states."""

from typing import Annotated, Any, Literal

import msgspec

from functions.audit import domain
from functions.audit.app.door import OPENING_ERRORS, STORE_UNAVAILABLE, Limit, Version, app, moment, stream_named, trail
from functions.audit.app.recording import recorded, shows_winner
from holdfast.clock import to_text
from holdfast.cloudevents import BATCH_TYPE
from holdfast.folds import encode_state
from holdfast.http import IDEMPOTENCY_REPLAYED, Answer, Caller, Header, IdempotencyKey, RawBody
from holdfast.http.faults import to_body
from holdfast.streams import Appended

EXPECTED_SCHEMA = [{"type": "integer", "minimum": 0, "maximum": domain.VERSION_MAX}, {"const": "any"}, {"type": "null"}]
ExpectedHeader = Annotated[
    str | None,
    Header(
        "Holdfast-Expected-Version",
        "The `expected_version` of a batch: digits, `null` or `any`.",
        {"type": "string", "pattern": "^([0-9]{1,16}|null|any)$"},
    ),
]
ExpectedVersion = Annotated[Any, msgspec.Meta(extra_json_schema={"anyOf": EXPECTED_SCHEMA})]


class AppendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events to append, and where the stream is expected to end."""

    events: list[dict[str, Any]]
    """CloudEvents 1.0: `specversion`, `source`, `type` and `id`; the id may be left out beside an Idempotency-Key."""
    expected_version: ExpectedVersion = msgspec.UNSET
    """The stream's last version, 0 or null if it must not exist, or "any"."""


class AppendAnswer(msgspec.Struct, frozen=True):
    version: int
    first_version: int
    commit_id: str
    recorded_at: str


class AppendTo(AppendBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An append to one of several streams."""

    stream: str


class CommitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Appends to distinct streams, all or none."""

    appends: Annotated[list[AppendTo], msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": domain.APPENDS_MAX})]


class AppendedTo(msgspec.Struct, frozen=True):
    stream: str
    version: int
    first_version: int
    recorded_at: str


class CommitAnswer(msgspec.Struct, frozen=True):
    commit_id: str
    appends: list[AppendedTo]


class EventsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    after: Version = 0
    limit: Limit = 100
    order: Literal["asc", "desc"] = "asc"


class EventsAnswer(msgspec.Struct, frozen=True):
    stream: str
    events: list[msgspec.Raw]
    last_version: int
    next_after: int | None


class StateQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at: str | None = None
    """Count events that happened until then (RFC 3339)."""
    version: Version | None = None
    """Count events up to this version."""
    known_at: str | None = None
    """Count events that had been recorded by then (RFC 3339)."""


class DiffQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    from_version: Version
    """0 is before the first event."""
    to_version: Version | None = None
    """The stream's last version if not said."""


class DiffAnswer(msgspec.Struct, frozen=True, rename={"from_version": "from", "to_version": "to"}):
    patch: Any
    """A JSON merge patch (RFC 7396)."""
    from_version: int
    to_version: int


class StateAnswer(msgspec.Struct, frozen=True):
    stream: str
    state: msgspec.Raw
    version: int
    events_applied: int
    events_erased: int
    unapplied: list[int]
    reducer: str
    last_version: int


READ_ERRORS = {400: ["invalid_stream"], 404: ["stream_not_found"], **OPENING_ERRORS}
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
    409: ["stale", "subject_erased"],
    413: ["event_too_large", "commit_too_large", "too_many_events"],
    422: ["idempotency_mismatch"],
    429: ["store_throttled"],
    503: [
        "contended",
        "boundary_expired",
        *STORE_UNAVAILABLE,
        "keys_unavailable",
        "outcome_unknown",
        "not_recorded",
    ],
}
COMMIT_ERRORS = {
    **APPEND_ERRORS,
    400: [*APPEND_ERRORS[400], "no_appends", "duplicate_stream"],
    413: [*APPEND_ERRORS[413], "too_many_appends", "transaction_too_large"],
}
DIFF_ERRORS = {
    **STATE_ERRORS,
    400: ["invalid_stream", "invalid_range"],
    422: ["state_too_large", "no_merge_patch"],
}


@app.post(
    "/v1/streams/{stream}/events",
    scope="audit:append",
    status=201,
    content_types={"application/json": AppendBody, BATCH_TYPE: list[dict[str, Any]]},
    raises=APPEND_ERRORS,
    headers=[IDEMPOTENCY_REPLAYED],
)
def post_events(
    caller: Caller, stream: str, body: RawBody, expected: ExpectedHeader, key: IdempotencyKey | None
) -> Answer[AppendAnswer]:
    """Append events to a stream, all or none, where it ends at the expected version."""
    name = stream_named(stream)
    writing = domain.understand_append(request_of(body, expected), stream=name, author=author(caller, key))
    (appended,) = trail(caller).append(writing, shows=shows_winner(caller))
    answer = AppendAnswer(appended.version, appended.first_version, appended.commit_id, to_text(appended.recorded_at))
    return Answer(answer, headers=replay_header(appended))


@app.post("/v1/commits", scope="audit:append", status=201, raises=COMMIT_ERRORS, headers=[IDEMPOTENCY_REPLAYED])
def post_commits(caller: Caller, body: RawBody, key: IdempotencyKey | None) -> Answer[CommitAnswer]:
    """Append events to several streams, to all of them or to none."""
    writing = domain.understand_commit(requests_of(body), author=author(caller, key))
    appended = trail(caller).append(writing, shows=shows_winner(caller))
    places = [AppendedTo(each.stream, each.version, each.first_version, to_text(each.recorded_at)) for each in appended]
    return Answer(CommitAnswer(writing.commit_id, places), headers=replay_header(appended[0]))


@app.get(
    "/v1/streams/{stream}/events",
    scope="audit:read",
    raises=READ_ERRORS,
)
@recorded("events")
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
@recorded("state")
def get_state(caller: Caller, stream: str, query: StateQuery) -> StateAnswer:
    """Answer a stream's state at a version, at a time, or as it was known at a time."""
    name = stream_named(stream)
    found = trail(caller).state(
        name,
        version=query.version,
        at=moment(query.at, "at"),
        known_at=moment(query.known_at, "known_at"),
    )
    return StateAnswer(
        stream=name,
        state=msgspec.Raw(encode_state(found.folded.state)),
        version=found.folded.version,
        events_applied=found.folded.events_applied,
        events_erased=found.folded.events_erased,
        unapplied=list(found.folded.unapplied),
        reducer=found.reducer,
        last_version=found.last_version,
    )


@app.get("/v1/streams/{stream}/diff", scope="audit:read", raises=DIFF_ERRORS)
@recorded("diff")
def get_diff(caller: Caller, stream: str, query: DiffQuery) -> DiffAnswer:
    """Say what changed in a stream's state from one version to another."""
    changes = trail(caller).changes(stream_named(stream), query.from_version, query.to_version)
    return DiffAnswer(changes.patch, changes.from_version, changes.to_version)


def author(caller: Caller, key: IdempotencyKey | None) -> domain.Author:
    return domain.Author(
        tenant=caller.tenant,
        subject=caller.subject,
        may_act_as="audit:act-as" in caller.scopes,
        idempotency_key=key,
    )


def replay_header(appended: Appended) -> dict[str, str]:
    return {IDEMPOTENCY_REPLAYED.name: "true"} if appended.is_replay else {}


def requests_of(body: RawBody) -> list[tuple[str, domain.AppendRequest]]:
    content = to_body(body.content, CommitBody)
    return [
        (
            each.stream,
            domain.AppendRequest(
                each.expected_version, each.events, f"/appends/{index}/events", f"/appends/{index}/expected_version"
            ),
        )
        for index, each in enumerate(content.appends)
    ]


def request_of(body: RawBody, expected: str | None) -> domain.AppendRequest:
    """Read either media type: an object with its expectation, or a bare batch that carries it in a header."""
    if body.content_type == BATCH_TYPE:
        return domain.AppendRequest(domain.expected_in(expected), body.content, "")
    content = to_body(body.content, AppendBody)
    return domain.AppendRequest(content.expected_version, content.events, "/events")
