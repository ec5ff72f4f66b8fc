"""
Events as bytes: encoded once, packed together, hashed as they are.

The bytes that a codec makes are what is stored, hashed, exported and proved. Nothing is ever
re-serialised to check a hash: key order and numbers would not survive it.
"""

import zlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from holdfast.clock import MICROSECOND, to_micros
from holdfast.errors import Invalid
from holdfast.proofs import leaf_hash, root
from holdfast.streams.values import EVENTS_MAX, PACKED_BYTES_MAX, Boundary

E = TypeVar("E")

_LENGTH_BYTES = 4


class Codec(Protocol[E]):
    """How a service's events become bytes and come back."""

    def encode(self, event: E) -> bytes: ...
    def decode(self, stored: bytes) -> E: ...
    def time_of(self, event: E) -> datetime | None:
        """Say when the event happened, if it says so itself; otherwise it happened when it was recorded."""


class JsonCodec(Generic[E]):
    """Events that are msgspec Structs, tagged by their class: one type, or a union of them."""

    def __init__(self, event_type: Any) -> None:
        self._encoder = msgspec.json.Encoder(order="sorted")
        self._decoder: msgspec.json.Decoder[E] = msgspec.json.Decoder(event_type)

    def encode(self, event: E) -> bytes:
        return self._encoder.encode(event)

    def decode(self, stored: bytes) -> E:
        return self._decoder.decode(stored)

    def time_of(self, event: E) -> datetime | None:  # noqa: ARG002 - typed events happen when they are recorded
        return None


class _Timed(msgspec.Struct):
    time: datetime | None = None


class RawCodec:
    """Events that are JSON bytes already, and may say their `time`."""

    def __init__(self) -> None:
        self._times = msgspec.json.Decoder(_Timed)

    def encode(self, event: bytes) -> bytes:
        return event

    def decode(self, stored: bytes) -> bytes:
        return stored

    def time_of(self, event: bytes) -> datetime | None:
        return self._times.decode(event).time


class Sealed(msgspec.Struct, frozen=True):
    """A commit ready to be written: its place, its bytes and its hash."""

    tenant: str
    stream: str
    first_version: int
    events: tuple[bytes, ...]
    packed: bytes
    commit_id: str
    fingerprint: bytes
    actor: str
    recorded_at: datetime
    earliest: datetime
    latest: datetime
    """The bounds of the events' own times."""
    previous_hash: bytes
    events_root: bytes
    hash: bytes

    @property
    def version(self) -> int:
        return self.first_version + len(self.events) - 1


class Packed(msgspec.Struct, frozen=True):
    """Events on their way into a stream, before they have a place."""

    events: tuple[bytes, ...]
    times: tuple[datetime | None, ...]
    packed: bytes
    fingerprint: bytes


def prepare(codec: Codec[E], events: Sequence[E], fingerprint: bytes | None) -> Packed:
    """
    Encode and pack *events*.

    Raises:
        Invalid: there are none, too many, or they pack to more than one item holds.
    """
    if not events:
        raise Invalid("no_events", "Append at least one event.")
    if len(events) > EVENTS_MAX:
        raise Invalid(
            "too_many_events", f"Append at most {EVENTS_MAX} events at a time; send the rest next.", status=413
        )
    encoded = tuple(codec.encode(event) for event in events)
    packed = pack(encoded)
    if len(packed) > PACKED_BYTES_MAX:
        raise Invalid(
            "commit_too_large",
            f"These events pack to {len(packed)} bytes and a commit holds {PACKED_BYTES_MAX}: append smaller groups.",
            status=413,
        )
    times = tuple(codec.time_of(event) for event in events)
    return Packed(encoded, times, packed, fingerprint if fingerprint is not None else fingerprint_of(encoded))


def seal(boundary: Boundary, content: Packed, *, commit_id: str, actor: str, now: datetime) -> Sealed:
    """Give *content* its place after *boundary*: versions, a time later than the last one's, and a hash."""
    recorded_at = now if boundary.recorded_at is None else max(now, boundary.recorded_at + MICROSECOND)
    first_version = boundary.version + 1
    times = [time or recorded_at for time in content.times]
    events_root = root_of(content.events)
    header = header_of(
        tenant=boundary.tenant,
        stream=boundary.stream,
        first_version=first_version,
        count=len(content.events),
        events_root=events_root,
        commit_id=commit_id,
        actor=actor,
        recorded_at=recorded_at,
        previous_hash=boundary.hash,
    )
    return Sealed(
        tenant=boundary.tenant,
        stream=boundary.stream,
        first_version=first_version,
        events=content.events,
        packed=content.packed,
        commit_id=commit_id,
        fingerprint=content.fingerprint,
        actor=actor,
        recorded_at=recorded_at,
        earliest=min(times),
        latest=max(times),
        previous_hash=boundary.hash,
        events_root=events_root,
        hash=sha256(header).digest(),
    )


def header_of(
    *,
    tenant: str,
    stream: str,
    first_version: int,
    count: int,
    events_root: bytes,
    commit_id: str,
    actor: str,
    recorded_at: datetime,
    previous_hash: bytes,
) -> bytes:
    """
    Write what a commit is, without its events, as compact JSON of strings and integers with sorted keys.

    Its SHA-256 is the commit's hash. The events enter by the root of their tree (`root_of`), so that one event can be
    shown without its neighbours, and a header made without any of them.
    """
    return msgspec.json.encode(
        {
            "actor": actor,
            "commit_id": commit_id,
            "events_root": events_root.hex(),
            "first": first_version,
            "n": count,
            "prev": previous_hash.hex(),
            "rt": to_micros(recorded_at),
            "stream": stream,
            "tenant": tenant,
            "v": 1,
        },
        order="sorted",
    )


def root_of(events: Iterable[bytes]) -> bytes:
    """Hash events into the root of their own tree (RFC 6962, section 2.1)."""
    return root(leaf_hash(event) for event in events)


def pack(events: Iterable[bytes]) -> bytes:
    """Join events, each behind its length, and compress them together."""
    return zlib.compress(b"".join(len(event).to_bytes(_LENGTH_BYTES, "big") + event for event in events))


def unpack(packed: bytes) -> tuple[bytes, ...]:
    joined = zlib.decompress(packed)
    events, at = [], 0
    while at < len(joined):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(joined[at:start], "big")
        events.append(joined[start:at])
    return tuple(events)


def fingerprint_of(parts: Iterable[bytes]) -> bytes:
    """Digest a list of byte strings so that no other list has the same digest."""
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(_LENGTH_BYTES, "big"))
        digest.update(part)
    return digest.digest()
