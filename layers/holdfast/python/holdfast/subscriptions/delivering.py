"""
Moving one subscription along one partition: at least once, and in the order of each stream.

First events are sent, then the checkpoint is written; whoever is cut off between the two sends them again. An event
that its target refuses keeps its stream where it is: where it stands is written together with the checkpoint that
passes it. So all that has been passed is delivered, or lies at or behind the place of a stream that stands still.

A checkpoint is read before the streams that stand still, and is changed whenever one joins or leaves these: who acts on
streams that have gone on meanwhile cannot write what he makes of it. Where a stream stands is changed in its own row
alone, on condition that nobody else has.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec

from holdfast import telemetry
from holdfast.clock import from_micros
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.reads import get
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import (
    Database,
    carry_out,
    delete_action,
    put_action,
    update_action,
    update_guarded,
)
from holdfast.errors import ServiceError, Unavailable
from holdfast.ids import derived
from holdfast.log.bodies import Bodies, Stored
from holdfast.log.reader import LogReader
from holdfast.log.values import Entry
from holdfast.outbox.values import Message, Outbox, RefusedMessage, target_of
from holdfast.retry import seconds_left
from holdfast.streams.companions import Change, Row
from holdfast.streams.packing import unpack
from holdfast.subscriptions.registry import Subscriptions
from holdfast.subscriptions.rows import Checkpoint, Track, is_at
from holdfast.subscriptions.rules import (
    STANDING_MAX,
    AllowList,
    Due,
    Stand,
    Subscription,
    behind,
    beyond,
    refused,
    windows,
)

STRETCH_COMMITS: Final = 40
"""Commits looked at together: at their largest their bodies come with one answer."""
CATCHING_UP_MAX: Final = 45
"""Streams that stand still and are tried again together: each is a row of one transaction."""

Render = Callable[[str, Stored], Sequence[bytes]]
"""Writes a tenant's commit's events as a reader of its stream sees them: JSON, one each, in order."""
OnParked = Callable[[Subscription, Stand], None]
"""Told, at least once, of each stream that is parked; may raise a `ServiceError`, and is then told again."""
OnBug = Callable[[Exception, Subscription], None]
"""Told of what nobody foresaw: a commit that cannot be read, a subscription that cannot be moved."""


@dataclass(frozen=True)
class Deliverer:
    """Move subscriptions of one service."""

    database: Database
    tables: Tables
    bodies: Bodies
    outbox: Outbox
    render: Render
    allowed: AllowList
    on_parked: OnParked
    on_bug: OnBug = lambda _error, _subscription: None

    def move(self, subscription: Subscription, partition: int, *, seconds: float = float("inf")) -> None:
        """
        Bring a subscription up to the head of one partition, as far as *seconds* go, and the deadline around it.

        What was begun within *seconds* is still brought to its checkpoint.

        May be repeated, and run beside itself: events may then arrive twice, and never for the first time behind a
        later one of their stream.

        Raises:
            Denied: `target_not_allowed`.
            Unavailable: `target_unavailable`, or `unfinished` where there was more to do than time; repeat.
        """
        self.allowed.check(subscription.settings.target)
        track = Track(subscription, partition)
        now, until = self.database.clock.now(), self.database.clock.monotonic() + seconds
        checkpoint, stands = self._standing(track)
        head = LogReader(self.database, self.tables, subscription.tenant).head(partition)
        due = [stand for stand in stands if not stand.is_parked and stand.due_at <= now]
        # Asked after everything was read up to which something may be passed: what comes after a change of a
        # subscription is not judged by what it was before.
        if (due or checkpoint.position < head.position) and not self._is_current(subscription):
            return
        is_caught_up = True
        if due:
            first = sorted(due, key=lambda stand: stand.due_at)[:CATCHING_UP_MAX]
            is_caught_up = self._catch_up(track, checkpoint, first, self._half(until))
            checkpoint, stands = self._standing(track)
        self._tell(track, stands)
        if len(stands) < STANDING_MAX:
            self._go_on(track, checkpoint, head.position, {stand.stream for stand in stands}, until)
        if not is_caught_up:
            raise _unfinished()

    def _standing(self, track: Track) -> tuple[Checkpoint, list[Stand]]:
        key = track.checkpoint_key
        checkpoint = track.checkpoint_of(get(self.database, self._table, key["pk"], key["sk"]))
        return checkpoint, track.stands(self.database, self.tables) if checkpoint.standing else []

    # ----- onwards

    def _go_on(self, track: Track, checkpoint: Checkpoint, head: int, standing: set[str], until: float) -> None:
        """Send what lies between the checkpoint and the head, around the streams that stand still."""
        feed = self._feed(track, checkpoint.position, head, lambda stream: stream not in standing)
        for window in windows(feed, standing):
            now = self.database.clock.now()
            new = [
                refused(window.events[each.index], track.partition, each.reason, now)
                for each in self._send(track, window.events)
            ]
            standing |= {stand.stream for stand in new}
            after = Checkpoint(window.position, from_micros(window.recorded_at), len(standing), now)
            rows = [{"Put": put_action(self._table, to_item(track.stand_row(stand)))} for stand in new]
            if not self._written(track.checkpoint_change(checkpoint, after), rows):
                return  # somebody else is moving it
            checkpoint = msgspec.structs.replace(after, turns=checkpoint.turns + 1)
            if checkpoint.position < head:
                if self._is_over(until):
                    raise _unfinished()
                if len(standing) >= STANDING_MAX or not self._is_current(track.subscription):
                    return

    # ----- streams that stand still

    def _catch_up(self, track: Track, checkpoint: Checkpoint, due: Sequence[Stand], until: float) -> bool:
        """
        Send what streams have missed that stood still, up to the checkpoint; they go on with the others then.

        Answers whether there was time for all of it. What was come through till then is not gone through again.
        """
        at = {stand.stream: stand for stand in due}
        first = min(stand.position for stand in due)
        feed = self._feed(track, first - 1, checkpoint.position, lambda stream: stream in at)
        missed = (each for each in feed if not each.stream or each.position >= at[each.stream].position)
        blocked: set[str] = set()
        for window in windows(missed, blocked):
            reasons = {each.index: each.reason for each in self._send(track, window.events)}
            after, now = dict(at), self.database.clock.now()
            for index, event in enumerate(window.events):
                stand = after[event.stream]
                if index in reasons:
                    after[event.stream] = refused(event, track.partition, reasons[index], now, stand)
                    blocked.add(event.stream)
                elif event.stream not in blocked:
                    after[event.stream] = behind(event, stand)
            is_over = self._is_over(until)
            if is_over:
                free = {stream: beyond(stand, window.position) for stream, stand in after.items()}
                after |= {stream: stand for stream, stand in free.items() if stream not in blocked}
            if not self._stood(track, at, after):
                return True  # somebody else is moving them
            if is_over:
                return False
            at = after
        done = [stand for stand in at.values() if stand.stream not in blocked]
        if done:
            after_all = msgspec.structs.replace(
                checkpoint, standing=checkpoint.standing - len(done), moved_at=self.database.clock.now()
            )
            gone = [
                {"Delete": delete_action(self._table, track.stand_key(stand.stream), is_at(stand))} for stand in done
            ]
            # Only if the checkpoint has not passed more of them meanwhile.
            self._written(track.checkpoint_change(checkpoint, after_all), gone)
        return True

    def _stood(self, track: Track, before: Mapping[str, Stand], after: Mapping[str, Stand]) -> bool:
        """Write where streams stand that have moved; False if somebody else was first."""
        changes = [
            {"Update": update_action(self._table, track.stand_change(before[stream], stand))}
            for stream, stand in after.items()
            if stand != before[stream]
        ]
        return not changes or carry_out(self.database, changes)

    def _tell(self, track: Track, stands: Sequence[Stand]) -> None:
        for stand in stands:
            if stand.is_parked and not stand.is_told:
                try:
                    self.on_parked(track.subscription, stand)
                except ServiceError:
                    # It may have taken seconds to fail, and would again for the next; deliveries wait for it.
                    telemetry.logger().exception("A parked stream could not be told of.", stream=stand.stream)
                    return
                told = msgspec.structs.replace(stand, is_told=True)
                change = track.stand_change(stand, told)
                update_guarded(self.database, change, table=self._table, is_applied=_is_applied(change))

    # ----- both

    def _feed(self, track: Track, after: int, until: int, wanted: Callable[[str], bool]) -> Iterator[Due]:
        """Yield what lies at positions beyond *after* up to *until*: wanted events, and how far nothing is wanted."""
        subscription, settings = track.subscription, track.subscription.settings
        log = LogReader(self.database, self.tables, subscription.tenant)
        entries = log.entries(track.partition, after, until=until)
        while stretch := list(islice(entries, STRETCH_COMMITS)):
            chosen = [
                entry
                for entry in stretch
                if settings.wants_stream(entry.reference.stream) and wanted(entry.reference.stream)
            ]
            for entry, commit in self.bodies.of(subscription.tenant, chosen):
                yield from (due for due in self._dues(subscription, entry, commit) if after < due.position <= until)
            last = stretch[-1]
            yield Due(min(last.last_position, until), last.reference.recorded_at)

    def _dues(self, subscription: Subscription, entry: Entry, commit: Stored) -> Iterator[Due]:
        """Write a commit's events as they are sent, those of other types as passed."""
        kinds = [_TYPED.decode(stored).type for stored in unpack(commit.packed)]
        is_wanted = [subscription.settings.wants_type(kind) for kind in kinds]
        bodies: Sequence[bytes | None] = [None] * len(kinds)
        fault = ""
        if any(is_wanted):
            try:
                bodies = self.render(subscription.tenant, commit)
            except ServiceError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this commit's, and other streams go on
                telemetry.logger().exception("A commit could not be read.", stream=commit.stream)
                self.on_bug(error, subscription)
                fault = f"{type(error).__name__}: {error}"
        for offset, (kind_is_wanted, body) in enumerate(zip(is_wanted, bodies, strict=True)):
            yield Due(
                position=entry.position + offset,
                recorded_at=commit.recorded_at,
                stream=commit.stream,
                version=commit.first_version + offset,
                body=_with_tenant(subscription.tenant, body) if body is not None and kind_is_wanted else None,
                fault=fault if kind_is_wanted else "",
            )

    def _send(self, track: Track, events: Sequence[Due]) -> tuple[RefusedMessage, ...]:
        """Send events; answer those that were refused, one of a stream, behind which none was sent."""
        subscription = track.subscription
        target = target_of(subscription.settings.target)
        unreadable: dict[str, RefusedMessage] = {}
        sendable: list[int] = []
        for index, due in enumerate(events):
            if due.fault:
                unreadable.setdefault(due.stream, RefusedMessage(index, due.fault))
            elif due.stream not in unreadable:
                sendable.append(index)
        messages = [_message(subscription, events[index]) for index in sendable]
        send = self.outbox.to_queue if target.service == "sqs" else self.outbox.to_topic
        told = [RefusedMessage(sendable[each.index], each.reason) for each in send(target.arn, messages)]
        # What was refused earlier in a stream stands before what cannot be read.
        named = unreadable | {events[each.index].stream: each for each in told}
        return tuple(named.values())

    def _written(self, change: Change, others: Sequence[Mapping[str, Any]]) -> bool:
        """Write a checkpoint together with *others*; False if somebody else was first."""
        if others:
            return carry_out(self.database, [{"Update": update_action(self._table, change)}, *others])
        return update_guarded(self.database, change, table=self._table, is_applied=_is_applied(change))[0]

    def _is_current(self, subscription: Subscription) -> bool:
        """Tell whether a subscription is still what it was when this began."""
        registry = Subscriptions(self.database, self.tables, subscription.tenant, self.allowed)
        return registry.find(subscription.name) == subscription

    def _is_over(self, until: float) -> bool:
        return seconds_left() <= 0 or self.database.clock.monotonic() >= until

    def _half(self, until: float) -> float:
        """Give the moment at which half of the time is over: what missed much leaves the rest to what is new."""
        now = self.database.clock.monotonic()
        return now + min(until - now, seconds_left()) / 2

    @property
    def _table(self) -> str:
        return self.tables.operations


class _Typed(msgspec.Struct):
    type: str


_TYPED: Final = msgspec.json.Decoder(_Typed)
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _with_tenant(tenant: str, event: bytes) -> str:
    """
    Write an event as it leaves: with the CloudEvents extension `tenant`, whatever its writer put there.

    Tenants may share a target, and by this its reader tells them apart; what else the event says stays to the byte.
    """
    return msgspec.json.encode({**_MEMBERS.decode(event), "tenant": tenant}).decode()


def _message(subscription: Subscription, due: Due) -> Message:
    stream = (subscription.tenant, subscription.id, due.stream)
    return Message(derived("delivery", *stream, str(due.version)), derived("delivery", *stream), due.body or "")


def _unfinished() -> Unavailable:
    return Unavailable("unfinished", "There is more to deliver than there was time for; repeat.")


def _is_applied(change: Change) -> Callable[[Row], bool]:
    return lambda row: all(row.get(name) == value for name, value in change.set.items())
