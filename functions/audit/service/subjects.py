"""Data subjects: held, released, erased; what is done about one is told in a stream of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec

from holdfast.clock import to_text
from holdfast.ids import derived
from holdfast.streams import ANY, EventStore
from holdfast.subjects.rules import Subject

SOURCE: Final = "urn:holdfast:audit"


class Keys(Protocol):
    """One tenant's subjects and their keys (`holdfast.subjects.SubjectKeys`)."""

    def hold(self, subject: str, reason: str, until: datetime | None = None, *, by: str) -> Subject: ...
    def release(self, subject: str, reason: str) -> Subject: ...
    def erase(self, subject: str) -> Subject: ...


@dataclass(frozen=True)
class Subjects:
    """
    What may be done about data subjects, by one caller.

    The change comes first and is then told, so an event never tells what did not happen. Whoever is cut off between
    the two repeats the call: the change stands, and the event is appended once.
    """

    keys: Keys
    store: EventStore[bytes]
    tenant: str

    def hold(self, subject: str, reason: str, until: datetime | None, *, by: str) -> Subject:
        """Keep a subject from being erased."""
        held = self.keys.hold(subject, reason, until, by=by)
        self._tell("held", held, {"reason": reason, "until": to_text(until) if until else None})
        return held

    def release(self, subject: str, reason: str) -> Subject:
        """End the hold that runs for *reason*."""
        released = self.keys.release(subject, reason)
        self._tell("released", released, {"reason": reason})
        return released

    def erase(self, subject: str, reason: str) -> Subject:
        """Destroy a subject's content, for good."""
        erased = self.keys.erase(subject)
        facts = {"final_at": to_text(erased.final_at) if erased.final_at else None}
        self._tell("erased", erased, {"reason": reason, **facts} if reason else facts)
        return erased

    def _tell(self, what: str, subject: Subject, data: Mapping[str, Any]) -> None:
        """Append what happened; the version of the subject's row names it, so telling twice tells once."""
        event_id = derived("subject", self.tenant, subject.name, str(subject.version), what)
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": SOURCE,
            "type": f"holdfast.audit.subject.{what}.v1",
            "subject": subject.name,
            "data": {"state": subject.state, **data},
        }
        stored = msgspec.json.encode(event, order="sorted")
        # What makes it the same request is the change that it tells of: a repeat may word its reason otherwise.
        self.store.append(f"subjects/{subject.name}", ANY, [stored], commit_id=event_id, fingerprint=event_id.encode())
