"""
Making subscriptions, changing them, ending them, and looking at how they go.

A subscription that is deleted leaves a row that says so, for a day: a request to make it that is still on its way finds
its key taken, and changes nothing.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from holdfast.clock import EPOCH
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.batches import delete_many
from holdfast.dynamodb.reads import Row, get, query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database, put_new, update_guarded
from holdfast.errors import Conflict, NotFound, Unavailable, once_done
from holdfast.ids import uuid7
from holdfast.log.reader import LogReader
from holdfast.log.values import PARTITIONS
from holdfast.streams.companions import Change, Is
from holdfast.streams.companions import Row as Changes
from holdfast.subscriptions import rows
from holdfast.subscriptions.rows import Checkpoint, Track
from holdfast.subscriptions.rules import (
    AllowList,
    Begin,
    Settings,
    Stand,
    Subscription,
    check_name,
    check_settings,
    freed,
)

SUBSCRIPTIONS_MAX: Final = 100
"""Of one tenant. Two that are made at once may pass it together."""
DELETED_KEPT: Final = timedelta(days=1)
"""How long a deleted subscription's row stays: longer than any request is on its way."""
TURNS_MAX: Final = 8
"""How often a change is decided again when others get ahead of it."""


class Progress(msgspec.Struct, frozen=True):
    """How far a subscription has come in a partition."""

    partition: int
    position: int
    head: int
    """The log's position."""
    lag_seconds: float
    """How long ago what it has passed was recorded; 0 if it has passed everything."""
    standing: int
    """Streams that stand still."""
    parked: int
    """Those of them that are not tried again by themselves."""

    @property
    def lag_events(self) -> int:
        return max(0, self.head - self.position)


@dataclass(frozen=True)
class Subscriptions:
    """One tenant's subscriptions."""

    database: Database
    tables: Tables
    tenant: str
    allowed: AllowList

    def put(self, name: str, settings: Settings, *, begins: Begin, by: str) -> Subscription:
        """
        Make a subscription, or change one; asking again changes nothing.

        One that exists goes on from where it is, whatever *begins* says.

        Raises:
            Invalid: `invalid_subscription`, `invalid_target`.
            Denied: `target_not_allowed`.
            Conflict: `too_many_subscriptions`.
            Unavailable: `contended`; repeat.
        """
        check_name(name)
        check_settings(settings)
        self.allowed.check(settings.target)
        for _ in range(TURNS_MAX):
            row = self._row(name)
            found = rows.subscription_of(row) if row else None
            if found and found.settings == settings:
                return found
            if found:
                wish = msgspec.structs.replace(found, settings=settings, version=found.version + 1)
            else:
                wish = self._new(name, settings, begins, by, version=rows.version_of(row) + 1 if row else 1)
            if self._written(wish, row):
                return wish
        raise Unavailable("contended", f"Others keep changing the subscription {name!r}. Nothing happened; repeat.")

    def get(self, name: str) -> Subscription:
        """
        Read a subscription.

        Raises:
            NotFound: `subscription_not_found`.
        """
        found = self.find(name)
        if found is None:
            raise NotFound("subscription_not_found", f"There is no subscription {name!r}.")
        return found

    def find(self, name: str) -> Subscription | None:
        """Read a subscription; None if there is none."""
        row = self._row(name)
        return rows.subscription_of(row) if row else None

    def all(self) -> list[Subscription]:
        """Read all of them, by name."""
        found = map(rows.subscription_of, query(self.database, self.tables.operations, self._pk))
        return sorted((each for each in found if each), key=lambda each: each.name)

    def delete(self, name: str) -> None:
        """
        End a subscription. What is being sent at this moment still arrives.

        Whoever is cut off leaves rows of it that nobody reads; asking again removes them.

        Raises:
            NotFound: `subscription_not_found`.
            Unavailable: `contended`; repeat.
        """
        for _ in range(TURNS_MAX):
            row = self._row(name)
            if row and rows.subscription_of(row) is None:
                self._forget(rows.deleted_of(row))
            found = self.get(name)
            after = msgspec.structs.replace(found, version=found.version + 1)
            expires = int((self.database.clock.now() + DELETED_KEPT - EPOCH).total_seconds())
            if self._changed(found.version, after, rows.subscription_row(after, expires=expires)):
                with once_done():
                    self._forget(found)
                return
        raise Unavailable("contended", f"Others keep changing the subscription {name!r}. Nothing happened; repeat.")

    def progress(self, subscription: Subscription) -> list[Progress]:
        """Say how far a subscription has come in every partition."""
        heads = LogReader(self.database, self.tables, self.tenant).heads()
        now = self.database.clock.now()
        told = []
        for head, (track, checkpoint) in zip(heads, self.checkpoints(subscription), strict=True):
            stands = track.stands(self.database, self.tables) if checkpoint.standing else []
            is_behind = checkpoint.position < head.position
            told.append(
                Progress(
                    partition=head.partition,
                    position=checkpoint.position,
                    head=head.position,
                    lag_seconds=max(0.0, (now - checkpoint.recorded_at).total_seconds()) if is_behind else 0.0,
                    standing=len(stands),
                    parked=sum(stand.is_parked for stand in stands),
                )
            )
        return told

    def checkpoints(self, subscription: Subscription) -> list[tuple[Track, Checkpoint]]:
        """Read where a subscription is in every partition, in order."""
        found = {
            row["sk"]: row for row in query(self.database, self.tables.operations, rows.checkpoints_key(subscription))
        }
        tracks = [Track(subscription, partition) for partition in range(PARTITIONS)]
        return [(track, track.checkpoint_of(found.get(track.partition))) for track in tracks]

    def stands(self, subscription: Subscription) -> list[Stand]:
        """Read the streams that stand still, those that are tried again by themselves among them."""
        return [stand for _, stand in self._stands(subscription)]

    def redrive(self, subscription: Subscription, stream: str | None = None) -> list[Stand]:
        """
        Let parked streams go on, or the one that is named, each from where it stands; answer them.

        They go on when the subscription is moved next.

        Raises:
            NotFound: `not_parked`.
            Unavailable: `contended`; repeat.
            Uncertain: some of them may go on; repeat.
        """
        parked = [(track, each) for track, each in self._stands(subscription) if each.is_parked]
        chosen = [(track, each) for track, each in parked if stream in (None, each.stream)]
        if stream is not None and not chosen:
            raise NotFound("not_parked", f"The stream {stream!r} is not parked in {subscription.name!r}.")
        now = self.database.clock.now()
        for number, (track, stand) in enumerate(chosen):
            with once_done() if number else nullcontext():
                self._free(track, stand, now)
        return [stand for _, stand in chosen]

    def _free(self, track: Track, stand: Stand, now: datetime) -> None:
        """Let one stream go on; whoever tells of it meanwhile changes where it stands, and leaves it there."""
        for _ in range(TURNS_MAX):
            is_freed, row = self._guarded(track.stand_change(stand, freed(stand, now)))
            if is_freed or row is None:
                return
            stand = rows.stand_of(row, track.partition)
            if not stand.is_parked:
                return
        raise Unavailable("contended", f"Others keep changing where {stand.stream!r} stands. Repeat.")

    def _stands(self, subscription: Subscription) -> Iterator[tuple[Track, Stand]]:
        for track, checkpoint in self.checkpoints(subscription):
            if checkpoint.standing:
                for stand in track.stands(self.database, self.tables):
                    yield track, stand

    def _new(self, name: str, settings: Settings, begins: Begin, by: str, *, version: int) -> Subscription:
        if len(self.all()) >= SUBSCRIPTIONS_MAX:
            raise Conflict("too_many_subscriptions", f"A tenant has at most {SUBSCRIPTIONS_MAX} subscriptions.")
        now = self.database.clock.now()
        heads = LogReader(self.database, self.tables, self.tenant).heads()
        return Subscription(
            tenant=self.tenant,
            name=name,
            id=uuid7(now),
            settings=settings,
            begins=begins,
            starts=tuple(head.position if begins == "now" else 0 for head in heads),
            created_at=now,
            created_by=by,
            version=version,
        )

    def _written(self, wish: Subscription, before: Row | None) -> bool:
        row = rows.subscription_row(wish)
        if before is not None:
            return self._changed(rows.version_of(before), wish, row)
        # First that the tenant has subscriptions: a subscription that no sweep knew of would never be moved.
        put_new(self.database, self.tables.operations, to_item(rows.directory_row(self.tenant)))
        return put_new(self.database, self.tables.operations, to_item(self._key(wish.name) | row)) is None

    def _changed(self, before: int, after: Subscription, row: Row) -> bool:
        return self._guarded(Change(self._key(after.name), (Is("v", before),), set={**row}))[0]

    def _guarded(self, change: Change) -> tuple[bool, Changes | None]:
        def is_applied(row: Changes) -> bool:
            return all(row.get(name) == value for name, value in change.set.items())

        return update_guarded(self.database, change, table=self.tables.operations, is_applied=is_applied)

    def _forget(self, subscription: Subscription) -> None:
        """Remove where it was. Nobody asks for it any more: what is made anew has another id."""
        keys: list[tuple[str, str | int]] = []
        for partition in range(PARTITIONS):
            track = Track(subscription, partition)
            keys += [(row["pk"], row["sk"]) for row in query(self.database, self.tables.operations, track.stands_key)]
            keys.append((track.checkpoint_key["pk"], track.checkpoint_key["sk"]))
        delete_many(self.database, self.tables.operations, keys)

    def _row(self, name: str) -> Row | None:
        key = self._key(check_name(name))
        return get(self.database, self.tables.operations, key["pk"], key["sk"])

    def _key(self, name: str) -> Row:
        return rows.subscription_key(self.tenant, name)

    @property
    def _pk(self) -> str:
        return rows.subscriptions_key(self.tenant)
