"""What is done about data subjects: what was asked, what is decided, and the event that tells of it. Pure."""

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from holdfast.clock import to_text
from holdfast.ids import derived
from holdfast.sealing import SUBJECTS
from holdfast.streams import category_of
from holdfast.streams.packing import fingerprint_of
from holdfast.subjects.rules import Hold, Subject, check_reason, erased, held, released

SOURCE: Final = "urn:holdfast:audit"
SUBJECT_ERASED: Final = "holdfast.audit.subject.erased.v1"
TYPES: Final = {
    "hold": "holdfast.audit.subject.held.v1",
    "release": "holdfast.audit.subject.released.v1",
    "erase": SUBJECT_ERASED,
}
"""What is told of each act."""


class Act(msgspec.Struct, frozen=True):
    """What somebody wants to be done about a subject."""

    tenant: str
    subject: str
    what: Literal["hold", "release", "erase"]
    reason: str
    by: str
    until: datetime | None = None
    """Of a hold."""
    key: str | None = None
    """The caller's idempotency key."""

    @property
    def stream(self) -> str:
        return f"{SUBJECTS}/{self.subject}"

    @property
    def asked(self) -> dict[str, Any]:
        """What makes it the same request."""
        until = {"until": to_text(self.until) if self.until else None} if self.what == "hold" else {}
        return {"reason": self.reason, **until}

    @property
    def fingerprint(self) -> bytes:
        return fingerprint_of([msgspec.json.encode({"what": self.what, **self.asked}, order="sorted")])

    def commit_id(self, before: Subject) -> str:
        """Name the commit: after the key, or without one after what is asked of the subject as it is now."""
        if self.key is not None:
            return self.commit_id_by_key(self.key)
        parts = (str(before.version), self.fingerprint.hex())
        return derived("subject", self.tenant, self.subject, *parts)

    def commit_id_by_key(self, key: str) -> str:
        return derived("subject by key", self.tenant, self.subject, key)


def decided(act: Act, found: Subject, now: datetime) -> Subject:
    """
    Decide about a subject; where there is nothing to be done, it stays as it was found.

    Raises:
        Invalid: `invalid_reason`, `invalid_until`.
        Conflict: `subject_erased`, `too_many_holds`, `held`.
    """
    reason = check_reason(act.reason)
    match act.what:
        case "hold":
            after = held(found, Hold(reason, act.by, act.until), now)
        case "release":
            after = released(found, reason)
        case "erase":
            after = erased(found, now)
    return found if after == found else msgspec.structs.replace(after, version=found.version + 1)


def subject_event(act: Act, after: Subject) -> bytes:
    """Write the event that tells of an act: what was asked, and what is so since then."""
    event = {
        "specversion": "1.0",
        "id": derived("subject", act.tenant, act.subject, str(after.version)),
        "source": SOURCE,
        "type": TYPES[act.what],
        "subject": act.subject,
        "data": {
            **act.asked,
            "version": after.version,
            "state": after.state,
            "holds": [{"reason": hold.reason, "by": hold.by, "until": _text(hold.until)} for hold in after.holds],
            "erased_at": _text(after.erased_at),
            "final_at": _text(after.final_at),
        },
    }
    return msgspec.json.encode(event, order="sorted")


def tells_of_erasure(stream: str, event: bytes) -> bool:
    """Tell whether an event says that a data subject was erased; in those streams only the service itself writes."""
    return category_of(stream) == SUBJECTS and _TYPED.decode(event).type == SUBJECT_ERASED


def subject_told(event: bytes) -> Subject:
    """Read out of such an event what was so since then."""
    told = _TOLD.decode(event)
    data = told.data
    return Subject(told.subject, data.version, data.state, data.holds, data.erased_at, data.final_at)


class _Typed(msgspec.Struct, frozen=True):
    type: str


class _Data(msgspec.Struct, frozen=True):
    version: int
    state: Literal["live", "erased"]
    holds: tuple[Hold, ...]
    erased_at: datetime | None
    final_at: datetime | None


class _Told(msgspec.Struct, frozen=True):
    subject: str
    data: _Data


_TYPED: Final = msgspec.json.Decoder(_Typed)
_TOLD: Final = msgspec.json.Decoder(_Told)


def _text(moment: datetime | None) -> str | None:
    return to_text(moment) if moment else None
