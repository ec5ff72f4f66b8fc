"""
The live tail: every event of the log from a position on, each once and in its partition's order, as it comes.

Events come over a WebSocket. What is lost on the way, as `tail_cursor` notices, is read from the log over HTTP, and
where no WebSocket can be had, the log is polled.
"""

import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, urlsplit

import msgspec

from holdfast_client.audit_queries import PARTITIONS, LogEntry, LogPage, Ticket
from holdfast_client.errors import HoldfastError, Unavailable
from holdfast_client.events import RecordedEvent
from holdfast_client.tail_cursor import Cursor, Missing, Refused, Taken, TokenEnded
from holdfast_client.transport import Transport

if TYPE_CHECKING:
    from holdfast_client.audit import AuditCalls

PING_SECONDS: Final = 10.0
"""How often the server is asked where we are; its answer shows what was lost last."""
SILENCE_SECONDS_MAX: Final = 30.0
"""A connection that answers three pings with nothing is dead."""
OPEN_SECONDS_MAX: Final = 10.0
CLOSE_SECONDS_MAX: Final = 1.0
MESSAGE_BYTES_MAX: Final = 1024 * 1024
"""Far over API Gateway's 128 KB: only a bound."""
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


class TailedEvent(msgspec.Struct, frozen=True):
    """One event, and where it stands in the log."""

    partition: int
    position: int
    stream: str
    event: RecordedEvent


class Ended(Exception):
    """The connection has ended, whyever."""


class Socket(Protocol):
    """An open WebSocket."""

    def send(self, text: str) -> None:
        """
        Send one message.

        Raises:
            Ended: it cannot be sent.
        """

    def receive(self, seconds: float) -> str | None:
        """
        Wait for a message; None if none came in time.

        Raises:
            Ended: none will.
        """

    def close(self) -> None: ...


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


class Tail:
    """
    An iterator over the events of streams whose names begin with a prefix; it ends when it is closed.

    Keep `positions` with what you have made of the events, and begin there the next time: nothing is lost or repeated
    in between. An error of an HTTP call is raised, and asking for the next event goes on from where it happened; what a
    WebSocket does wrong is never raised.
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
        self._source = source
        self._prefix = prefix
        self._given = dict(after or {})
        self._cursor: Cursor | None = None
        self._open = open_socket or open_websocket
        self._monotonic = monotonic
        self._sleep = sleep
        self._events = self._follow()
        self._silent = 0
        """Connections in a row that ended before anything was heard on them."""

    def __iter__(self) -> Iterator[TailedEvent]:
        return self

    def __next__(self) -> TailedEvent:
        try:
            return next(self._events)
        except HoldfastError:
            # A generator that has raised is over; whoever asks again goes on from the cursor.
            self._events = self._follow()
            raise

    @property
    def positions(self) -> dict[int, int]:
        """By partition, the position up to which everything was handed over; where to begin the next time."""
        return dict(self._begun().positions)

    def close(self) -> None:
        """End it; what it waits for is let go."""
        self._events.close()

    def _begun(self) -> Cursor:
        """Begin, where a partition has no position, at the end of the log as it is now."""
        if self._cursor is None:
            missing = [partition for partition in range(PARTITIONS) if partition not in self._given]
            now = {partition: self._source.head(partition) for partition in missing}
            self._cursor = Cursor({partition: (self._given | now)[partition] for partition in range(PARTITIONS)})
        return self._cursor

    def _follow(self) -> Generator[TailedEvent, None, None]:
        self._begun()
        while True:
            try:
                socket = self._opened()
            except (Ended, HoldfastError):
                yield from self._poll()
                continue
            self._silent += 1
            try:
                with closing(socket):
                    yield from self._listen(socket)
            except (Ended, TokenEnded):
                # The next ticket is asked for with the token as it is then; if that has ended too, HTTP calls say so.
                self._sleep(random.uniform(0, REOPEN_SECONDS_MAX))  # noqa: S311 - spreads load, guards nothing
            except Refused:
                self._silent = SILENT_MAX
            if self._silent >= SILENT_MAX:
                self._silent = 0
                yield from self._poll()

    def _opened(self) -> Socket:
        """Open a connection, and say where to go on."""
        issued = self._source.ticket()
        separator = "&" if urlsplit(issued.url).query else "?"
        has_ticket = "ticket=" in issued.url
        url = issued.url if has_ticket else f"{issued.url}{separator}ticket={quote(issued.ticket, safe='')}"
        socket = self._open(url)
        after = {str(partition): position for partition, position in self._begun().positions.items()}
        try:
            socket.send(_text({"type": "subscribe", "prefix": self._prefix, "after": after}))
        except Ended:
            socket.close()
            raise
        return socket

    def _listen(self, socket: Socket) -> Iterator[TailedEvent]:
        heard_at = pinged_at = self._monotonic()
        while True:
            wait = pinged_at + PING_SECONDS - self._monotonic()
            if wait <= 0:
                socket.send(_text({"type": "ping"}))
                pinged_at = self._monotonic()
                continue
            frame = socket.receive(wait)
            if frame is not None:
                heard_at = self._monotonic()
                self._silent = 0
                yield from self._heard(frame)
            elif self._monotonic() - heard_at >= SILENCE_SECONDS_MAX:
                raise Ended

    def _heard(self, frame: str) -> Iterator[TailedEvent]:
        """Take the messages of one frame, a line each."""
        for line in frame.split("\n"):
            match self._begun().hear(line):
                case Taken(partition, position, stream, event):
                    yield TailedEvent(partition, position, stream, event)
                case Missing(partitions):
                    for partition in partitions:
                        yield from self._refill(partition)

    def _poll(self) -> Iterator[TailedEvent]:
        """Read the log again and again, for as long as a WebSocket need not be tried."""
        ends_at = self._monotonic() + REFUSED_SECONDS
        while self._monotonic() < ends_at:
            for partition in range(PARTITIONS):
                yield from self._refill(partition)
            self._sleep(POLL_SECONDS)

    def _refill(self, partition: int) -> Iterator[TailedEvent]:
        """Read one partition of the log from the cursor to its end."""
        cursor = self._begun()
        at: int | None = cursor.positions[partition]
        while at is not None:
            page = self._source.log_page(partition, at)
            for entry in page.entries:
                if entry.stream.startswith(self._prefix):
                    yield from self._commit(partition, entry)
                cursor.moved(partition, entry.position + entry.events - 1)
            at = page.next_after

    def _commit(self, partition: int, entry: LogEntry) -> Iterator[TailedEvent]:
        """Read those events of a commit that lie beyond the cursor."""
        cursor = self._begun()
        known = max(0, cursor.positions[partition] - entry.position + 1)
        after, last = entry.first_version - 1 + known, entry.first_version + entry.events - 1
        while after < last:
            events = self._source.events(entry.stream, after, last - after)
            if not events:
                raise Unavailable("stream_behind_log", f"The log names events of {entry.stream} that it does not have.")
            for event in events:
                after = event.streamversion
                position = entry.position + after - entry.first_version
                if cursor.moved(partition, position):
                    yield TailedEvent(partition, position, entry.stream, event)


def _text(message: Mapping[str, Any]) -> str:
    return msgspec.json.encode(message).decode()


def open_websocket(url: str) -> Socket:
    """
    Open a WebSocket with the `websockets` package.

    Raises:
        Ended: it is refused, cannot be reached, or the package is not installed.
    """
    try:
        from websockets.exceptions import WebSocketException  # noqa: PLC0415 - only a tail needs it
        from websockets.sync.client import connect  # noqa: PLC0415
    except ImportError as error:
        raise Ended("The package websockets is not installed.") from error
    # A proxy from the environment is for other machines.
    is_local = urlsplit(url).hostname in {"127.0.0.1", "::1", "localhost"}
    closing_all = ExitStack()
    try:
        connection = closing_all.enter_context(
            connect(
                url,
                open_timeout=OPEN_SECONDS_MAX,
                close_timeout=CLOSE_SECONDS_MAX,
                # API Gateway answers our own pings; the protocol's would only cost.
                ping_interval=None,
                max_size=MESSAGE_BYTES_MAX,
                proxy=None if is_local else True,
            )
        )
    except (WebSocketException, OSError, ValueError) as error:
        raise Ended(f"{type(error).__name__}: {error}") from error
    return _Websocket(connection, closing_all.close)


@dataclass(frozen=True)
class _Websocket:
    """The adapter of `websockets`' blocking connection."""

    connection: Any
    close_all: Callable[[], None]

    def send(self, text: str) -> None:
        self._attempt(lambda: self.connection.send(text))

    def receive(self, seconds: float) -> str | None:
        try:
            received: str | None = self._attempt(lambda: self.connection.recv(seconds, decode=True))
        except TimeoutError:
            return None
        return received

    def close(self) -> None:
        self.close_all()

    @staticmethod
    def _attempt(call: Callable[[], Any]) -> Any:
        from websockets.exceptions import WebSocketException  # noqa: PLC0415

        try:
            return call()
        except TimeoutError:
            raise
        except (WebSocketException, OSError, UnicodeDecodeError) as error:
            raise Ended(f"{type(error).__name__}: {error}") from error
