"""
Where subscriptions lie, in the table of operations, whose sort keys are numbers.

    SUBS#<0..15> / tenant            that a tenant has, or had, subscriptions
    SUB#<tenant> / name              one of them
    SUBP#<tenant>#<id> / partition   how far it has come
    SUBX#<tenant>#<id>#<p> / stream  a stream that stands still

A name as a number is the beginning of its digest.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import msgspec

from holdfast.clock import from_micros, to_micros
from holdfast.dynamodb.reads import Row, query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database
from holdfast.streams.companions import Change, Condition, Is, Missing
from holdfast.subscriptions.rules import Settings, Stand, Subscription

DIRECTORY_SHARDS: Final = 16
"""Partition keys over which the list of tenants is spread."""
DIGEST_BYTES: Final = 15
"""Of a name's digest in a sort key: DynamoDB's numbers have 38 digits, and these take 37."""


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a subscription has come in a partition."""

    position: int
    recorded_at: datetime
    """When what it passed last was recorded; when it was made, before that."""
    standing: int = 0
    """Streams that stand still."""
    moved_at: datetime | None = None
    turns: int = 0
    """How often it was changed: what every change is guarded by."""


@dataclass(frozen=True)
class Track:
    """One subscription along one partition."""

    subscription: Subscription
    partition: int

    @property
    def stands_key(self) -> str:
        return f"SUBX#{self.subscription.tenant}#{self.subscription.id}#{self.partition}"

    @property
    def checkpoint_key(self) -> Row:
        return {"pk": checkpoints_key(self.subscription), "sk": self.partition}

    def stand_key(self, stream: str) -> Row:
        return {"pk": self.stands_key, "sk": number_of(stream)}

    def checkpoint_of(self, row: Row | None) -> Checkpoint:
        if row is None:
            return Checkpoint(self.subscription.starts[self.partition], self.subscription.created_at)
        return Checkpoint(row["pos"], from_micros(row["rt"]), row["standing"], from_micros(row["at"]), row["turns"])

    def stands(self, database: Database, tables: Tables) -> list[Stand]:
        """Read the streams that stand still, in order of their positions."""
        rows = query(database, tables.operations, self.stands_key)
        return sorted((stand_of(row, self.partition) for row in rows), key=lambda stand: stand.position)

    def checkpoint_change(self, before: Checkpoint, after: Checkpoint) -> Change:
        """Write where the track has come, if nobody else has written it since *before* was read."""
        when: Condition = Is("turns", before.turns) if before.turns else Missing("turns")
        return Change(
            self.checkpoint_key,
            (when,),
            set={
                "pos": after.position,
                "rt": to_micros(after.recorded_at),
                "standing": after.standing,
                "at": to_micros(after.moved_at) if after.moved_at else 0,
                "turns": before.turns + 1,
            },
        )

    def stand_change(self, before: Stand, after: Stand) -> Change:
        """Write where a stream stands, if it still stands at *before*."""
        return Change(self.stand_key(before.stream), is_at(before), set=_attributes(after))

    def stand_row(self, stand: Stand) -> Row:
        return self.stand_key(stand.stream) | {"stream": stand.stream} | _attributes(stand)


def is_at(stand: Stand) -> tuple[Condition, ...]:
    # When it is due is told anew at each refusal and redrive: no late write takes a later stand for an earlier one.
    facts = _attributes(stand)
    return tuple(Is(name, facts[name]) for name in ("pos", "attempts", "due", "told"))


def _attributes(stand: Stand) -> Row:
    return {
        "v": stand.version,
        "pos": stand.position,
        "attempts": stand.attempts,
        "due": to_micros(stand.due_at),
        "reason": stand.reason,
        "told": stand.is_told,
    }


def stand_of(row: Mapping[str, Any], partition: int) -> Stand:
    return Stand(
        partition=partition,
        stream=row["stream"],
        version=row["v"],
        position=row["pos"],
        attempts=row["attempts"],
        due_at=from_micros(row["due"]),
        reason=row["reason"],
        is_told=row["told"],
    )


def number_of(name: str) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:DIGEST_BYTES], "big")


def tenants(database: Database, tables: Tables) -> Iterator[str]:
    """Yield the tenants that have, or had, subscriptions, in no order."""
    for shard in range(DIRECTORY_SHARDS):
        for row in query(database, tables.operations, f"SUBS#{shard}"):
            yield row["tenant"]


def directory_row(tenant: str) -> Row:
    shard = number_of(tenant) % DIRECTORY_SHARDS
    return {"pk": f"SUBS#{shard}", "sk": number_of(tenant), "tenant": tenant}


def checkpoints_key(subscription: Subscription) -> str:
    return f"SUBP#{subscription.tenant}#{subscription.id}"


def subscriptions_key(tenant: str) -> str:
    return f"SUB#{tenant}"


def subscription_key(tenant: str, name: str) -> Row:
    return {"pk": subscriptions_key(tenant), "sk": number_of(name)}


def subscription_row(subscription: Subscription, *, expires: int | None = None) -> Row:
    """Write a subscription; one that *expires* is deleted."""
    return {
        "name": subscription.name,
        "id": subscription.id,
        "doc": _ENCODER.encode(subscription),
        "v": subscription.version,
        "gone": expires is not None,
        "expires": expires,
    }


def subscription_of(row: Any) -> Subscription | None:
    """Read a subscription; None if it was deleted."""
    return None if row["gone"] else _DECODER.decode(row["doc"])


def deleted_of(row: Any) -> Subscription:
    """Read a subscription that was deleted, as it was then."""
    return _DECODER.decode(row["doc"])


def version_of(row: Any) -> int:
    version: int = row["v"]
    return version


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Subscription)

__all__ = ["Checkpoint", "Settings", "Track"]
