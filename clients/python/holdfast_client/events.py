"""CloudEvents 1.0, as they are sent and as they come back. Attribute names are those of the wire."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import UNSET, UnsetType

from holdfast_client.errors import Invalid

SOURCE_DEFAULT = "urn:holdfast:client"

STREAM_CHARACTERS_MAX = 200
SUBJECT_CHARACTERS_MAX = STREAM_CHARACTERS_MAX - len("subjects/")
"""What is done about a data subject is told in the stream `subjects/<name>`."""
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._:@+-]+"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*\Z")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """
    An event to append: `Event(type="order.placed", data={"total": 12})`.

    Its `id` is made once, with the event: the same `Event` appended again is the same event. A `time`
    needs a zone. What neither the standard nor the audit trail names goes into `extensions`.
    """

    type: str
    data: Any = UNSET
    subject: str | None = None
    time: datetime | str | None = None
    """When it happened, as the caller says; without it, when it was recorded."""
    source: str = SOURCE_DEFAULT
    id: str = msgspec.field(default_factory=lambda: str(uuid4()))
    actor: str | None = None
    """Who did it; without it the token's subject. Another than that needs the scope `audit:act-as`."""
    reason: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: Mapping[str, str | int | bool] = {}

    def to_cloudevent(self) -> dict[str, Any]:
        """Write it as a structured CloudEvent; attributes without a value are left out."""
        attributes: dict[str, Any] = {"specversion": "1.0"}
        for name in _SENT_ATTRIBUTES:
            value = getattr(self, name)
            if value is not None:
                attributes[name] = value
        if self.data is not UNSET:
            attributes["data"] = self.data
        if self.time is not None:
            attributes["time"] = time_text(self.time)
        return attributes | dict(self.extensions)


_SENT_ATTRIBUTES = tuple(name for name in Event.__struct_fields__ if name not in {"data", "extensions"})


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as the stream holds it: the CloudEvent, and what the service added when it recorded it."""

    id: str
    source: str
    type: str
    time: datetime
    streamversion: int
    recordedat: datetime
    commitid: str
    specversion: str = "1.0"
    actor: str | None = None
    onbehalfof: str | None = None
    subject: str | None = None
    reason: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    commithash: str | None = None
    data: Any | UnsetType = UNSET
    data_base64: str | UnsetType = UNSET
    cloudevent: Mapping[str, Any]
    """The whole event exactly as it came, extensions included."""

    @classmethod
    def of(cls, cloudevent: Mapping[str, Any]) -> "RecordedEvent":
        return msgspec.convert({**cloudevent, "cloudevent": cloudevent}, cls)


def cloudevent_of(event: Event | Mapping[str, Any]) -> dict[str, Any]:
    """Take an `Event`, or a CloudEvent that the caller has written as a dict, as it is."""
    return event.to_cloudevent() if isinstance(event, Event) else dict(event)


def time_text(moment: datetime | str) -> str:
    """
    Write a time as RFC 3339; a text is passed on as it is, for the service to judge.

    Raises:
        Invalid: a datetime without a zone could mean any of thirty-eight hours.
    """
    if isinstance(moment, str):
        return moment
    if moment.utcoffset() is None:
        raise Invalid(
            "invalid_time",
            f"{moment!r} has no time zone: use datetime.now(UTC), or .replace(tzinfo=…) with the zone that is meant.",
        )
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def stream_path(stream: str) -> str:
    """
    Write a stream's name as one segment of a path: `orders/42` is `orders~42`.

    Raises:
        Invalid: `invalid_stream`.
    """
    return _name_path("stream", stream, STREAM_CHARACTERS_MAX)


def subject_path(subject: str) -> str:
    """
    Write a data subject's name as one segment of a path.

    Raises:
        Invalid: `invalid_subject`.
    """
    return _name_path("subject", subject, SUBJECT_CHARACTERS_MAX)


def rebuild_path(rebuild_id: str) -> str:
    """
    Write a rebuild's id as one segment of a path.

    Raises:
        Invalid: `invalid_rebuild`.
    """
    return _name_path("rebuild", rebuild_id, STREAM_CHARACTERS_MAX)


def _name_path(what: str, name: str, characters_max: int) -> str:
    """
    Write a name as one segment of a path, every `/` as `~`.

    It is checked here and not only by the service: one with `~` or `..` would otherwise reach another thing, or another
    route, than the one it names.
    """
    if len(name) > characters_max or not _NAME.match(name):
        raise Invalid(
            f"invalid_{what}",
            f"{name[:characters_max]!r} names no {what}: 1 to {characters_max} characters, segments of letters, digits "
            "and ._:@+- joined by '/', and no segment '.' or '..'.",
        )
    return name.replace("/", "~").replace("@", "%40").replace("+", "%2B").replace(":", "%3A")


def json_bytes(value: Any) -> bytes:
    """
    Write JSON that says exactly what *value* holds.

    Raises:
        Invalid: JSON cannot say it (NaN, an infinity, a lone surrogate, a date, a circle, too deep a nest).
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid("not_i_json", f"JSON cannot say what this holds: {error}") from error
