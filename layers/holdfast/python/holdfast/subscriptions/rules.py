"""What a subscription is, which targets it may have, and what becomes of an event that its target refuses. Pure."""

import re
from collections.abc import Container, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from holdfast.cloudevents import TEXT_BYTES_MAX
from holdfast.errors import Denied, Invalid
from holdfast.outbox.values import target_of

ATTEMPTS_MAX: Final = 5
"""How often an event is offered to its target before its stream is parked."""
FIRST_WAIT: Final = timedelta(seconds=5)
"""Before an event that was refused once is offered again; three times as long after each further refusal."""
TYPES_MAX: Final = 50
"""Event types that one subscription names."""
EVENTS_MAX: Final = 90
"""Events between two checkpoints: each may be refused, and then its stream's stand is written with the checkpoint."""
EVENTS_FIRST: Final = 10
"""Events before the first checkpoint of a call; then twice as many each time. Even a slow target is checkpointed so."""
PASSED_MAX: Final = 1_000
"""Events and stretches that nobody wants, passed between two checkpoints."""
STANDING_MAX: Final = 500
"""Streams of one partition that may stand still before the subscription does."""
REASON_CHARACTERS_MAX: Final = 500
"""Kept of what a target said."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9._:@+/-]{0,200}", re.ASCII)

Begin = Literal["now", "start"]


class Settings(msgspec.Struct, frozen=True):
    """What its owner says of a subscription, and may change."""

    target: str
    """The ARN of an SQS queue or an SNS topic."""
    types: tuple[str, ...] = ()
    """Of the events that are wanted; all if there are none."""
    stream_prefix: str = ""

    def wants_stream(self, stream: str) -> bool:
        return stream.startswith(self.stream_prefix)

    def wants_type(self, kind: str) -> bool:
        return not self.types or kind in self.types


class Subscription(msgspec.Struct, frozen=True):
    """One subscription of a tenant."""

    tenant: str
    name: str
    id: str
    """Of this one: a subscription that is made anew under a name begins anew."""
    settings: Settings
    begins: Begin
    starts: tuple[int, ...]
    """By partition, the position behind which it begins."""
    created_at: datetime
    created_by: str
    version: int = 1


class Stand(msgspec.Struct, frozen=True):
    """A stream that stands still: the event to be sent next, and how often it was refused."""

    partition: int
    stream: str
    version: int
    position: int
    attempts: int
    due_at: datetime
    """When it is offered again, if it is not parked."""
    reason: str
    is_told: bool = False
    """Whether it was announced that it is parked."""

    @property
    def is_parked(self) -> bool:
        return self.attempts >= ATTEMPTS_MAX


class AllowList(msgspec.Struct, frozen=True):
    """Targets that subscriptions may send to: ARNs, of which those that end in `*` stand for all that begin so."""

    patterns: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> "AllowList":
        """Read a list that is separated by commas; an empty one allows nothing."""
        return cls(tuple(pattern.strip() for pattern in text.split(",") if pattern.strip()))

    def check(self, arn: str) -> None:
        """
        Refuse a target that is not in the list.

        Raises:
            Denied: `target_not_allowed`.
        """
        if not any(arn.startswith(each[:-1]) if each.endswith("*") else arn == each for each in self.patterns):
            raise Denied(
                "target_not_allowed",
                "This deployment does not send there. Whoever runs it names the targets that are allowed.",
                pointer="/target",
            )


class Due(msgspec.Struct, frozen=True):
    """An event on its way, or a place in the log that was passed."""

    position: int
    recorded_at: int
    """Microseconds since 1970."""
    stream: str = ""
    version: int = 0
    body: str | None = None
    """The event as it is sent; None if it is not wanted."""
    fault: str = ""
    """Why it cannot be read, where it cannot."""

    @property
    def is_wanted(self) -> bool:
        return self.body is not None or bool(self.fault)


class Window(msgspec.Struct, frozen=True):
    """Events between two checkpoints: those that are wanted, and how far they reach."""

    events: tuple[Due, ...]
    position: int
    recorded_at: int


def check_name(name: str) -> str:
    """
    Refuse what is no name of a subscription.

    Raises:
        Invalid: `invalid_subscription`.
    """
    if not _NAME.fullmatch(name):
        raise _invalid("A subscription is named by 1 to 64 letters, digits, dots, dashes and underscores.", "/name")
    return name


def check_settings(settings: Settings) -> None:
    """
    Refuse settings that nothing could ever meet.

    Raises:
        Invalid: `invalid_target`, `invalid_subscription`.
    """
    target_of(settings.target)
    if len(settings.types) > TYPES_MAX:
        raise _invalid(f"A subscription names at most {TYPES_MAX} types; leave them out for all.", "/types")
    if not all(0 < len(kind.encode()) <= TEXT_BYTES_MAX for kind in settings.types):
        raise _invalid(f"An event type is 1 to {TEXT_BYTES_MAX} bytes of text.", "/types")
    if not _PREFIX.fullmatch(settings.stream_prefix):
        raise _invalid("A prefix is the beginning of a stream's name.", "/stream_prefix")


def windows(feed: Iterable[Due], standing: Container[str]) -> Iterator[Window]:
    """
    Cut a feed into windows, without the events of streams that stand still.

    *standing* is looked at for each event anew: a stream that comes to stand still drops out of the windows to come.
    """
    events: list[Due] = []
    limit, passed, last = EVENTS_FIRST, 0, None
    for last in feed:
        passed += 1
        if last.is_wanted and last.stream not in standing:
            events.append(last)
        if len(events) == limit or passed == PASSED_MAX:
            yield Window(tuple(events), last.position, last.recorded_at)
            events, limit, passed = [], min(2 * limit, EVENTS_MAX), 0
    if passed and last is not None:
        yield Window(tuple(events), last.position, last.recorded_at)


def refused(due: Due, partition: int, reason: str, now: datetime, before: Stand | None = None) -> Stand:
    """Say where a stream stands once *due* was refused; *before* is where it stood already, if it did."""
    is_same = before is not None and before.position == due.position
    attempts = before.attempts + 1 if before and is_same else 1
    return Stand(
        partition=partition,
        stream=due.stream,
        version=due.version,
        position=due.position,
        attempts=attempts,
        due_at=now + FIRST_WAIT * 3 ** (attempts - 1),
        reason=reason[:REASON_CHARACTERS_MAX],
    )


def behind(due: Due, before: Stand) -> Stand:
    """Say where a stream stands once *due* was taken: at whatever comes next."""
    return msgspec.structs.replace(
        before, version=due.version + 1, position=due.position + 1, attempts=0, reason="", is_told=False
    )


def beyond(stand: Stand, position: int) -> Stand:
    """Say where a stream stands once everything up to *position* was taken or is not wanted."""
    if stand.position > position:
        return stand
    return msgspec.structs.replace(stand, position=position + 1, attempts=0, reason="", is_told=False)


def freed(stand: Stand, now: datetime) -> Stand:
    """Let a stream go on, with all its attempts before it."""
    return msgspec.structs.replace(stand, attempts=0, due_at=now, is_told=False)


def _invalid(detail: str, pointer: str) -> Invalid:
    return Invalid("invalid_subscription", detail, pointer=pointer)
