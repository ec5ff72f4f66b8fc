"""
Sealing: the content of an event that names a data subject is stored under a key that can be destroyed.

An event with the extension `shredkey: <subject>` is stored with its `data` or `data_base64` sealed under that subject's
key: the box stands in `data_base64`, and the extension `sealed: "1"` says so. Everything else stays as it is and is
proved as it is, so no other attribute may hold what has to be erasable, the subject's name included. The box is bound
to its tenant, subject, stream, and the event's source and id. Once the key is gone, the event is read without
data and with `erased: true`; its bytes, its hash and every proof stay as they were.

The random nonce is made with the box. A call that is repeated makes another box, which is never stored: its commit is
recognised by the fingerprint of the request, into which content enters as a digest under the subject's key.
"""

import base64
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from holdfast.envelope import Context, DataKey, keyed_digest, seal, unseal
from holdfast.errors import Invalid
from holdfast.streams.values import STREAM_NAME_MAX, Commit, check_stream

Attributes = dict[str, Any]

SHREDKEY: Final = "shredkey"
SEALED: Final = "sealed"
ERASED: Final = "erased"
FORM: Final = "1"
"""What `sealed` says: the content, as a JSON object of its one member, in a box of `holdfast.envelope`."""

SUBJECTS: Final = "subjects"
"""The category of the streams that tell what was done about a data subject."""
SUBJECT_NAME_MAX: Final = STREAM_NAME_MAX - len(f"{SUBJECTS}/")

_CONTENT: Final = ("data", "data_base64")


class Erased(msgspec.Struct, frozen=True):
    """There was a key, and it was destroyed."""


class Keys(Protocol):
    """The keys of one tenant's data subjects."""

    def key_for(self, subject: str) -> DataKey:
        """
        Answer the key to seal with, made on first use.

        Raises:
            Conflict: `subject_erased`.
            Unavailable, Throttled, Uncertain: the key could not be had; nothing may be stored without it.
        """

    def peek(self, subject: str) -> DataKey | Erased | None:
        """
        Answer the key to read with; None if there never was one.

        Raises:
            Unavailable, Throttled: the key could not be had.
        """


class KeyLost(Exception):
    """A sealed event names a subject that never had a key: the table of keys is not the one it was sealed with."""


class _SealedEvent(msgspec.Struct):
    """What opening needs of a stored event."""

    source: str
    id: str
    shredkey: str
    data_base64: bytes


_MARK: Final = f'"{SEALED}":"{FORM}"'.encode()
"""In the bytes of every sealed event; what else holds it (in its data) is looked at, and left as it is."""
_SEALED_EVENT: Final = msgspec.json.Decoder(_SealedEvent)


@dataclass(frozen=True)
class Sealer:
    """Seal and open the events of one tenant."""

    keys: Keys
    tenant: str

    def sealed(self, stream: str, event: Attributes) -> Attributes:
        """
        Make of a checked event what is stored of it: itself, unless it names a data subject.

        An event of an erased subject is refused even if it has no content: it would be about somebody who is gone.

        Raises:
            Conflict: `subject_erased`; see also `Keys.key_for`.
        """
        if SHREDKEY not in event:
            return event
        key = self.keys.key_for(event[SHREDKEY])
        content = _content_of(event)
        if not content:
            return event
        box = seal(_encode(content), key, self._context(stream, event["source"], event["id"], event[SHREDKEY]))
        return {**_without_content(event), "data_base64": base64.b64encode(box).decode(), SEALED: FORM}

    def fingerprint_part(self, event: Attributes) -> bytes:
        """
        Write what recognises a request's event when it comes again.

        *event* is as it came, and has been checked. Content that is sealed enters as a digest under the subject's key.

        Raises:
            Conflict: `subject_erased`; see also `Keys.key_for`. Nothing can tell any more whether it is a repeat.
        """
        if event.get(SHREDKEY) is None:
            return _encode(event)
        digest = keyed_digest(_encode(_content_of(event)), self.keys.key_for(event[SHREDKEY]))
        return _encode({**_without_content(event), SEALED: digest.hex()})

    def unsealed(self, stream: str, event: Attributes) -> Attributes:
        """
        Make of a stored event what is read of it: with its data, or without and `erased` if the key is gone.

        Raises:
            Forged: it is not what was sealed there.
            Unavailable, Throttled: the key could not be had.
        """
        if event.get(SEALED) != FORM:
            return event
        box = base64.b64decode(event["data_base64"])
        content = self._open(stream, _SealedEvent(event["source"], event["id"], event[SHREDKEY], box))
        shown = {name: value for name, value in _without_content(event).items() if name != SEALED}
        if content is None:
            return {**shown, ERASED: True}
        return {**shown, **msgspec.json.decode(content)}

    def shown(self, commit: Commit[bytes]) -> Commit[bytes]:
        """
        Make of a stored commit what is read of it: its sealed events opened, or without content.

        It keeps its hash, which is of the events as they are stored.

        Raises:
            Forged, Unavailable, Throttled: as `unsealed`.
        """
        if not any(_MARK in stored for stored in commit.events):
            return commit
        events = tuple(
            _encode(self.unsealed(commit.stream, msgspec.json.decode(stored))) if _MARK in stored else stored
            for stored in commit.events
        )
        return msgspec.structs.replace(commit, events=events)

    def opened(self, commit: Commit[bytes], stored: bytes) -> bytes | None:
        """
        Open the content of a sealed event of *commit* for a fold: JSON with its `data`, or None if the key is gone.

        Raises:
            Forged: it is not what was sealed there.
            Unavailable, Throttled: the key could not be had.
        """
        return self._open(commit.stream, _SEALED_EVENT.decode(stored))

    def _open(self, stream: str, event: _SealedEvent) -> bytes | None:
        key = self.keys.peek(event.shredkey)
        if key is None:
            raise KeyLost(f"{self.tenant}: an event of {stream!r} is sealed for a subject that has no key")
        if isinstance(key, Erased):
            return None
        return unseal(event.data_base64, key, self._context(stream, event.source, event.id, event.shredkey))

    def _context(self, stream: str, source: str, event_id: str, subject: str) -> Context:
        return {"tenant": self.tenant, "subject": subject, "stream": stream, "source": source, "id": event_id}


def check_subject(name: str) -> str:
    """
    Refuse a name that is no data subject's: what was done about it is told in the stream `subjects/<name>`.

    Raises:
        Invalid: `invalid_subject`.
    """
    try:
        check_stream(f"{SUBJECTS}/{name}")
    except Invalid as error:
        raise Invalid(
            "invalid_subject",
            f"A data subject is named by 1 to {SUBJECT_NAME_MAX} characters: segments of letters, digits and ._:@+- "
            "joined by a slash; no segment is . or ..",
        ) from error
    return name


def _content_of(event: Attributes) -> Attributes:
    return {name: event[name] for name in _CONTENT if name in event}


def _without_content(event: Attributes) -> Attributes:
    return {name: value for name, value in event.items() if name not in _CONTENT}


def _encode(value: Attributes) -> bytes:
    return msgspec.json.encode(value, order="sorted")
