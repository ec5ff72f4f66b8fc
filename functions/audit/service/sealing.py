"""Sealing what was understood: the last step before it is stored, and the first that may leave something behind."""

from typing import Protocol

from functions.audit import domain
from holdfast import cloudevents
from holdfast.cloudevents import Attributes
from holdfast.streams import Append, Commit
from holdfast.streams.packing import fingerprint_of


class Sealing(Protocol):
    """Seals and opens the events of one tenant (`holdfast.sealing.Sealer`)."""

    def sealed(self, stream: str, event: Attributes) -> Attributes: ...
    def fingerprint_part(self, event: Attributes) -> bytes: ...
    def shown(self, commit: Commit[bytes]) -> Commit[bytes]: ...


def sealed(append: domain.CheckedAppend, sealing: Sealing) -> Append[bytes]:
    """
    Make of what was understood what is stored; the key of a data subject is made on first use.

    What recognises a repeat is taken of the request as it came, and what is sealed enters it under its subject's key.

    Raises:
        Invalid: `event_too_large`; sealed content takes a third more.
        Conflict: `subject_erased`.
        Unavailable, Throttled, Uncertain: the key could not be had.
    """
    return Append(
        append.stream,
        append.expected,
        events=tuple(_stored(append.stream, event, sealing) for event in append.events),
        fingerprint=fingerprint_of(sealing.fingerprint_part(event.sent) for event in append.events),
    )


def _stored(stream: str, event: domain.CheckedEvent, sealing: Sealing) -> bytes:
    attributes = sealing.sealed(stream, event.attributes)
    return event.stored if attributes is event.attributes else cloudevents.encode(attributes, event.pointer)
