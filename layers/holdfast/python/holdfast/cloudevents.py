"""
CloudEvents 1.0 in their JSON format: what an event must say before it is stored, and the bytes it is stored as.

Facts of the commit that holds an event (its version, when it was recorded, who wrote it) are not repeated in
the event's own bytes. They are added when it is read, from where they are proved.
"""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from holdfast.clock import from_text, to_text
from holdfast.errors import Invalid
from holdfast.sealing import ERASED, SEALED, SHREDKEY, check_subject
from holdfast.streams.values import Commit
from holdfast.strict_json import FORBIDDEN_CHARACTER

EVENT_BYTES_MAX: Final = 256 * 1024
TEXT_BYTES_MAX: Final = 512
"""`id`, `source`, `type`, `subject` and `actor` become parts of keys."""

INTEGER_MIN, INTEGER_MAX = -(2**31), 2**31 - 1
"""Integers of attributes are signed and have 32 bits (CloudEvents 1.0, type system); those in data are JSON's."""

BATCH_TYPE: Final = "application/cloudevents-batch+json"

_NAME = re.compile(r"[a-z0-9]{1,20}")
_FORBIDDEN_CHARACTER = re.compile(f"[\x00-\x1f\x7f-\x9f]|{FORBIDDEN_CHARACTER.pattern}")
"""CloudEvents 1.0, type system: text has no control characters, no lone surrogates and no noncharacters."""
_REQUIRED = ("specversion", "id", "source", "type")
_KEY_PARTS = ("id", "source", "type", "subject", "actor")
_OURS = frozenset({"streamversion", "recordedat", "commitid", "commithash", "onbehalfof", SEALED, ERASED})
"""Added to events that are stored or read; refused in one that is written."""

Attributes = dict[str, Any]


def check(event: Any, pointer: str) -> Attributes:
    """
    Make an event out of what a client sent, or say what is wrong with it and where.

    The result holds exactly what will be stored: unset (null) attributes are left out, and `time` is in UTC.

    Raises:
        Invalid: `invalid_event`, `invalid_time`.
    """
    if not isinstance(event, dict):
        raise _invalid("An event is a JSON object.", pointer)
    # "Unset" may be written as null (JSON event format, section 2.2); in data, null is a value.
    present = {name: value for name, value in event.items() if value is not None or name == "data"}
    for name in _REQUIRED:
        if name not in present:
            raise _invalid(f"An event has a {name}.", f"{pointer}/{name}")
    for name, value in present.items():
        _check_attribute(name, value, f"{pointer}/{_escape(name)}")
    if present["specversion"] != "1.0":
        raise _invalid('The specversion is "1.0".', f"{pointer}/specversion")
    if "data" in present and "data_base64" in present:
        raise _invalid("An event has data or data_base64, not both.", f"{pointer}/data_base64")
    if "time" in present:
        present["time"] = _normal_time(present["time"], f"{pointer}/time")
    return present


def encode(event: Attributes, pointer: str) -> bytes:
    """
    Write an event as the bytes that are stored, hashed and proved: JSON with sorted keys.

    Raises:
        Invalid: `event_too_large`.
    """
    stored = msgspec.json.encode(event, order="sorted")
    if len(stored) > EVENT_BYTES_MAX:
        raise Invalid(
            "event_too_large",
            f"This event takes {len(stored)} bytes and may take {EVENT_BYTES_MAX}. Store large content elsewhere "
            "and let the event name it.",
            status=413,
            pointer=pointer,
        )
    return stored


def rendered(commit: Commit[bytes]) -> list[Attributes]:
    """Read a commit's events as CloudEvents that say where they stand, when they were recorded and by whom."""
    recorded_at = to_text(commit.recorded_at)
    commit_hash = commit.hash.hex()
    events = []
    for version, stored in enumerate(commit.events, start=commit.first_version):
        event: Attributes = msgspec.json.decode(stored)
        if event.setdefault("actor", commit.actor) != commit.actor:
            event["onbehalfof"] = commit.actor
        event.setdefault("time", recorded_at)
        event["streamversion"] = version
        event["recordedat"] = recorded_at
        event["commitid"] = commit.commit_id
        event["commithash"] = commit_hash
        events.append(event)
    return events


def identity(event: Attributes) -> tuple[str, str]:
    """Name an event: its source and id together, as CloudEvents promises them unique."""
    return event["source"], event["id"]


def _check_attribute(name: str, value: Any, pointer: str) -> None:
    if name in _OF_THEIR_OWN:
        _OF_THEIR_OWN[name](value, pointer)
        return
    if not _NAME.fullmatch(name):
        raise _invalid("Attribute names are 1 to 20 characters of a-z and 0-9.", pointer)
    if name in _OURS:
        raise _invalid(f"{name} is added to events here; leave it out.", pointer)
    if isinstance(value, str):
        if _FORBIDDEN_CHARACTER.search(value):
            raise _invalid(f"{name} holds a control character, a lone surrogate or a noncharacter.", pointer)
        if name in _KEY_PARTS and not 0 < len(value.encode()) <= TEXT_BYTES_MAX:
            raise _invalid(f"{name} is 1 to {TEXT_BYTES_MAX} bytes of text.", pointer)
        return
    is_extension = name not in {*_REQUIRED, *_KEY_PARTS, "time", "datacontenttype", "dataschema"}
    if not (is_extension and isinstance(value, bool | int)):
        raise _invalid(f"{name} is text{', a whole number, or true or false' if is_extension else ''}.", pointer)
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        raise _invalid(f"{name} is from {INTEGER_MIN} to {INTEGER_MAX}; write a larger number as text.", pointer)


def _check_data(_value: Any, _pointer: str) -> None:
    """Any JSON is data; `holdfast.strict_json` has bounded it."""


def _check_base64(value: Any, pointer: str) -> None:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise _invalid("data_base64 is base64 text (RFC 4648, section 4).", pointer) from error


def _check_shredkey(value: Any, pointer: str) -> None:
    if not isinstance(value, str):
        raise _invalid(f"{SHREDKEY} names a data subject: it is text.", pointer)
    try:
        check_subject(value)
    except Invalid as error:
        raise _invalid(error.detail, pointer) from error


_OF_THEIR_OWN: Final[dict[str, Callable[[Any, str], None]]] = {
    "data": _check_data,
    "data_base64": _check_base64,
    SHREDKEY: _check_shredkey,
}
"""Attributes that follow other rules than the rest."""


def _normal_time(value: str, pointer: str) -> str:
    try:
        return to_text(from_text(value))
    except Invalid as error:
        raise Invalid(error.code, error.detail, pointer=pointer) from error


def _escape(name: str) -> str:
    """Write a member name as a reference token of a JSON pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


def _invalid(detail: str, pointer: str) -> Invalid:
    return Invalid("invalid_event", detail, pointer=pointer)
