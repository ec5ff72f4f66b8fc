"""
The live tail: what the log gains, sent to those who listen, each event once where nothing goes wrong.

Every message says what it covers: an event at `position` comes `after` a position up to which everything was sent
before, and `at` says that nothing else lies between two positions. So a client whose own cursor is below `after` knows
that something was lost on the way, whatever it was, and reads it from the log over HTTP. One whose cursor is beyond
drops what it has. No acknowledgement is needed, and no order of arrival.

A connection's cursor moves before its events are sent, by a guarded update: of two pushers one sends them. Whoever
then fails to send has lost them on the way, and the next message says so.

    client  {"type":"subscribe","prefix":"orders/","after":{"0":120}}     from now on where `after` names no position
            {"type":"ping"}                                                every 10 s; answered by `at`
    server  {"type":"event","partition":0,"position":125,"after":120,"stream":"orders/1",
             "event":{…}}
            {"type":"at","positions":{"0":130},"after":{"0":125}}          nothing of yours from 126 to 130
            {"type":"gap","partition":0,"after":130}                       skipped from 131 on, for it is too far back,
                                                                           too much or too large: read it from the log
            {"type":"error","code":"invalid_message","detail":"…","retryable":false,"request_id":"…"}

Where a connection is, it asks itself: a beat of the server's own would be paid for every connection that is idle, and
no schedule of AWS beats more often than once a minute.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec

from holdfast.broadcast import Broadcast, Connection, Delivery, Member
from holdfast.broadcast.connections import member_of
from holdfast.broadcast.posting import MESSAGE_BYTES_MAX, frames
from holdfast.dynamodb.writes import update_guarded
from holdfast.errors import Invalid, Throttled
from holdfast.log.values import PARTITIONS
from holdfast.streams.companions import Change, Is
from holdfast.streams.values import STREAM_NAME_MAX

TOPIC: Final = "log"
BEHIND_MAX: Final = 1_000
"""Events that are sent to a connection that is behind; one that is further behind reads them from the log."""
RUN_BYTES_MAX: Final = 8 * 1024 * 1024
"""Events held in memory for one push; older ones are left to be read from the log."""
CLAIM_ROUNDS_MAX: Final = 8
"""How often a cursor is looked at again when another pusher has moved it."""


class Tailed(msgspec.Struct, frozen=True):
    """One event of the log, as it is sent."""

    partition: int
    position: int
    stream: str
    event: bytes
    """JSON, with everything that a reader of the stream would see."""


class TailLog(Protocol):
    """The log, as far as a tail reads it."""

    def positions(self, tenant: str) -> Sequence[int]:
        """Say how far each partition has come, in order."""

    def events(
        self, tenant: str, partition: int, *, after: int, until: int, wanted: Callable[[str], bool]
    ) -> Iterable[Tailed]:
        """Yield the events of wanted streams at positions beyond *after* up to *until*, in order."""


class Run(msgspec.Struct, frozen=True):
    """What is to be sent of one partition: all that somebody wants from *after* (not with it) to *until*."""

    partition: int
    after: int
    until: int
    events: tuple[Tailed, ...]


class Mark(msgspec.Struct, frozen=True):
    """Where a connection is in one partition."""

    cursor: int
    """Everything up to here was sent, was not wanted, or was declared a gap."""
    event: int
    """The last position up to there at which there was something for it: nothing was wanted since."""


class _Subscribe(msgspec.Struct, frozen=True, tag_field="type", tag="subscribe", forbid_unknown_fields=True):
    prefix: Annotated[str, msgspec.Meta(max_length=STREAM_NAME_MAX)] = ""
    after: dict[Literal["0", "1", "2", "3"], Annotated[int, msgspec.Meta(ge=0)]] = {}


class _Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping", forbid_unknown_fields=True):
    pass


# --- What is sent: pure


def advanced(mark: Mark, prefix: str, run: Run) -> tuple[Mark, list[bytes]] | None:
    """Move a connection over *run*: where it is then, and what it is sent. None if it is there already."""
    if mark.cursor >= run.until:
        return None
    is_far_behind = run.until - mark.cursor > BEHIND_MAX
    if is_far_behind or mark.cursor < run.after:
        return Mark(run.until, run.until), [_gap(run.partition, mark.cursor)]
    messages, last = list[bytes](), mark.event
    for event in run.events:
        if event.position > mark.cursor and event.stream.startswith(prefix):
            message = _event(event, last)
            fits = len(message) <= MESSAGE_BYTES_MAX
            messages.append(message if fits else _gap(run.partition, last))
            last = event.position
    return Mark(run.until, last), messages


def at(marks: Sequence[Mark]) -> bytes:
    """Say where a connection is, and since when nothing was for it."""
    return msgspec.json.encode(
        {
            "type": "at",
            "positions": {str(partition): mark.cursor for partition, mark in enumerate(marks)},
            "after": {str(partition): mark.event for partition, mark in enumerate(marks)},
        }
    )


def _event(event: Tailed, after: int) -> bytes:
    return msgspec.json.encode(
        {
            "type": "event",
            "partition": event.partition,
            "position": event.position,
            "after": after,
            "stream": event.stream,
            "event": msgspec.Raw(event.event),
        }
    )


def _gap(partition: int, after: int) -> bytes:
    return msgspec.json.encode({"type": "gap", "partition": partition, "after": after})


def mark_of(member: Member, partition: int) -> Mark:
    return Mark(member.attributes[f"c{partition}"], member.attributes[f"e{partition}"])


def _marks(member: Member) -> list[Mark]:
    return [mark_of(member, partition) for partition in range(PARTITIONS)]


def _attributes(partition: int, mark: Mark) -> dict[str, int]:
    return {f"c{partition}": mark.cursor, f"e{partition}": mark.event}


# --- Sending


OnSubscribe = Callable[[Connection, str, Sequence[int], str], None]
"""Is told a connection, the prefix of names that it wants, the position in each partition behind which it begins, and
the id of its request."""


def nobody(_connection: Connection, _prefix: str, _positions: Sequence[int], _request_id: str) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class Tailing:
    """The tail of one service's log, for everybody who listens; a `Listener` of the `Door`."""

    broadcast: Broadcast
    log: TailLog
    scope: str
    """What a connection's token must carry to listen."""
    on_subscribe: OnSubscribe = nobody
    """Is told first who will listen to what; it may forbid that by raising a `ServiceError`."""

    def __call__(self, connection: Connection, message: Any, *, request_id: str) -> None:
        """
        Do what a client asks for.

        Raises:
            Invalid: `invalid_message`, `not_subscribed`.
            Denied: `scope_missing`.
        """
        connection.principal.require(self.scope)
        try:
            asked = msgspec.convert(message, _Subscribe | _Ping)
        except msgspec.ValidationError as error:
            raise Invalid("invalid_message", f"Send subscribe or ping: {error}.") from error
        if isinstance(asked, _Subscribe):
            member = self._subscribed(connection, asked, request_id)
        else:
            found = self.broadcast.member(connection, TOPIC)
            if found is None:
                raise Invalid("not_subscribed", 'Send {"type":"subscribe"} first.')
            member = found
        self.broadcast.deliver([member], self._beat)

    def push(self, tenant: str, partition: int) -> Delivery:
        """
        Send what a partition has gained to everybody who wants it and has not been sent it.

        May be repeated, late, and run beside itself: where each connection is, is told by its row.
        """
        members = list(self.broadcast.members(tenant, TOPIC))
        until = self.log.positions(tenant)[partition] if members else 0
        behind = [member for member in members if mark_of(member, partition).cursor < until]
        if not behind:
            return Delivery()
        run = self._run(tenant, partition, behind, until)
        return self.broadcast.deliver(behind, lambda member: frames(self._claimed(member, run)[1]))

    def _subscribed(self, connection: Connection, asked: _Subscribe, request_id: str) -> Member:
        attributes: dict[str, Any] = {"prefix": asked.prefix}
        positions = list[int]()
        for partition, head in enumerate(self.log.positions(connection.principal.tenant)):
            wanted = asked.after.get(str(partition), head)  # type: ignore[call-overload]
            begin = min(wanted, head)  # a log cannot be listened to before it is there
            attributes |= _attributes(partition, Mark(begin, begin))
            positions.append(begin)
        self.on_subscribe(connection, asked.prefix, positions, request_id)
        return self.broadcast.subscribe(connection, TOPIC, attributes, request_id=request_id)

    def _beat(self, member: Member) -> Iterator[bytes]:
        tenant, messages = member.connection.principal.tenant, list[bytes]()
        for partition, until in enumerate(self.log.positions(tenant)):
            if mark_of(member, partition).cursor < until:
                run = self._run(tenant, partition, [member], until)
                member, sent = self._claimed(member, run)
                messages += sent
        return frames([*messages, at(_marks(member))])

    def _run(self, tenant: str, partition: int, behind: Sequence[Member], until: int) -> Run:
        """Read what *behind* have to be sent, as far as it is sent at all."""
        after = max(until - BEHIND_MAX, min(mark_of(member, partition).cursor for member in behind))
        prefixes = tuple({member.attributes["prefix"] for member in behind})
        events, held_bytes = deque[Tailed](), 0
        for event in self.log.events(
            tenant, partition, after=after, until=until, wanted=lambda stream: stream.startswith(prefixes)
        ):
            events.append(event)
            held_bytes += len(event.event)
            while held_bytes > RUN_BYTES_MAX:
                oldest = events.popleft()
                held_bytes -= len(oldest.event)
                after = oldest.position
        return Run(partition, after, until, tuple(events))

    def _claimed(self, member: Member, run: Run) -> tuple[Member, list[bytes]]:
        """
        Move a connection's cursor over *run*, and say what is now ours to send.

        Raises:
            Throttled: others move it all the time.
            Uncertain: nobody knows who sends it; the client will notice.
        """
        claim, table = os.urandom(8).hex(), self.broadcast.tables.views
        epoch = member.epoch
        for _ in range(CLAIM_ROUNDS_MAX):
            before = mark_of(member, run.partition)
            step = advanced(before, member.attributes["prefix"], run)
            if step is None:
                return member, []
            mark, messages = step
            move = Change(
                member.key,
                when=(Is(f"c{run.partition}", before.cursor), Is("epoch", epoch)),
                set={**_attributes(run.partition, mark), f"b{run.partition}": claim},
            )
            is_ours, row = update_guarded(
                self.broadcast.database, move, table=table, is_applied=_carries(f"b{run.partition}", claim)
            )
            if row is None:
                return member, []  # forgotten meanwhile
            member = member_of(TOPIC, row)
            if is_ours:
                return member, messages
            if member.epoch != epoch:
                return member, []  # it wants other streams now, which the run was not read for
        raise Throttled("contended", "Others move this connection's cursor all the time.")


def _carries(attribute: str, value: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: row.get(attribute) == value
