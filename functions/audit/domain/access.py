"""Reads of history are history too, where a tenant wants that: who read what, when and how. Pure."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from holdfast.clock import to_text
from holdfast.cloudevents import Attributes, encode
from holdfast.errors import Invalid
from holdfast.ids import derived
from holdfast.streams import check_stream

RECORD_READS: Final = "record_reads"
"""The switch that turns it on."""
SETTINGS_STREAM: Final = "access/settings"
"""Where it is told that somebody turned it on or off."""

SOURCE: Final = "urn:holdfast:audit"

_SEGMENT = re.compile(r"[A-Za-z0-9_:@+-][A-Za-z0-9._:@+-]{0,127}", re.ASCII)


class Read(msgspec.Struct, frozen=True):
    """Somebody asks for history."""

    tenant: str
    reader: str
    token_id: str
    request_id: str
    what: str
    """
    What is read: `events state diff winner search streams activity log inclusion export`; or what is sent on from now
    on, `tail` or `subscription`.
    """
    query: Mapping[str, Any]
    """As it was asked, defaults included."""

    @property
    def commit_id(self) -> str:
        return derived("read", self.tenant, self.request_id)


def stream_of(read: Read, now: datetime) -> str:
    """Name the stream of a read: one of its own, so that no two ever meet."""
    request_id = read.request_id if _SEGMENT.fullmatch(read.request_id) else derived("request", read.request_id)
    return f"access/{to_text(now)[:10]}/{request_id}"


def event_of(read: Read, now: datetime) -> bytes:
    """
    Write what was asked, before it is answered.

    Raises:
        Invalid: `event_too_large`; it asks with more than an event holds.
    """
    event: Attributes = {
        "specversion": "1.0",
        "id": read.commit_id,
        "source": SOURCE,
        "type": "holdfast.audit.read.v1",
        "time": to_text(now),
        "data": {"what": read.what, "query": read.query, "token_id": read.token_id},
    }
    stream = read.query.get("stream")
    if isinstance(stream, str) and _is_stream(stream):
        event["subject"] = stream
    return encode(event, "")


def switched_event(tenant: str, version: int, *, is_on: bool, by: str) -> bytes:
    """Tell that the recording of reads was turned on or off; *version* is that of the tenant's switches."""
    event = {
        "specversion": "1.0",
        "id": derived("switch", tenant, str(version), by),
        "source": SOURCE,
        "type": "holdfast.audit.settings.changed.v1",
        "data": {RECORD_READS: is_on},
    }
    return msgspec.json.encode(event, order="sorted")


def _is_stream(name: str) -> bool:
    try:
        check_stream(name)
    except Invalid:
        return False
    return True
