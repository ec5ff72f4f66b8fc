"""Time as an argument: everything that asks what time it is asks a `Clock` it was given."""

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from holdfast.errors import Invalid

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:[0-5]\d)(?:\.(\d{1,6})\d*)?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII)


class Clock(Protocol):
    """Wall time, monotonic time and sleep, together, so that a test moves all three at once."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class Instant(msgspec.Struct, frozen=True):
    """A moment on both clocks: the wall may be set, and the monotonic one stops while a machine sleeps."""

    wall: datetime
    monotonic: float

    @classmethod
    def of(cls, clock: Clock) -> "Instant":
        """Take the moment at which something is asked for: the answer is no younger, however late it comes."""
        return cls(clock.now(), clock.monotonic())

    def age_seconds(self, clock: Clock) -> float:
        """Say how long ago it was: what the larger of both clocks says, whichever way the wall was set."""
        return max(abs(clock.now() - self.wall).total_seconds(), clock.monotonic() - self.monotonic)


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class ManualClock:
    """A clock that moves only when told to; sleeping moves it, and takes no time."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        self.advance(timedelta(seconds=seconds))

    def advance(self, by: timedelta) -> None:
        self._now += by
        self._monotonic += by.total_seconds()

    def jump(self, by: timedelta) -> None:
        """Set the wall clock alone, as an operator or a bad NTP server does."""
        self._now += by


def to_micros(moment: datetime) -> int:
    """Count whole microseconds since 1970, exactly (floats lose them)."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def to_text(moment: datetime) -> str:
    """Write *moment* as RFC 3339 in UTC with microseconds and `Z`: the one form in which times leave Holdfast."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def from_text(text: str) -> datetime:
    """
    Read an RFC 3339 time, which always says its offset; digits beyond microseconds are cut off.

    Leap seconds are refused: no clock here could hold one.

    Raises:
        Invalid: `invalid_time`.
    """
    match = _RFC_3339.fullmatch(text)
    if match:
        day, time_of_day, fraction, offset = match.groups()
        try:
            return datetime.fromisoformat(
                f"{day}T{time_of_day}.{(fraction or '').ljust(6, '0')}{offset.upper()}"
            ).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # a day that no month has, or a moment outside the years 1 to 9999
    raise Invalid("invalid_time", "Write times as RFC 3339 with an offset, like 2026-01-31T12:00:00Z.")
