"""What every store decides in the same way, whatever it keeps its commits in."""

from collections.abc import Sequence
from typing import Any

from holdfast.clock import Clock
from holdfast.errors import Invalid, Unavailable
from holdfast.streams.companions import Companion
from holdfast.streams.packing import Packed, Sealed
from holdfast.streams.values import (
    ANY,
    BOUNDARY_AGE_MAX,
    Append,
    Appended,
    Boundary,
    Commit,
    Instant,
    check_stream,
)

ACTIONS_MAX = 100
"""Rows in one DynamoDB transaction; the operation row of an `any` append is one of them."""


def check_appends(appends: Sequence[Append[Any]], companions: Sequence[Companion]) -> None:
    """Refuse what no store could write in one transaction."""
    if not appends:
        raise Invalid("no_appends", "Append to at least one stream.")
    if len({check_stream(wish.stream) for wish in appends}) < len(appends):
        raise Invalid("duplicate_stream", "Each stream may be named once; put its events into one append.")
    if len(appends) + len(companions) + 1 > ACTIONS_MAX:
        raise Invalid("too_many_actions", f"Streams and companions together may be at most {ACTIONS_MAX - 1}.")


def expected_version(wish: Append[Any]) -> int | None:
    """Say which version the wish stands on; None for any."""
    match wish.expected:
        case Boundary(version=version):
            return version
        case int() as version:
            return version
        case _:
            return None


def wants_any(appends: Sequence[Append[Any]]) -> bool:
    return any(wish.expected == ANY for wish in appends)


def is_fresh(boundary: Boundary, clock: Clock) -> bool:
    """Tell whether *boundary* may still be built on; the archive may free the key behind an older one."""
    wall = abs(clock.now() - boundary.read_at.wall)
    return max(wall.total_seconds(), clock.monotonic() - boundary.read_at.monotonic) <= BOUNDARY_AGE_MAX.total_seconds()


def check_fresh(boundary: Boundary, clock: Clock) -> None:
    if not is_fresh(boundary, clock):
        raise Unavailable("boundary_expired", "The end of the stream was read too long ago to append to it; repeat.")


def empty(stream: str, read_at: Instant) -> Boundary:
    """Stand before the first event of a stream."""
    return Boundary(stream, 0, None, b"", read_at)


def answer_of(sealed: Sealed, read_at: Instant) -> Appended:
    """Tell a writer where its events stand, and what it may append next without reading."""
    return Appended(
        stream=sealed.stream,
        first_version=sealed.first_version,
        version=sealed.version,
        commit_id=sealed.commit_id,
        recorded_at=sealed.recorded_at,
        boundary=Boundary(sealed.stream, sealed.version, sealed.recorded_at, sealed.hash, read_at),
    )


def recognise(commit: Commit[Any] | None, commit_id: str, content: Packed) -> Appended | None:
    """
    Find the answer of an earlier call in the commit that stands in the way of this one.

    Returns None if the commit is somebody else's.

    Raises:
        Invalid: `idempotency_mismatch`, the commit is the caller's own but says something else.
    """
    if commit is None or commit.commit_id != commit_id:
        return None
    if commit.fingerprint != content.fingerprint:
        raise mismatch()
    return Appended(
        stream=commit.stream,
        first_version=commit.first_version,
        version=commit.version,
        commit_id=commit.commit_id,
        recorded_at=commit.recorded_at,
        is_replay=True,
    )


def mismatch() -> Invalid:
    return Invalid(
        "idempotency_mismatch",
        "This idempotency key has been used for another request. Use a new key for a new request.",
        status=422,
    )
