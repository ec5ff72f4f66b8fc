"""
How an application's events lie in the table.

    L#<space>                           last position   a segment: the events of one insert, with their bodies
    H#<space>                           0               the head of the log: the position of its last event
    E#<space>#<originator>              0               the head of an originator: its last version, its newest shares
    B#<space>#<originator>              last version    a block of older shares
    T#<space>#<application>             0               how far that application's notifications were processed
    A#<space>#<purpose>#<originator>    version         one event that has no position: a snapshot
    V#<space>#<name>                    any             rows of a view that moves with its tracking

A segment is found by position, since its key is its last one and positions have no gaps, and by originator, through the
shares. All but heads and tracking never change, and nothing is ever removed.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
from eventsourcing.persistence import DataError, IntegrityError, Notification, StoredEvent

from holdfast.dynamodb.attributes import ORDERED_DIGITS, ordered
from holdfast.dynamodb.writes import Database
from holdfast.streams import EVENTS_MAX, PACKED_BYTES_MAX

Row = dict[str, Any]

SOLE: Final = "0"
"""The sort key of a row that is alone under its partition key."""
ORIGINATORS_MAX: Final = 98
"""Originators of one insert: a transaction holds 100 actions, and the segment and the log's head are two. Tracking is
a third, and leaves room for one originator less."""
NAME_BYTES_MAX: Final = 1_024
"""Of an originator's id or an application's name, which become part of a key (2,048 bytes)."""
VERSION_MAX: Final = 10**ORDERED_DIGITS - 1
SHARES_MAX: Final = 64
"""Places kept in an originator's head: with them it still weighs about one write unit."""
NO_VERSION: Final = -1
"""The last version of an originator that has no events; the library's versions may begin at 0."""

OriginatorId = UUID | str


@dataclass(frozen=True)
class Space:
    """Where one application's rows lie: a table, and the name that is part of every key in it."""

    database: Database
    table: str
    name: str

    def log_key(self) -> str:
        return f"L#{self.name}"

    def log_head_key(self) -> str:
        return f"H#{self.name}"

    def originator_key(self, originator: OriginatorId) -> str:
        return f"E#{self.name}#{originator}"

    def block_key(self, originator: OriginatorId) -> str:
        return f"B#{self.name}#{originator}"

    def tracking_key(self, application: str) -> str:
        return f"T#{self.name}#{application}"

    def sequence_key(self, purpose: str, originator: OriginatorId) -> str:
        return f"A#{self.name}#{purpose}#{originator}"

    def view_key(self, name: str) -> str:
        return f"V#{self.name}#{name}"


# ----- segments


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    originators: tuple[tuple[bool, bytes], ...]
    """Whether it is a UUID, and its bytes: what comes back is of the type that went in."""
    topics: tuple[str, ...]
    events: tuple[tuple[int, int, int, bytes], ...]
    """Index of the originator, version, index of the topic, state."""


_decoder: Final = msgspec.msgpack.Decoder(_Packed)


@dataclass(frozen=True)
class Segment:
    """The events of one insert at their positions."""

    first: int
    packed: _Packed

    @property
    def last(self) -> int:
        return self.first + len(self.packed.events) - 1

    def notifications(self) -> Iterator[Notification]:
        originators = [_id_of(stored) for stored in self.packed.originators]
        for position, (originator, version, topic, state) in enumerate(self.packed.events, self.first):
            yield Notification(
                id=position,
                originator_id=originators[originator],
                originator_version=version,
                topic=self.packed.topics[topic],
                state=state,
            )

    def events_of(self, originator: OriginatorId) -> Iterator[StoredEvent]:
        for index, stored in enumerate(self.packed.originators):
            if str(_id_of(stored)) == str(originator):
                for at, version, topic, state in self.packed.events:
                    if at == index:
                        yield StoredEvent(_id_of(stored), version, self.packed.topics[topic], state)


def pack(events: Sequence[StoredEvent]) -> bytes:
    """
    Write *events* as the body of a segment.

    Raises:
        DataError: they are more than one item holds. An insert is atomic, so it is never split.
    """
    if len(events) > EVENTS_MAX:
        raise DataError(f"{len(events)} events at once; one insert holds {EVENTS_MAX}.")
    originators: dict[tuple[bool, bytes], int] = {}
    topics: dict[str, int] = {}
    packed = tuple(
        (
            originators.setdefault(_stored_id(event.originator_id), len(originators)),
            event.originator_version,
            topics.setdefault(event.topic, len(topics)),
            event.state,
        )
        for event in events
    )
    body = zlib.compress(msgspec.msgpack.encode(_Packed(tuple(originators), tuple(topics), packed)))
    if len(body) > PACKED_BYTES_MAX:
        raise DataError(f"These events pack to {len(body)} bytes; one insert holds {PACKED_BYTES_MAX}.")
    return body


def segment_of(row: Row) -> Segment:
    return Segment(row["first"], _decoder.decode(zlib.decompress(row["ev"])))


def _stored_id(originator: OriginatorId) -> tuple[bool, bytes]:
    return (True, originator.bytes) if isinstance(originator, UUID) else (False, originator.encode())


def _id_of(stored: tuple[bool, bytes]) -> OriginatorId:
    is_uuid, content = stored
    return UUID(bytes=content) if is_uuid else content.decode()


# ----- originators


class Share(msgspec.Struct, frozen=True, array_like=True):
    """One insert's share of an originator: the events after the share before it, up to *version*."""

    version: int
    position: int
    """The last of the segment that holds them, by which it is found."""


class OriginatorHead(msgspec.Struct, frozen=True):
    """Where an originator ends, and where its events lie."""

    revision: int = 0
    """How often it was changed: what every change is guarded by."""
    last: int = NO_VERSION
    sealed: int = NO_VERSION
    """The version up to which its shares are in blocks."""
    recent: tuple[Share, ...] = ()

    @property
    def is_full(self) -> bool:
        return len(self.recent) >= SHARES_MAX

    def extended(self, version: int, position: int) -> "OriginatorHead":
        return OriginatorHead(
            self.revision + 1, last=version, sealed=self.sealed, recent=(*self.recent, Share(version, position))
        )

    def closed(self) -> "OriginatorHead":
        return OriginatorHead(self.revision + 1, last=self.last, sealed=self.last)


def head_of(row: Row | None) -> OriginatorHead:
    if row is None:
        return OriginatorHead()
    return OriginatorHead(row["v"], row["last"], row["sealed"], shares_of(row["places"]))


def head_row(head: OriginatorHead) -> Row:
    return {"v": head.revision, "last": head.last, "sealed": head.sealed, "places": packed_shares(head.recent)}


def block_row(head: OriginatorHead) -> Row:
    """Write the shares that *head* keeps as a block of their own, which lies at the last of their versions."""
    return {"places": packed_shares(head.recent)}


def packed_shares(shares: Sequence[Share]) -> bytes:
    return msgspec.msgpack.encode(shares)


def shares_of(packed: bytes) -> tuple[Share, ...]:
    return msgspec.msgpack.decode(packed, type=tuple[Share, ...])


# ----- checks


def check_event(event: StoredEvent) -> None:
    """
    Refuse what no key could be made of.

    Raises:
        DataError: the version is no whole number from 0, or the id is too long.
    """
    if not 0 <= event.originator_version <= VERSION_MAX:
        raise DataError(f"Version {event.originator_version} is not kept; versions are from 0 to {VERSION_MAX}.")
    check_name(str(event.originator_id))


def check_name(name: str) -> None:
    """
    Refuse a name that a key has no room for.

    Raises:
        DataError: it is too long.
    """
    if len(name.encode()) > NAME_BYTES_MAX:
        raise DataError(f"An id or name of {len(name.encode())} bytes; {NAME_BYTES_MAX} are kept.")


def versions_of(events: Sequence[StoredEvent], *, originators_max: int) -> dict[str, tuple[int, int]]:
    """
    Say each originator's first and last version among *events*.

    Raises:
        IntegrityError: an originator's versions do not rise.
        DataError: there are more originators than one transaction reaches.
    """
    found: dict[str, tuple[int, int]] = {}
    for event in events:
        check_event(event)
        originator, version = str(event.originator_id), event.originator_version
        first, last = found.get(originator, (version, NO_VERSION))
        if version <= last:
            raise IntegrityError(f"Version {version} of {originator} does not come after {last}, in one insert.")
        found[originator] = (first, version)
    if len(found) > originators_max:
        raise DataError(f"Events of {len(found)} originators at once; this insert holds those of {originators_max}.")
    return found


def last_position(head: Row | None) -> int:
    return 0 if head is None else int(head["v"])


def segment_key(position: int) -> str:
    return ordered(position)
