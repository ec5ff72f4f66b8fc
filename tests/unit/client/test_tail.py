"""What a tail asks for, and what it does where there is no WebSocket, or one that says nothing."""

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import serve

from holdfast_client import tail as module
from holdfast_client.audit import AuditCalls
from holdfast_client.audit_queries import LogEntry, LogPage, Ticket
from holdfast_client.conversation import Answer, Call
from holdfast_client.errors import Denied, Invalid, NotFound, Unavailable
from holdfast_client.events import RecordedEvent
from holdfast_client.tail import (
    REFUSED_SECONDS,
    SILENCE_SECONDS_MAX,
    AsyncHttpSource,
    AsyncTail,
    HttpSource,
    Open,
    Tail,
)
from holdfast_client.tail_cursor import Cursor, Missing, Refused, TailedEvent
from holdfast_client.tail_sockets import Ended, open_websocket
from tests.awaited_tail import Awaited, AwaitedTail

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def recorded(version: int) -> dict[str, Any]:
    return {
        "id": f"e{version}",
        "source": "urn:x",
        "type": "t",
        "time": "2026-01-01T00:00:00Z",
        "recordedat": "2026-01-01T00:00:00Z",
        "streamversion": version,
        "commitid": "c",
    }


# --- The cursor


def said(**message: Any) -> str:
    return msgspec.json.encode(message).decode()


def event(position: int, after: int, partition: int = 0) -> str:
    return said(type="event", partition=partition, position=position, after=after, stream="s", event=recorded(1))


def cursor(**positions: int) -> Cursor:
    return Cursor({partition: positions.get(f"p{partition}", 0) for partition in range(4)})


def test_an_event_that_follows_is_taken_and_moves_the_cursor():
    at = cursor(p0=3)

    assert at.hear(event(7, after=3)) == TailedEvent(0, 7, "s", RecordedEvent.of(recorded(1)))
    assert at.positions[0] == 7


def test_an_event_that_is_known_is_dropped():
    assert cursor(p0=7).hear(event(7, after=3)) is None


def test_an_event_that_follows_something_unknown_shows_that_something_is_missing():
    at = cursor(p0=3)

    assert at.hear(event(7, after=5)) == Missing((0,))
    assert at.positions[0] == 3


def test_an_event_that_cannot_be_read_is_read_from_the_log():
    at = cursor()

    assert at.hear(said(type="event", partition=0, position=1, after=0, stream="s", event={})) == Missing((0,))
    assert at.positions[0] == 0


def test_a_beat_moves_the_cursor_over_what_is_not_wanted_and_shows_what_is_missing():
    at = cursor(p0=3, p1=3)
    told = said(type="at", positions={"0": 9, "1": 9, "2": 4, "3": 0}, after={"0": 2, "1": 5, "2": 0, "3": 0})

    assert at.hear(told) == Missing((1,))
    assert at.positions == {0: 9, 1: 3, 2: 4, 3: 0}


def test_a_gap_is_missing_whatever_it_says():
    assert cursor(p2=3).hear(said(type="gap", partition=2, after=1)) == Missing((2,))


@pytest.mark.parametrize("line", ["", "nonsense", "{}", said(type="other"), said(type="error", code="not_subscribed")])
def test_what_cannot_be_followed_ends_the_connection(line: str):
    with pytest.raises(Refused):
        cursor().hear(line)


@pytest.mark.parametrize("partition", [4, -1])
def test_a_partition_that_no_log_has_ends_the_connection(partition: int):
    with pytest.raises(Refused):
        cursor().hear(event(1, after=0, partition=partition))


# --- What is asked for over HTTP


class Recording:
    """A transport that remembers what it was asked, and answers from a list."""

    def __init__(self, *answers: Any) -> None:
        self.answers = deque(answers)
        self.asked: list[tuple[str, str]] = []

    def run(self, call: Call[Any]) -> Any:
        self.asked.append((call.request.method, call.request.url))
        return call.read(Answer(200, {}, msgspec.json.encode(self.answers.popleft())))


def test_a_tail_asks_the_audit_trail_by_its_documented_routes():
    entry = {
        "position": 5,
        "events": 2,
        "leaf": 0,
        "stream": "orders/1",
        "first_version": 3,
        "commit_id": "c",
        "leaf_hash": "",
        "recorded_at": "2026-01-01T00:00:00Z",
    }
    transport = Recording(
        {"ticket": "t", "url": "wss://x/live?ticket=t", "expires_in": 60},
        {"partition": 2, "size": 1, "position": 9, "root": "", "recorded_at": None},
        {"partition": 2, "entries": [entry], "next_after": None, "head": {}},
        {"stream": "orders/1", "events": [recorded(3)], "last_version": 4, "next_after": None},
    )
    source = HttpSource(AuditCalls("http://x/audit", {}), transport)  # type: ignore[arg-type]

    assert source.ticket() == Ticket("t", "wss://x/live?ticket=t", 60)
    assert source.head(2) == 9
    assert source.log_page(2, 4).entries[0].stream == "orders/1"
    assert source.events("orders/1", 2, 2)[0].streamversion == 3
    assert transport.asked == [
        ("POST", "http://x/audit/v1/tickets"),
        ("GET", "http://x/audit/v1/log/2/head"),
        ("GET", "http://x/audit/v1/log/2?after=4&limit=100"),
        ("GET", "http://x/audit/v1/streams/orders~1/events?after=2&limit=2"),
    ]


# --- Where there is no WebSocket


class World:
    """A log of one stream, and a clock that moves when somebody waits; the log grows with the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.opened: list[str] = []
        self.tickets: deque[Any] = deque()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def refuse(self, url: str) -> Any:
        self.opened.append(url)
        raise Ended

    def ticket(self) -> Ticket:
        answer = self.tickets.popleft() if self.tickets else Ticket("t", "ws://x/ws?ticket=t", 60)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def head(self, partition: int) -> int:
        return int(self.now) + 1 if partition == 0 else 0

    def log_page(self, partition: int, after: int) -> LogPage:
        held = range(after + 1, self.head(partition) + 1)
        return LogPage(partition, [LogEntry(n, 1, n - 1, "s", n, "c", "", NOW) for n in held])

    def events(self, stream: str, after: int, limit: int) -> list[RecordedEvent]:
        return [RecordedEvent.of(recorded(after + n)) for n in range(1, limit + 1)]

    def tail(self, open_socket: Open | None = None, *, is_from_start: bool = True) -> Tail:
        after = dict.fromkeys(range(4), 0) if is_from_start else None
        return Tail(
            self,
            after=after,
            open_socket=open_socket or self.refuse,
            monotonic=self.monotonic,
            sleep=self.sleep,
        )


def versions(tail: Tail, count: int) -> list[int]:
    return [next(tail).event.streamversion for _ in range(count)]


def test_where_websockets_are_refused_the_log_is_polled_and_they_are_tried_again_later():
    world = World()

    assert versions(world.tail(), 100) == list(range(1, 101))
    assert len(world.opened) == 1 + int(world.now // REFUSED_SECONDS)
    assert world.opened[0] == "ws://x/ws?ticket=t"


@pytest.mark.parametrize("refusal", [NotFound("not_found", ""), Denied("scope_missing", ""), Unavailable("x", "")])
def test_where_there_are_no_tickets_the_log_is_polled(refusal: Exception):
    world = World()
    world.tickets.append(refusal)

    assert versions(world.tail(), 5) == [1, 2, 3, 4, 5]
    assert not world.opened


def test_without_the_package_the_log_is_polled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "websockets", None)
    monkeypatch.setitem(sys.modules, "websockets.sync.client", None)
    monkeypatch.setitem(sys.modules, "websockets.exceptions", None)

    assert versions(World().tail(open_socket=open_websocket), 3) == [1, 2, 3]


def test_what_nobody_listens_at_is_polled():
    world = World()
    world.tickets.append(Ticket("t", "ws://127.0.0.1:9/ws", 60))

    assert versions(world.tail(open_socket=open_websocket), 3) == [1, 2, 3]


def test_it_begins_now_where_no_position_is_given():
    world = World()
    world.now = 41.0

    assert versions(world.tail(is_from_start=False), 1) == [43]


def test_positions_of_another_log_are_refused_and_not_waited_for():
    world = World()
    for kind in (Tail, AwaitedTail):
        tail: Any = kind(
            world, "", {0: 1, 1: 120, 3: 7}, open_socket=world.refuse, monotonic=world.monotonic, sleep=world.sleep
        )
        for _ in range(2):
            with pytest.raises(Invalid, match="position 120 of partition 1, which ends at 0; position 7 of") as raised:
                next(tail)
        tail.close()

        assert raised.value.code == "beyond_the_log"
        assert raised.value.facts == {"heads": {0: 1, 1: 0, 2: 0, 3: 0}}
    with pytest.raises(Invalid, match="beyond_the_log"):
        _ = Tail(world, after={1: 120}).positions
    assert not world.opened


@pytest.mark.parametrize("partition", [4, -1, "0"])
def test_a_position_in_no_partition_is_refused(partition: Any):
    with pytest.raises(Invalid, match="unknown_partition"):
        Tail(World(), after={partition: 0})
    with pytest.raises(Invalid, match="unknown_partition"):
        AsyncTail(Awaited(World()), after={partition: 0})


def test_a_failure_of_a_call_is_raised_and_the_next_event_follows_all_the_same(monkeypatch: pytest.MonkeyPatch):
    world = World()
    tail = world.tail()
    before = versions(tail, 3)
    with monkeypatch.context() as broken:
        broken.setattr(World, "log_page", lambda *_: (_ for _ in ()).throw(Unavailable("down", "")))
        with pytest.raises(Unavailable):
            next(tail)

    assert before + versions(tail, 3) == [1, 2, 3, 4, 5, 6]


@dataclass
class Telling:
    """A connection that says one thing and then ends."""

    text: str | None

    def send(self, text: str) -> None:
        pass

    def receive(self, seconds: float) -> str | None:
        text, self.text = self.text, None
        if text is None:
            raise Ended
        return text

    def close(self) -> None:
        pass


@pytest.mark.parametrize("text", [None, said(type="error", code="scope_missing"), "nonsense"])
def test_a_connection_that_opens_and_is_of_no_use_does_not_keep_the_log_from_being_polled(text: str | None):
    world = World()

    assert versions(world.tail(lambda _url: Telling(text)), 40) == list(range(1, 41))


EXPIRED = said(type="error", code="token_expired")


def test_a_connection_whose_token_has_ended_is_opened_again_with_the_token_there_is_then():
    world, told = World(), [said(type="gap", partition=0, after=0), *[EXPIRED] * 5]
    sockets = [Telling(text) for text in told]

    def opened(url: str) -> Any:
        world.opened.append(url)
        return sockets.pop(0) if sockets else world.refuse(url)

    assert versions(world.tail(opened), 2) == [1, 2]
    assert len(world.opened) > len(told)
    assert world.now < REFUSED_SECONDS


def test_a_tail_whose_token_has_ended_for_good_ends_with_that(monkeypatch: pytest.MonkeyPatch):
    world = World()
    monkeypatch.setattr(World, "log_page", lambda *_: (_ for _ in ()).throw(Denied("token_expired", "")))
    world.tickets += [Ticket("t", "ws://x/ws", 60), Denied("token_expired", "")]

    with pytest.raises(Denied, match="token_expired"):
        next(world.tail(lambda _url: Telling(EXPIRED)))


def test_a_connection_on_which_nothing_is_heard_is_given_up():
    world, pings = World(), list[str]()

    class Silent:
        def send(self, text: str) -> None:
            pings.append(msgspec.json.decode(text)["type"])

        def receive(self, seconds: float) -> str | None:
            world.now += seconds
            return None

        def close(self) -> None:
            pings.append("closed")

    sockets = iter([Silent()])

    def opened(url: str) -> Any:
        return next(sockets, None) or world.refuse(url)

    versions(world.tail(open_socket=opened), 1)

    assert pings == ["subscribe", "ping", "ping", "closed"]
    assert SILENCE_SECONDS_MAX <= world.now <= SILENCE_SECONDS_MAX + module.REOPEN_SECONDS_MAX


# --- Awaited


async def served(say: Callable[[Any], Awaitable[None]], use: Callable[[AsyncTail, World], Awaitable[None]]) -> None:
    """Let somebody *use* a tail of a server that speaks a real WebSocket, and tells each connection what *say* says."""
    world = World()

    async def connection(socket: Any) -> None:
        assert msgspec.json.decode(await socket.recv())["type"] == "subscribe"
        await say(socket)
        await socket.wait_closed()

    async with serve(connection, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        source = Awaited(world)
        world.tickets.extend([Ticket("t", f"ws://127.0.0.1:{port}/ws", 60)] * 9)
        tail = AsyncTail(source, after=dict.fromkeys(range(4), 0))
        try:
            await use(tail, world)
        finally:
            await tail.close()


def test_an_awaited_tail_hears_over_a_real_websocket_and_goes_on_after_it_was_cancelled():
    connections = 0

    async def say(socket: Any) -> None:
        nonlocal connections
        connections += 1
        await socket.send(event(1, after=0) if connections == 1 else event(2, after=1))

    async def use(tail: AsyncTail, world: World) -> None:
        assert (await anext(tail)).position == 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(tail), 0.05)
        assert await tail.positions() == {0: 1, 1: 0, 2: 0, 3: 0}
        assert (await anext(tail)).position == 2

    asyncio.run(served(say, use))

    assert connections == 2


def test_an_awaited_tail_reads_from_the_log_what_the_websocket_does_not_bring():
    async def say(socket: Any) -> None:
        await socket.send(said(type="gap", partition=0, after=0))

    async def use(tail: AsyncTail, world: World) -> None:
        world.now = 2.0
        assert [(await anext(tail)).position for _ in range(3)] == [1, 2, 3]
        await tail.close()
        with pytest.raises(StopAsyncIteration):
            await anext(tail)

    asyncio.run(served(say, use))


def test_an_awaited_tail_asks_the_audit_trail_by_its_documented_routes():
    transport = Recording({"partition": 2, "size": 1, "position": 9, "root": "", "recorded_at": None})
    source = AsyncHttpSource(AuditCalls("http://x/audit", {}), Awaited(transport))  # type: ignore[arg-type]

    assert asyncio.run(source.head(2)) == 9
    assert transport.asked == [("GET", "http://x/audit/v1/log/2/head")]
