"""
What may be decided about a data subject: pure.

A hold is known by its reason, and one that has lapsed holds no longer by being late: nothing has to sweep it away.
Asking twice decides once.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from holdfast.errors import Conflict, Invalid, NotFound

BACKUPS_KEPT: Final = timedelta(days=35)
"""How far back DynamoDB's point-in-time recovery reaches."""
HOLDS_MAX: Final = 100
"""Holds that run on one subject."""
REASON_BYTES_MAX: Final = 512


class Hold(msgspec.Struct, frozen=True):
    """Why a subject may not be erased, who said so, and until when; for ever if no time is said."""

    reason: str
    by: str
    until: datetime | None = None

    def runs(self, now: datetime) -> bool:
        return self.until is None or now < self.until


class Subject(msgspec.Struct, frozen=True):
    """What is known of a data subject, without its key."""

    name: str
    version: int
    state: Literal["live", "erased"] = "live"
    holds: tuple[Hold, ...] = ()
    """By reason. Lapsed ones stay until the next change."""
    erased_at: datetime | None = None
    final_at: datetime | None = None
    """When no backup can bring the key back any more."""


def held(subject: Subject, hold: Hold, now: datetime) -> Subject:
    """
    Hold a subject; a hold that runs for the same reason until another time is replaced.

    Raises:
        Invalid: `invalid_until`.
        Conflict: `subject_erased`, `too_many_holds`.
    """
    if subject.state == "erased":
        raise subject_erased(subject.name)
    if not hold.runs(now):
        raise Invalid("invalid_until", "A hold runs until a time to come, or until it is released.")
    running = {each.reason: each for each in subject.holds if each.runs(now)}
    if hold.reason in running and running[hold.reason].until == hold.until:
        return subject
    running[hold.reason] = hold
    if len(running) > HOLDS_MAX:
        raise Conflict("too_many_holds", f"At most {HOLDS_MAX} holds run on a subject at a time; release one.")
    return msgspec.structs.replace(subject, holds=by_reason(running.values()))


def released(subject: Subject, reason: str) -> Subject:
    """End the hold for *reason*, if there is one."""
    return msgspec.structs.replace(subject, holds=tuple(hold for hold in subject.holds if hold.reason != reason))


def erased(subject: Subject, now: datetime) -> Subject:
    """
    Erase a subject; one that is erased already stays as it was then.

    Raises:
        Conflict: `held`.
    """
    if subject.state == "erased":
        return subject
    running = [hold for hold in subject.holds if hold.runs(now)]
    if running:
        raise Conflict(
            "held",
            f"{len(running)} holds keep {subject.name!r} from being erased.",
            reasons=[h.reason for h in running],
        )
    return Subject(subject.name, subject.version, "erased", (), now, now + BACKUPS_KEPT)


def subject_not_found(subject: str) -> NotFound:
    return NotFound("subject_not_found", f"No event was ever sealed for {subject!r}.")


def subject_erased(subject: str) -> Conflict:
    return Conflict("subject_erased", f"{subject!r} has been erased; nothing can be kept for this subject any more.")


def check_reason(reason: str) -> str:
    if not 0 < len(reason.encode()) <= REASON_BYTES_MAX:
        raise Invalid("invalid_reason", f"A reason is 1 to {REASON_BYTES_MAX} bytes of text.")
    return reason


def by_reason(holds: Iterable[Hold]) -> tuple[Hold, ...]:
    return tuple(sorted(holds, key=lambda hold: hold.reason))
