"""What other services tell is written down too: which event, whose it is, and into which stream it goes. Pure."""

import re
from hashlib import sha256
from typing import Any, Final

import msgspec

from functions.audit.domain.appending import AppendRequest, Author, Writing, understand_append
from holdfast.cloudevents import Attributes
from holdfast.errors import Invalid
from holdfast.ids import derived
from holdfast.streams import ANY, check_stream, check_tenant
from holdfast.strict_json import parse

ACTOR: Final = "holdfast:intake"
"""Who appends what is taken in; who did it stands in the event itself."""

_SERVICE = re.compile(r"holdfast\.(?P<service>[a-z0-9-]{1,40})", re.ASCII)


class Taken(msgspec.Struct, frozen=True):
    """An event of another service."""

    tenant: str
    stream: str
    event: Attributes


def understand_message(body: bytes) -> Taken:
    """
    Read what EventBridge hands over: its envelope, with a CloudEvent as the detail.

    Raises:
        Invalid: `invalid_event`, `invalid_tenant`, or a code of `holdfast.strict_json`; it never becomes anything else.
    """
    envelope = parse(body)
    source = envelope.get("source") if isinstance(envelope, dict) else None
    match = _SERVICE.fullmatch(source) if isinstance(source, str) else None
    if not match:
        raise _invalid("This is no event of a Holdfast service.", "/source")
    event = envelope.get("detail")
    if not isinstance(event, dict) or not isinstance(event.get("tenant"), str):
        raise _invalid("The detail is a CloudEvent that names its tenant.", "/detail/tenant")
    tenant = check_tenant(event["tenant"])
    if not str(event.get("type")).startswith(f"{source}."):
        raise _invalid(f"The type of an event of this service begins with {source}.", "/detail/type")
    return Taken(tenant, stream_for(match["service"], event.get("subject")), event)


def stream_for(service: str, subject: Any) -> str:
    """
    Name the stream that an event about *subject* goes to: `<service>/<subject>`.

    A subject that no stream's name can hold stands there by its digest; the event says what it is.
    """
    if not isinstance(subject, str):
        return service
    try:
        return check_stream(f"{service}/{subject}")
    except Invalid:
        return f"{service}/sha256:{sha256(subject.encode(errors='replace')).hexdigest()}"


def understand_taken(taken: Taken) -> Writing:
    """
    Make of an event what may be stored. Its commit is named after its source and id: when it comes again, nothing is.

    No request at the door can have a commit of that name, so nobody who may append keeps an event out by being first.

    Raises:
        Invalid: `invalid_event`, `invalid_time`, `event_too_large`.
    """
    request = AppendRequest(ANY, [taken.event], "/detail")
    author = Author(taken.tenant, ACTOR, may_act_as=True, idempotency_key=None)
    writing = understand_append(request, stream=taken.stream, author=author)
    commit_id = derived("intake", taken.tenant, taken.event["source"], taken.event["id"])
    return msgspec.structs.replace(writing, commit_id=commit_id)


def _invalid(detail: str, pointer: str) -> Invalid:
    return Invalid("invalid_event", detail, pointer=pointer)
