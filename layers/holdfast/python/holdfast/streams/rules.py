"""What every store decides in the same way, whatever it keeps its commits in."""

from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.clock import Clock, Instant
from holdfast.errors import Invalid, Unavailable
from holdfast.streams.companions import Companion, canonical, check_companions
from holdfast.streams.packing import Codec, Packed, Sealed, fingerprint_of, prepare
from holdfast.streams.values import (
    ANY,
    BOUNDARY_AGE_MAX,
    Append,
    Appended,
    Boundary,
    Commit,
    StaleStream,
    check_stream,
)

ACTIONS_MAX = 100
"""Rows in one DynamoDB transaction; the operation row of an `any` append is one of them."""
TRANSACTION_BYTES_MAX = 3_500_000
"""Packed events and companions of one transaction: DynamoDB's 4 MB, less keys, hashes and margin."""


class Seen(msgspec.Struct, frozen=True):
    """What a store shows of a stream to one who wants to append to it."""

    end: Boundary
    suspects: tuple[Commit[Any], ...] = ()
    """Where the caller's own earlier commit would be: the newest one, and the one at the expected place."""
    winner: Commit[Any] | None = None
    """The commit at the expected place."""


def check_appends(appends: Sequence[Append[Any]], companions: Sequence[Companion], tenant: str) -> None:
    """Refuse what no store could write in one transaction, or should."""
    if not appends:
        raise Invalid("no_appends", "Append to at least one stream.")
    if len({check_stream(wish.stream) for wish in appends}) < len(appends):
        raise Invalid("duplicate_stream", "Each stream may be named once; put its events into one append.")
    if len(appends) + len(companions) + 1 > ACTIONS_MAX:
        raise Invalid("too_many_actions", f"Streams and companions together may be at most {ACTIONS_MAX - 1}.")
    for wish in appends:
        expected_version(wish)
        if isinstance(wish.expected, Boundary) and (wish.expected.tenant, wish.expected.stream) != (
            tenant,
            wish.stream,
        ):
            raise Invalid("foreign_boundary", "This boundary is of another stream: append where it was read.")
    check_companions(companions)


def prepare_all(
    codec: Codec[Any], appends: Sequence[Append[Any]], companions: Sequence[Companion]
) -> tuple[Packed, ...]:
    """
    Encode and pack what every wish appends.

    Companions are a part of what was asked: with other ones it is another request, unless its fingerprint was given.
    """
    contents = [prepare(codec, wish.events, wish.fingerprint) for wish in appends]
    asked = [canonical(companion) for companion in companions]
    if asked:
        contents = [
            content
            if wish.fingerprint is not None
            else msgspec.structs.replace(content, fingerprint=fingerprint_of([content.fingerprint, *asked]))
            for wish, content in zip(appends, contents, strict=True)
        ]
    size = sum(len(content.packed) for content in contents) + sum(map(len, asked))
    if size > TRANSACTION_BYTES_MAX:
        raise Invalid(
            "transaction_too_large",
            f"These appends take {size} bytes together and a transaction holds {TRANSACTION_BYTES_MAX}.",
            status=413,
        )
    return tuple(contents)


def expected_version(wish: Append[Any]) -> int | None:
    """Say which version the wish stands on; None for any."""
    expected = wish.expected
    if isinstance(expected, Boundary):
        return expected.version
    if expected == ANY:
        return None
    if type(expected) is int and expected >= 0:  # a bool is no version
        return expected
    raise Invalid("invalid_expected_version", 'Expect a version from 0, a boundary, or "any".')


def wants_any(appends: Sequence[Append[Any]]) -> bool:
    return any(wish.expected == ANY for wish in appends)


def is_suspected(seen: Sequence[Seen], commit_id: str) -> bool:
    """Tell whether a commit of this author has been seen, whatever it says."""
    return any(commit.commit_id == commit_id for each in seen for commit in each.suspects)


def find_answers(seen: Sequence[Seen], contents: Sequence[Packed], commit_id: str) -> tuple[Appended | None, ...]:
    """Recognise, for each wish, the commit that an earlier call of the same author wrote."""
    return tuple(
        next((answer for commit in each.suspects if (answer := recognise(commit, commit_id, content))), None)
        for each, content in zip(seen, contents, strict=True)
    )


def whole(answers: Sequence[Appended | None]) -> tuple[Appended, ...]:
    """
    Take the answers of an operation, which was written as a whole or not at all.

    Raises:
        Invalid: `idempotency_mismatch`, its id stands on a part of it: that was another operation.
    """
    found = tuple(answer for answer in answers if answer)
    if found and len(found) < len(answers):
        raise mismatch()
    return found


def find_stale(appends: Sequence[Append[Any]], seen: Sequence[Seen]) -> StaleStream | None:
    """Say which wish does not stand on the end of its stream."""
    for wish, each in zip(appends, seen, strict=True):
        expected = expected_version(wish)
        if expected is not None and expected != each.end.version:
            return StaleStream(wish.stream, each.end.version, each.winner)
    return None


def is_fresh(boundary: Boundary, clock: Clock) -> bool:
    """Tell whether *boundary* may still be built on; the archive may free the key behind an older one."""
    return boundary.read_at.age_seconds(clock) <= BOUNDARY_AGE_MAX.total_seconds()


def check_fresh(boundary: Boundary, clock: Clock) -> None:
    if not is_fresh(boundary, clock):
        raise Unavailable("boundary_expired", "The end of the stream was read too long ago to append to it; repeat.")


def empty(tenant: str, stream: str, read_at: Instant) -> Boundary:
    """Stand before the first event of a stream."""
    return Boundary(tenant, stream, 0, None, b"", read_at)


def answer_of(sealed: Sealed, read_at: Instant) -> Appended:
    """Tell a writer where its events stand, and what it may append next without reading."""
    return Appended(
        stream=sealed.stream,
        first_version=sealed.first_version,
        version=sealed.version,
        commit_id=sealed.commit_id,
        recorded_at=sealed.recorded_at,
        boundary=Boundary(sealed.tenant, sealed.stream, sealed.version, sealed.recorded_at, sealed.hash, read_at),
    )


def recognise(commit: Commit[Any] | None, commit_id: str, content: Packed) -> Appended | None:
    """
    Find the answer of an earlier call in a commit.

    Returns None if the commit is somebody else's.

    Raises:
        Invalid: `idempotency_mismatch`, the commit is the caller's own but says something else.
    """
    if commit is None or commit.commit_id != commit_id:
        return None
    if commit.fingerprint != content.fingerprint:
        raise mismatch()
    return answer_again(commit)


def answer_again(commit: Commit[Any]) -> Appended:
    """Tell a writer where a commit of its own has stood since an earlier call."""
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
