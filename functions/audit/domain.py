"""What an append must say, and what may be answered: pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from holdfast import cloudevents
from holdfast.cloudevents import Attributes
from holdfast.errors import Denied, Invalid, NotFound
from holdfast.folds import Reducers
from holdfast.ids import derived
from holdfast.streams import ANY, EVENTS_MAX, Commit, Expected
from holdfast.streams.packing import fingerprint_of

VERSION_MAX: Final = 2**53 - 1
"""The largest version that JSON carries exactly."""
PAGE_BYTES_MAX: Final = 4_000_000
"""A page of events, or a winner's, as they travel; a Lambda's answer holds 6 MB."""
WINNER_EVENTS_MAX: Final = 100
"""Events handed back by a refused append; more of them are read."""

reducers: Final = Reducers()
"""How streams become state, by category. Register yours here: `@reducers.register("orders", version=1)`."""


class AppendRequest(msgspec.Struct, frozen=True):
    """An append as it was asked for."""

    expected: Any
    events: Any
    pointer: str
    """Where the events stand in the body."""


class Writing(msgspec.Struct, frozen=True):
    """An append as it was understood: what to store, and what makes a repeat of it recognisable."""

    expected: Expected
    events: tuple[bytes, ...]
    commit_id: str
    fingerprint: bytes


def understand_append(
    request: AppendRequest,
    *,
    stream: str,
    tenant: str,
    subject: str,
    may_act_as: bool,
    idempotency_key: str | None,
) -> Writing:
    """
    Turn a request into what is stored, or say what is wrong with it.

    The commit's id is derived from the idempotency key, or without one from the events' own identities;
    so a repeat is recognised by what is stored, whenever it comes. The fingerprint is taken of the request as
    it came, before anything is filled in.

    Raises:
        Invalid: `invalid_expected_version no_events too_many_events invalid_event invalid_time
            duplicate_event_id event_too_large`.
        Denied: `actor_not_allowed`.
    """
    expected = understand_expected(request.expected)
    events, pointers = _listed(request)
    understood = [
        cloudevents.check(_with_id(event, index, idempotency_key), pointer)
        for index, (event, pointer) in enumerate(zip(events, pointers, strict=True))
    ]
    _check_identities(understood, pointers)
    if not may_act_as:
        _check_actors(understood, pointers, subject)
    return Writing(
        expected=expected,
        events=tuple(map(cloudevents.encode, understood, pointers)),
        commit_id=_commit_id(tenant, stream, understood, idempotency_key),
        fingerprint=fingerprint_of(msgspec.json.encode(event, order="sorted") for event in events),
    )


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


def understand_expected(expected: Any) -> Expected:
    """Read an expected version: a whole number, null for 0, or "any"."""
    if expected is None:
        return 0
    if expected == ANY:
        return ANY
    if isinstance(expected, int) and not isinstance(expected, bool) and 0 <= expected <= VERSION_MAX:
        return expected
    raise Invalid(
        "invalid_expected_version",
        'Say expected_version: the stream\'s last version, 0 or null if it must not exist, or "any".',
        pointer="/expected_version",
    )


def winner_facts(winner: Commit[bytes] | None) -> dict[str, Any]:
    """Say what took the place that a refused append expected: the events, or where to read them."""
    if winner is None:
        return {}
    elsewhere = {"events_after": winner.first_version - 1}
    if len(winner.events) > WINNER_EVENTS_MAX:
        return elsewhere
    events = [msgspec.json.encode(event) for event in cloudevents.rendered(winner)]
    if sum(map(travelling_bytes, events)) > PAGE_BYTES_MAX:
        return elsewhere
    return {"events": [msgspec.Raw(event) for event in events]}


def stream_not_found(stream: str) -> NotFound:
    return NotFound("stream_not_found", f"There is no stream {stream!r}.")


def check_version(version: int | None, last_version: int) -> None:
    if version is not None and version > last_version:
        raise NotFound("version_not_found", f"The stream ends at version {last_version}.", last_version=last_version)


class Page(msgspec.Struct, frozen=True):
    """A page of events, each as the JSON it leaves in."""

    events: tuple[bytes, ...]
    next_after: int | None


def page_of(commits: Iterable[Commit[bytes]], *, after: int, limit: int, newest_first: bool) -> Page:
    """
    Take events beyond *after* in their order, until *limit* of them or a page's bytes are taken.

    *next_after* is where the next page begins, or None where nothing follows. *commits* come in the order
    asked for, and only as many are drawn as the page needs.
    """
    taken: list[bytes] = []
    taken_bytes = 0
    last_taken = after
    for commit in commits:
        events = cloudevents.rendered(commit)
        for event in reversed(events) if newest_first else events:
            version = event["streamversion"]
            if after and (version >= after if newest_first else version <= after):
                continue
            encoded = msgspec.json.encode(event)
            travelling = travelling_bytes(encoded)
            if taken and (len(taken) == limit or taken_bytes + travelling > PAGE_BYTES_MAX):
                return Page(tuple(taken), last_taken)
            taken.append(encoded)
            taken_bytes += travelling
            last_taken = version
    return Page(tuple(taken), None)


def travelling_bytes(encoded: bytes) -> int:
    """Bound what JSON takes as a string inside Lambda's JSON answer: escapes double, other than ASCII may treble."""
    if encoded.isascii():
        return len(encoded) + encoded.count(b'"') + encoded.count(b"\\")
    return 3 * len(encoded)


def _with_id(event: Any, index: int, idempotency_key: str | None) -> Any:
    """Name an event that has no id after the call that sends it, so that a repeat names it alike."""
    if idempotency_key is None or not isinstance(event, dict) or event.get("id") is not None:
        return event
    return {**event, "id": derived("event", idempotency_key, str(index))}


def _listed(request: AppendRequest) -> tuple[list[Any], list[str]]:
    """Take the events, with where each stands."""
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
    return events, [f"{request.pointer}/{index}" for index in range(len(events))]


def _check_identities(events: Sequence[Attributes], pointers: Sequence[str]) -> None:
    seen: set[tuple[str, str]] = set()
    for event, pointer in zip(events, pointers, strict=True):
        if cloudevents.identity(event) in seen:
            raise Invalid(
                "duplicate_event_id", "Two events of this request have the same source and id.", pointer=f"{pointer}/id"
            )
        seen.add(cloudevents.identity(event))


def _check_actors(events: Sequence[Attributes], pointers: Sequence[str], subject: str) -> None:
    for event, pointer in zip(events, pointers, strict=True):
        if event.get("actor", subject) != subject:
            raise Denied(
                "actor_not_allowed",
                "Naming another actor than the token's subject takes the scope audit:act-as.",
                pointer=f"{pointer}/actor",
            )


def _commit_id(tenant: str, stream: str, events: Sequence[Attributes], idempotency_key: str | None) -> str:
    if idempotency_key is not None:
        return derived("commit by key", tenant, stream, idempotency_key)
    identities = (part for event in events for part in cloudevents.identity(event))
    return derived("commit by events", tenant, stream, *identities)
