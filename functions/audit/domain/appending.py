"""What an append must say, and what its refusal tells: pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from functions.audit.domain.access import SETTINGS_STREAM
from functions.audit.domain.paging import page_of
from holdfast import cloudevents
from holdfast.cloudevents import Attributes
from holdfast.errors import Denied, Invalid
from holdfast.ids import derived
from holdfast.sealing import SUBJECTS
from holdfast.streams import ANY, EVENTS_MAX, Commit, Expected, category_of, check_stream

VERSION_MAX: Final = 2**53 - 1
"""The largest version that JSON carries exactly."""
WINNER_EVENTS_MAX: Final = 100
"""Events handed back by a refused append; more of them are read."""
OWN_CATEGORIES: Final = frozenset({category_of(SETTINGS_STREAM), SUBJECTS})
"""What is told there is told by the service itself: who read, and what was done about a data subject."""
APPENDS_MAX: Final = 20
"""Streams that one commit reaches."""


class AppendRequest(msgspec.Struct, frozen=True):
    """An append as it was asked for."""

    expected: Any
    events: Any
    pointer: str
    """Where the events stand in the body."""
    expected_pointer: str = "/expected_version"


class Author(msgspec.Struct, frozen=True):
    """Who appends, and under which key."""

    tenant: str
    subject: str
    may_act_as: bool
    """Whether events may name another actor than the subject."""
    idempotency_key: str | None


class CheckedEvent(msgspec.Struct, frozen=True):
    """An event that may be stored."""

    sent: Any
    """As it came, before anything was filled in: what makes two requests the same one."""
    attributes: Attributes
    stored: bytes
    """As it is stored, unless something of it is sealed."""
    pointer: str
    """Where it stands in the body."""


class CheckedAppend(msgspec.Struct, frozen=True):
    """Events that may be stored in a stream, if that ends where it is expected to."""

    stream: str
    expected: Expected
    events: tuple[CheckedEvent, ...]

    @property
    def identities(self) -> list[str]:
        return [part for event in self.events for part in cloudevents.identity(event.attributes)]


class Writing(msgspec.Struct, frozen=True):
    """What was understood of appends: what to store, and the id that makes a repeat of them recognisable."""

    appends: tuple[CheckedAppend, ...]
    commit_id: str


def understand_append(request: AppendRequest, *, stream: str, author: Author) -> Writing:
    """
    Turn a request into what may be stored, or say what is wrong with it.

    The commit's id is derived from the idempotency key, or without one from the events' own identities;
    so a repeat is recognised by what is stored, whenever it comes.

    Raises:
        Invalid: `invalid_expected_version no_events too_many_events invalid_event invalid_time
            duplicate_event_id event_too_large`.
        Denied: `actor_not_allowed`.
    """
    _check_category(stream, "")
    append = _checked(request, stream, author, scope=())
    _check_identities([append])
    if author.idempotency_key is not None:
        commit_id = derived("commit by key", author.tenant, stream, author.idempotency_key)
    else:
        commit_id = derived("commit by events", author.tenant, stream, *append.identities)
    return Writing((append,), commit_id)


def understand_commit(requests: Sequence[tuple[str, AppendRequest]], *, author: Author) -> Writing:
    """
    Turn a request for appends to several streams, each with its name, into what may be stored, all or none.

    Its id is derived as that of a single append, and is no single append's.

    Raises:
        Invalid: those of `understand_append`, and `no_appends too_many_appends duplicate_stream invalid_stream`.
        Denied: `actor_not_allowed`.
    """
    if not requests:
        raise Invalid("no_appends", "Append to at least one stream.", pointer="/appends")
    if len(requests) > APPENDS_MAX:
        raise Invalid(
            "too_many_appends", f"Append to at most {APPENDS_MAX} streams at once.", status=413, pointer="/appends"
        )
    appends: dict[str, CheckedAppend] = {}
    for index, (stream, request) in enumerate(requests):
        if check_stream(stream) in appends:
            raise Invalid(
                "duplicate_stream",
                "Name each stream once, and put all its events into one append.",
                pointer=f"/appends/{index}/stream",
            )
        _check_category(stream, f"/appends/{index}/stream")
        appends[stream] = _checked(request, stream, author, scope=(stream,))
    checked = tuple(appends.values())
    _check_identities(checked)
    if author.idempotency_key is not None:
        return Writing(checked, derived("commits by key", author.tenant, author.idempotency_key))
    identities = (part for each in checked for part in (each.stream, str(len(each.events)), *each.identities))
    return Writing(checked, derived("commits by events", author.tenant, *identities))


def expected_in(header: str | None) -> Any:
    """Read an expectation out of a header: digits, `null` or `any`; what is none of them stays as it is."""
    match header:
        case None:
            return msgspec.UNSET
        case "null":
            return None
        case _ if header.isascii() and header.isdecimal() and len(header) <= len(str(VERSION_MAX)):
            return int(header)
        case _:
            return header


def understand_expected(request: AppendRequest) -> Expected:
    """Read an expected version: a whole number, null for 0, or "any"."""
    expected = request.expected
    if expected is None:
        return 0
    if expected == ANY:
        return ANY
    if isinstance(expected, int) and not isinstance(expected, bool) and 0 <= expected <= VERSION_MAX:
        return expected
    raise Invalid(
        "invalid_expected_version",
        'Say expected_version: the stream\'s last version, 0 or null if it must not exist, or "any".',
        pointer=request.expected_pointer,
    )


def winner_facts(commits: Iterable[Commit[bytes]], expected: int) -> dict[str, Any]:
    """Say what lies beyond the version that a refused append expected: events of *commits*, or where to read them."""
    page = page_of(commits, after=expected, limit=WINNER_EVENTS_MAX, newest_first=False)
    if page.next_after is not None:
        return {"events_after": expected}
    return {"events": [msgspec.Raw(event) for event in page.events]}


def _checked(request: AppendRequest, stream: str, author: Author, scope: tuple[str, ...]) -> CheckedAppend:
    """Check an append event by event; *scope* tells apart those of one request that have no id of their own."""
    expected = understand_expected(request)
    events = []
    for index, sent in enumerate(_listed(request)):
        pointer = f"{request.pointer}/{index}"
        attributes = cloudevents.check(_with_id(sent, author, (*scope, str(index))), pointer)
        _check_actor(attributes, author, pointer)
        events.append(CheckedEvent(sent, attributes, cloudevents.encode(attributes, pointer), pointer))
    return CheckedAppend(stream, expected, tuple(events))


def _check_actor(event: Attributes, author: Author, pointer: str) -> None:
    if not author.may_act_as and event.get("actor", author.subject) != author.subject:
        raise Denied(
            "actor_not_allowed",
            "Naming another actor than the token's subject takes the scope audit:act-as.",
            pointer=f"{pointer}/actor",
        )


def _with_id(event: Any, author: Author, place: tuple[str, ...]) -> Any:
    """Name an event that has no id after the call that sends it, so that a repeat names it alike."""
    key = author.idempotency_key
    if key is None or not isinstance(event, dict) or event.get("id") is not None:
        return event
    return {**event, "id": derived("event", key, *place)}


def _check_category(stream: str, pointer: str) -> None:
    if category_of(stream) in OWN_CATEGORIES:
        own = " and ".join(sorted(OWN_CATEGORIES))
        raise Invalid(
            "invalid_stream",
            f"The streams of the categories {own} are written by the audit trail itself; choose another.",
            pointer=pointer or None,
        )


def _listed(request: AppendRequest) -> list[Any]:
    events = request.events
    if not isinstance(events, list) or not events:
        raise Invalid("no_events", "Send a list of at least one event.", pointer=request.pointer)
    if len(events) > EVENTS_MAX:
        raise Invalid(
            "too_many_events",
            f"Send at most {EVENTS_MAX} events at a time; the rest next.",
            status=413,
            pointer=request.pointer,
        )
    return events


def _check_identities(appends: Sequence[CheckedAppend]) -> None:
    seen: set[tuple[str, str]] = set()
    for event in (event for append in appends for event in append.events):
        identity = cloudevents.identity(event.attributes)
        if identity in seen:
            raise Invalid(
                "duplicate_event_id",
                "Two events of this request have the same source and id.",
                pointer=f"{event.pointer}/id",
            )
        seen.add(identity)
