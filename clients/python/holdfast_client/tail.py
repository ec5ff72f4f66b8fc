"""
The live tail: every event of the log from a position on, each once and in its partition's order, as it comes.

Events come over a WebSocket. What is lost on the way, as `tail_cursor` notices, is read from the log over HTTP, and
where no WebSocket can be had, the log is polled.

What a tail does is written once: `_Following` says what to ask for next, and `Tail` and `AsyncTail` ask, the one
blocking and the other awaiting (the manner of `conversation` and `transport`).
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import msgspec

from holdfast_client.audit_queries import PARTITIONS, LogEntry, LogPage, Ticket
from holdfast_client.errors import HoldfastError, Invalid, Unavailable
from holdfast_client.events import RecordedEvent
from holdfast_client.tail_cursor import Cursor, Missing, Refused, TailedEvent, TokenEnded
from holdfast_client.tail_sockets import Ended, Socket, open_async_websocket, open_websocket
from holdfast_client.transport import AsyncTransport, Transport

if TYPE_CHECKING:
    from holdfast_client.audit import AuditCalls

T = TypeVar("T")

PING_SECONDS: Final = 10.0
"""How often the server is asked where we are; its answer shows what was lost last."""
SILENCE_SECONDS_MAX: Final = 30.0
"""A connection that answers three pings with nothing is dead."""
POLL_SECONDS: Final = 2.0
"""How often the log is asked for more while there is no WebSocket."""
REFUSED_SECONDS: Final = 30.0
"""How long the log is polled before a WebSocket is tried again."""
REOPEN_SECONDS_MAX: Final = 1.0
"""A connection that ended is opened again after a random part of this, so that not all clients come at once."""
SILENT_MAX: Final = 3
"""Connections in a row on which nothing is heard, after which they count as refused."""
LOG_PAGE_ENTRIES: Final = 100
"""Commits asked for with one page of the log."""


Open = Callable[[str], Socket]
"""Opens a WebSocket at a URL, or raises `Ended`."""


class Source(Protocol):
    """What a tail asks for over HTTP; errors are `HoldfastError`s."""

    def ticket(self) -> Ticket: ...
    def head(self, partition: int) -> int:
        """Say how far a partition has come."""

    def log_page(self, partition: int, after: int) -> LogPage: ...
    def events(self, stream: str, after: int, limit: int) -> list[RecordedEvent]:
        """Read the next events of a stream, at most *limit*."""


@dataclass(frozen=True)
class HttpSource:
    """The audit trail."""

    calls: "AuditCalls"
    transport: Transport

    def ticket(self) -> Ticket:
        return self.transport.run(self.calls.ticket())

    def head(self, partition: int) -> int:
        return self.transport.run(self.calls.head(partition)).position

    def log_page(self, partition: int, after: int) -> LogPage:
        return self.transport.run(self.calls.log(partition, after, LOG_PAGE_ENTRIES))

    def events(self, stream: str, after: int, limit: int) -> list[RecordedEvent]:
        return self.transport.run(self.calls.page(stream, after, limit)).events


@dataclass(frozen=True)
class AsyncHttpSource:
    """The audit trail, awaited."""

    calls: "AuditCalls"
    transport: AsyncTransport

    async def ticket(self) -> Ticket:
        return await self.transport.run(self.calls.ticket())

    async def head(self, partition: int) -> int:
        return (await self.transport.run(self.calls.head(partition))).position

    async def log_page(self, partition: int, after: int) -> LogPage:
        return await self.transport.run(self.calls.log(partition, after, LOG_PAGE_ENTRIES))

    async def events(self, stream: str, after: int, limit: int) -> list[RecordedEvent]:
        return (await self.transport.run(self.calls.page(stream, after, limit))).events


@dataclass(frozen=True)
class _Ask:
    """Something to be called, and where it is awaited to be awaited; what comes of it is sent back, or thrown."""

    call: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class _Done(Generic[T]):
    """The steps are over."""

    value: T


_Steps = Generator[TailedEvent | _Ask, Any, T]


def _ask(call: Callable[..., Any], *arguments: Any) -> _Steps[Any]:
    return (yield _Ask(call, arguments))


def _taken(steps: _Steps[T], answer: Any = None, error: Exception | None = None) -> TailedEvent | _Ask | _Done[T]:
    """Take the next step, with what came of the one before."""
    try:
        return steps.throw(error) if error else steps.send(answer)
    except StopIteration as end:
        return _Done(end.value)


class _Following:
    """What a tail does, step by step, whoever takes the steps: an event to hand over, or something to ask for."""

    def __init__(
        self,
        source: Any,
        prefix: str,
        after: Mapping[int, int] | None,
        *,
        open_socket: Callable[[str], Any],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Any],
    ) -> None:
        self._source = source
        self._prefix = prefix
        self._given = _checked(after or {})
        self._cursor: Cursor | None = None
        self._socket: Any = None
        """The open connection."""
        self._open = open_socket
        self._monotonic = monotonic
        self._sleep = sleep
        self._silent = 0
        """Connections in a row that ended before anything was heard on them."""

    def begun(self) -> _Steps[Cursor]:
        """
        Begin at the positions that were given; where a partition has none, at the end of the log as it is now.

        Raises:
            Invalid: `beyond_the_log`; what comes next there would be taken for what is known already.
        """
        if self._cursor is None:
            heads = {}
            for partition in range(PARTITIONS):
                heads[partition] = yield from _ask(self._source.head, partition)
            positions = heads | self._given
            beyond = {partition: at for partition, at in self._given.items() if at > heads[partition]}
            if beyond:
                raise _beyond_the_log(beyond, heads)
            self._cursor = Cursor(positions)
        return self._cursor

    @property
    def positions(self) -> dict[int, int]:
        return dict(self._cursor.positions if self._cursor else self._given)

    def let_go(self) -> _Steps[None]:
        """Close what is open."""
        socket, self._socket = self._socket, None
        if socket is not None:
            yield from _ask(socket.close)

    def follow(self) -> _Steps[None]:
        """Go on for ever; a step that fails ends it, and following again goes on from the cursor."""
        cursor = yield from self.begun()
        while True:
            try:
                yield from self._connect(cursor)
            except (Ended, HoldfastError):
                yield from self.let_go()
                yield from self._poll(cursor)
                continue
            self._silent += 1
            pause = 0.0
            try:
                yield from self._listen(cursor)
            except (Ended, TokenEnded):
                # The next ticket is asked for with the token as it is then; if that has ended too, HTTP calls say so.
                pause = random.uniform(0, REOPEN_SECONDS_MAX)  # noqa: S311 - spreads load, guards nothing
            except Refused:
                self._silent = SILENT_MAX
            yield from self.let_go()
            if pause:
                yield from _ask(self._sleep, pause)
            if self._silent >= SILENT_MAX:
                self._silent = 0
                yield from self._poll(cursor)

    def _connect(self, cursor: Cursor) -> _Steps[None]:
        """Open a connection, and say where to go on."""
        issued: Ticket = yield from _ask(self._source.ticket)
        self._socket = yield from _ask(self._open, issued.url)
        after = {str(partition): position for partition, position in cursor.positions.items()}
        yield from self._say({"type": "subscribe", "prefix": self._prefix, "after": after})

    def _say(self, message: Mapping[str, Any]) -> _Steps[None]:
        yield from _ask(self._socket.send, msgspec.json.encode(message).decode())

    def _listen(self, cursor: Cursor) -> _Steps[None]:
        heard_at = pinged_at = self._monotonic()
        while True:
            wait = pinged_at + PING_SECONDS - self._monotonic()
            if wait <= 0:
                yield from self._say({"type": "ping"})
                pinged_at = self._monotonic()
                continue
            frame: str | None = yield from _ask(self._socket.receive, wait)
            if frame is not None:
                heard_at = self._monotonic()
                self._silent = 0
                yield from self._hear(cursor, frame)
            elif self._monotonic() - heard_at >= SILENCE_SECONDS_MAX:
                raise Ended

    def _hear(self, cursor: Cursor, frame: str) -> _Steps[None]:
        """Take the messages of one frame, a line each."""
        for line in frame.split("\n"):
            match cursor.hear(line):
                case TailedEvent() as event:
                    yield event
                case Missing(partitions):
                    for partition in partitions:
                        yield from self._refill(cursor, partition)

    def _poll(self, cursor: Cursor) -> _Steps[None]:
        """Read the log again and again, for as long as a WebSocket need not be tried."""
        ends_at = self._monotonic() + REFUSED_SECONDS
        while self._monotonic() < ends_at:
            for partition in range(PARTITIONS):
                yield from self._refill(cursor, partition)
            yield from _ask(self._sleep, POLL_SECONDS)

    def _refill(self, cursor: Cursor, partition: int) -> _Steps[None]:
        """Read one partition of the log from the cursor to its end."""
        at: int | None = cursor.positions[partition]
        while at is not None:
            page: LogPage = yield from _ask(self._source.log_page, partition, at)
            for entry in page.entries:
                if entry.stream.startswith(self._prefix):
                    yield from self._commit(cursor, partition, entry)
                cursor.moved(partition, entry.position + entry.events - 1)
            at = page.next_after

    def _commit(self, cursor: Cursor, partition: int, entry: LogEntry) -> _Steps[None]:
        """Read those events of a commit that lie beyond the cursor."""
        known = max(0, cursor.positions[partition] - entry.position + 1)
        after, last = entry.first_version - 1 + known, entry.first_version + entry.events - 1
        while after < last:
            events: list[RecordedEvent] = yield from _ask(self._source.events, entry.stream, after, last - after)
            if not events:
                raise Unavailable("stream_behind_log", f"The log names events of {entry.stream} that it does not have.")
            for event in events:
                after = event.streamversion
                position = entry.position + after - entry.first_version
                if cursor.moved(partition, position):
                    yield TailedEvent(partition, position, entry.stream, event)


def _checked(after: Mapping[int, int]) -> dict[int, int]:
    """
    Refuse positions in what is no partition: nobody would look at them.

    Raises:
        Invalid: `unknown_partition`.
    """
    unknown = [partition for partition in after if partition not in range(PARTITIONS)]
    if unknown:
        raise Invalid(
            "unknown_partition",
            f"{unknown[0]!r} is no partition of the log: they are the numbers 0 to {PARTITIONS - 1}.",
        )
    return dict(after)


def _beyond_the_log(beyond: Mapping[int, int], heads: Mapping[int, int]) -> Invalid:
    told = "; ".join(
        f"position {at} of partition {partition}, which ends at {heads[partition]}" for partition, at in beyond.items()
    )
    return Invalid(
        "beyond_the_log",
        f"The log does not reach {told}. So these positions are of another log, such as the one before a reset. Begin "
        "at 0 in every partition for all that this one holds, or give no positions to begin now.",
        facts={"heads": dict(heads)},
    )


class Tail:
    """
    An iterator over the events of streams whose names begin with a prefix; it ends when it is closed.

    Keep `positions` with what you have made of the events, and begin there the next time: nothing is lost or repeated
    in between. Positions that the log does not reach are of another log, and `Invalid`. An error of an HTTP call is
    raised, and asking for the next event goes on from where it happened; what a WebSocket does wrong is never raised.
    The token needs the scope `audit:read` and no other.
    """

    def __init__(
        self,
        source: Source,
        prefix: str = "",
        after: Mapping[int, int] | None = None,
        *,
        open_socket: Open | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._following = _Following(
            source, prefix, after, open_socket=open_socket or open_websocket, monotonic=monotonic, sleep=sleep
        )
        self._steps = self._following.follow()

    def __iter__(self) -> Iterator[TailedEvent]:
        return self

    def __next__(self) -> TailedEvent:
        try:
            step = self._run(self._steps)
        except BaseException:
            # Steps that were broken off are over; whoever asks again goes on from the cursor.
            self._run(self._following.let_go())
            self._steps = self._following.follow()
            raise
        if isinstance(step, _Done):
            raise StopIteration
        return step

    @property
    def positions(self) -> dict[int, int]:
        """By partition, the position up to which everything was handed over; where to begin the next time."""
        self._run(self._following.begun())
        return self._following.positions

    def close(self) -> None:
        """End it; what it waits for is let go."""
        self._steps.close()
        self._run(self._following.let_go())

    def _run(self, steps: _Steps[Any]) -> TailedEvent | _Done[Any]:
        """Do what the steps ask for until there is an event to hand over, or they are over."""
        step = _taken(steps)
        while isinstance(step, _Ask):
            try:
                answer = step.call(*step.arguments)
            except Exception as error:  # noqa: BLE001 - what it means is for the steps to say
                step = _taken(steps, error=error)
            else:
                step = _taken(steps, answer)
        return step


class AsyncTail:
    """The same, awaited (`async for`); every promise is that of `Tail`, and a step that is cancelled is made again."""

    def __init__(
        self,
        source: Any,
        prefix: str = "",
        after: Mapping[int, int] | None = None,
        *,
        open_socket: Callable[[str], Any] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._following = _Following(
            source, prefix, after, open_socket=open_socket or open_async_websocket, monotonic=monotonic, sleep=sleep
        )
        self._steps = self._following.follow()

    def __aiter__(self) -> AsyncIterator[TailedEvent]:
        return self

    async def __anext__(self) -> TailedEvent:
        try:
            step = await self._run(self._steps)
        except BaseException:
            await self._run(self._following.let_go())
            self._steps = self._following.follow()
            raise
        if isinstance(step, _Done):
            raise StopAsyncIteration
        return step

    async def positions(self) -> dict[int, int]:
        await self._run(self._following.begun())
        return self._following.positions

    async def close(self) -> None:
        self._steps.close()
        await self._run(self._following.let_go())

    async def _run(self, steps: _Steps[Any]) -> TailedEvent | _Done[Any]:
        step = _taken(steps)
        while isinstance(step, _Ask):
            try:
                answer = await step.call(*step.arguments)
            except Exception as error:  # noqa: BLE001 - what it means is for the steps to say
                step = _taken(steps, error=error)
            else:
                step = _taken(steps, answer)
        return step
