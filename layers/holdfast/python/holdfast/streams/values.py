"""What a stream is made of, and the names and bounds that every store keeps to."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from holdfast.clock import Instant
from holdfast.errors import Invalid, Stale

E = TypeVar("E")

STREAM_NAME_MAX = 200
EVENTS_MAX = 1_000
"""Events in one commit."""
PACKED_BYTES_MAX = 380_000
"""Packed events of one commit: what DynamoDB's 400 KB item leaves, less keys, hashes and margin."""
BOUNDARY_AGE_MAX = timedelta(seconds=60)
"""How old a boundary may be when something is appended to it; the archive leaves everything younger alone."""
CLOCK_SKEW_MAX = timedelta(seconds=60)
"""How far a writer's clock may be from the store's."""

ANY: Final = "any"
"""Append at the end, wherever that is."""

_STREAM = re.compile(r"[A-Za-z0-9._:@+-]+(/[A-Za-z0-9._:@+-]+)*")
_TENANT = re.compile(r"[a-z0-9-]{1,40}")


class Boundary(msgspec.Struct, frozen=True):
    """
    The end of a stream as somebody read it: what the next commit stands on.

    A stream without commits has version 0, no time and an empty hash.
    """

    tenant: str
    stream: str
    version: int
    recorded_at: datetime | None
    hash: bytes
    read_at: Instant


Expected = int | Literal["any"] | Boundary


class Commit(msgspec.Struct, Generic[E], frozen=True):
    """Events that were written together; they hold versions *first_version* to *version*."""

    tenant: str
    stream: str
    first_version: int
    events: tuple[E, ...]
    commit_id: str
    fingerprint: bytes
    actor: str
    recorded_at: datetime
    previous_hash: bytes
    hash: bytes
    read_at: Instant

    @property
    def version(self) -> int:
        return self.first_version + len(self.events) - 1

    @property
    def boundary(self) -> Boundary:
        return Boundary(self.tenant, self.stream, self.version, self.recorded_at, self.hash, self.read_at)


class Append(msgspec.Struct, Generic[E], frozen=True):
    """A wish to append: what, where, and standing on what."""

    stream: str
    expected: Expected
    events: Sequence[E]
    fingerprint: bytes | None = None
    """What makes two requests the same one; the digest of the encoded events and of companions if not given."""


class Appended(msgspec.Struct, frozen=True):
    """Where events came to stand. *is_replay* tells an answer given before from a first one."""

    stream: str
    first_version: int
    version: int
    commit_id: str
    recorded_at: datetime
    boundary: Boundary | None = None
    """What the next commit may stand on without reading; missing when others may have appended since."""
    is_replay: bool = False


class StaleStream(Stale):
    """
    The stream does not end where the caller expected.

    Carries the commit that took the caller's place, where there is one: whoever decides again needs
    those events, and has them without another read.
    """

    def __init__(self, stream: str, last_version: int, winner: Commit[Any] | None) -> None:
        super().__init__(
            "stale",
            f"Stream {stream!r} ends at version {last_version}. Read what is new, decide again, expect that version.",
            last_version=last_version,
        )
        self.stream = stream
        self.last_version = last_version
        self.winner = winner


def check_stream(name: str) -> str:
    """
    Refuse a name that is no stream's: 1-200 characters, segments of `[A-Za-z0-9._:@+-]` joined by `/`.

    No segment is `.` or `..`: proxies and clients fold those before a path reaches us. `#` joins the
    parts of keys and can therefore not occur.
    """
    if len(name) <= STREAM_NAME_MAX and _STREAM.fullmatch(name) and not {".", ".."} & set(name.split("/")):
        return name
    raise Invalid(
        "invalid_stream",
        f"A stream is named by 1 to {STREAM_NAME_MAX} characters: segments of letters, digits and ._:@+- joined by "
        "a slash (in a URL path, by ~); no segment is . or ..",
    )


def check_tenant(name: str) -> str:
    if _TENANT.fullmatch(name):
        return name
    raise Invalid("invalid_tenant", "A tenant is named by 1 to 40 characters of a-z, 0-9 and -.")


def category_of(stream: str) -> str:
    """Name the kind of thing a stream is about: the first segment of its name."""
    return stream.split("/", 1)[0]
