"""
Whatever a WebSocket does to its frames, and however many pushers there are, the client hands over the log.

What the server says is made by the kernel, what the client makes of it by the SDK; the wire between them is simulated:
it cuts, loses, repeats, holds back and reorders frames as the plan says, and the log grows meanwhile.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import tailing
from holdfast.broadcast import frames
from holdfast.log.values import PARTITIONS, partition_of
from holdfast.tailing import Mark, Run, Tailed
from holdfast_client.audit_queries import LogEntry, LogPage, Ticket
from holdfast_client.errors import Unavailable
from holdfast_client.events import RecordedEvent
from holdfast_client.tail import Tail
from holdfast_client.tail_sockets import Ended
from tests.awaited_tail import AwaitedTail
from tests.soak import examples

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STREAMS = ("orders/1", "orders/9", "orders/2", "users/1")
"""Two to a partition."""
BEHIND_MAX = tailing.BEHIND_MAX
STEPS_MAX = 4_000


@dataclass
class Server:
    """The log, its HTTP routes, one connection's marks, and its pushers."""

    entries: dict[int, list[LogEntry]] = field(default_factory=lambda: {p: [] for p in range(PARTITIONS)})
    streams: dict[str, list[tuple[int, RecordedEvent]]] = field(default_factory=dict)
    written: dict[int, list[Tailed]] = field(default_factory=lambda: {p: [] for p in range(PARTITIONS)})
    marks: list[Mark] = field(default_factory=lambda: [Mark(0, 0)] * PARTITIONS)
    prefix: str = ""

    def append(self, stream: str, count: int) -> None:
        partition = partition_of(stream)
        held, own = self.written[partition], self.streams.setdefault(stream, [])
        first_version, first_position = len(own) + 1, len(held) + 1
        for version in range(first_version, first_version + count):
            attributes = {
                "id": f"{stream}@{version}",
                "source": "urn:x",
                "type": "t",
                "time": "2026-01-01T00:00:00Z",
                "recordedat": "2026-01-01T00:00:00Z",
                "streamversion": version,
                "commitid": "c",
            }
            own.append((version, RecordedEvent.of(attributes)))
            held.append(Tailed(partition, len(held) + 1, stream, msgspec.json.encode(attributes)))
        self.entries[partition].append(
            LogEntry(first_position, count, len(self.entries[partition]), stream, first_version, "c", "", NOW)
        )

    def wanted(self, prefix: str, after: dict[int, int]) -> dict[int, list[tuple[int, str]]]:
        """What somebody who asks for this shall be handed over, by partition: positions, and ids of events."""
        return {
            partition: [
                (each.position, msgspec.json.decode(each.event)["id"])
                for each in held[after.get(partition, 0) :]
                if each.stream.startswith(prefix)
            ]
            for partition, held in self.written.items()
        }

    # HTTP

    def ticket(self) -> Ticket:
        return Ticket("t", "ws://x", 60)

    def head(self, partition: int) -> int:
        return len(self.written[partition])

    def log_page(self, partition: int, after: int) -> LogPage:
        found = [entry for entry in self.entries[partition] if entry.position + entry.events - 1 > after]
        page = found[:2]
        more = len(found) > len(page)
        return LogPage(partition, page, page[-1].position + page[-1].events - 1 if more else None)

    def events(self, stream: str, after: int, limit: int) -> list[RecordedEvent]:
        # A page may end early, as it does at 4 MB.
        return [event for version, event in self.streams[stream] if version > after][: min(limit, 3)]

    # WebSocket

    def hear(self, text: str) -> list[bytes]:
        message = msgspec.json.decode(text)
        if message["type"] == "subscribe":
            self.prefix = message["prefix"]
            begin = [min(message["after"].get(str(p), 0), self.head(p)) for p in range(PARTITIONS)]
            self.marks = [Mark(each, each) for each in begin]
        made = [each for partition in range(PARTITIONS) for each in self.push(partition, 0)]
        return [*made, *frames([tailing.at(self.marks)])]

    def push(self, partition: int, stale_by: int) -> list[bytes]:
        """Push as one of several pushers would, which may have looked a while ago and read no further back."""
        until = max(0, self.head(partition) - stale_by)
        after = max(0, min(self.marks[partition].cursor, until), until - 9 * stale_by if stale_by else 0)
        events = tuple(each for each in self.written[partition][after:until] if each.stream.startswith(self.prefix))
        step = tailing.advanced(self.marks[partition], self.prefix, Run(partition, after, until, events))
        if step is None:
            return []
        self.marks[partition], messages = step
        return list(frames(messages))


@dataclass
class Wire:
    """One WebSocket after another, as faulty as the plan says; the world goes on while the client waits."""

    server: Server
    plan: Iterator[tuple[str, int]]
    now: float = 0.0
    steps: int = 0
    is_quiet: bool = False
    """The plan is over: nothing goes wrong any more, and nothing is appended."""
    waiting: list[bytes] = field(default_factory=list)
    opened: int = 0

    def open(self, _url: str) -> "Wire":
        self.opened += 1
        if not self.is_quiet and self.opened % 4 == 3:
            raise Ended
        self.waiting = []
        return self

    def close(self) -> None:
        self.waiting = []

    def send(self, text: str) -> None:
        self.waiting += self.server.hear(text)

    def receive(self, seconds: float) -> str | None:
        if self._go_on() == "cut":
            raise Ended
        if self.waiting:
            return self.waiting.pop(0).decode()
        self.now += seconds
        return None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self._go_on()
        self.now += seconds

    def _go_on(self) -> str:
        """Let the world go on until the plan says that the client hears of it; frames pile up meanwhile."""
        self.steps += 1
        assert self.steps < STEPS_MAX, "the client goes round in circles"
        for action, number in self.plan:
            match action:
                case "append":
                    self.server.append(STREAMS[number % len(STREAMS)], 1 + number % 7)
                case "push":
                    self.waiting += self.server.push(partition_of(STREAMS[number % len(STREAMS)]), max(0, number - 30))
                case "lose":
                    del self.waiting[number % 3 : number % 3 + 2]
                case "repeat":
                    self.waiting = self.waiting[: number + 1] + self.waiting
                case "reorder":
                    self.waiting = self.waiting[::-1]
                case "refuse":
                    raise Unavailable("store_unavailable", "An HTTP call that failed.")
                case _:
                    return action
        self.is_quiet = True
        return "wait"


actions = st.lists(
    st.tuples(
        st.sampled_from(
            ["append"] * 4 + ["push"] * 6 + ["lose"] * 2 + ["wait"] * 4 + ["cut", "repeat", "reorder", "refuse"]
        ),
        st.integers(0, 40),
    ),
    min_size=30,
    max_size=150,
)


@settings(max_examples=examples(80, soak=5_000), deadline=None)
@given(
    actions,
    st.sampled_from(["", "orders/", "users/1", "nothing/"]),
    st.integers(0, 6),
    st.booleans(),
    st.sampled_from([3, 20, 1_000]),
    st.sampled_from([Tail, AwaitedTail]),
)
def test_the_client_hands_over_the_log_without_loss_or_repeats(plan, prefix, before, from_the_start, behind_max, kind):
    server = Server()
    for number in range(before):
        server.append(STREAMS[number % len(STREAMS)], number + 1)
    after = {p: 0 if from_the_start else server.head(p) for p in range(PARTITIONS)}
    wire = Wire(server, iter(plan))
    tail = kind(server, prefix, after, open_socket=wire.open, monotonic=wire.monotonic, sleep=wire.sleep)
    tailing.BEHIND_MAX = behind_max  # type: ignore[misc]
    try:
        handed = handed_over(tail, wire, server, prefix, after)
    finally:
        tailing.BEHIND_MAX = BEHIND_MAX  # type: ignore[misc]
        tail.close()

    assert handed == server.wanted(prefix, after)


def handed_over(
    tail: Tail | AwaitedTail, wire: Wire, server: Server, prefix: str, after: dict[int, int]
) -> dict[int, list[tuple[int, str]]]:
    """Follow until the plan is over and every event that is wanted has come, then through one more silence."""
    handed: dict[int, list[tuple[int, str]]] = {partition: [] for partition in range(PARTITIONS)}

    class Silent(Exception):
        pass

    receive = wire.receive

    def until_silent(seconds: float) -> str | None:
        text = receive(seconds)
        if text is None and wire.is_quiet and all(tail.positions[p] >= server.head(p) for p in range(PARTITIONS)):
            raise Silent
        return text

    wire.receive = until_silent  # type: ignore[method-assign]
    while True:
        try:
            for each in tail:
                handed[each.partition].append((each.position, each.event.id))
        except Unavailable:
            continue
        except Silent:
            return handed


@settings(max_examples=examples(20, soak=1_000), deadline=None)
@given(st.lists(st.integers(1, 30), max_size=8), st.integers(0, 200), st.sampled_from([Tail, AwaitedTail]))
def test_a_tail_that_is_stopped_anywhere_goes_on_from_its_positions(commits, stop_after, kind):
    server = Server()
    for number, count in enumerate(commits):
        server.append(STREAMS[number % len(STREAMS)], count)
    total, handed = sum(commits), list[str]()
    positions = dict.fromkeys(range(PARTITIONS), 0)
    while len(handed) < total:
        wire = Wire(server, iter(()))
        tail = kind(server, "", positions, open_socket=wire.open, monotonic=wire.monotonic, sleep=wire.sleep)
        for _ in range(min(stop_after + 1, total - len(handed))):
            handed.append(next(tail).event.id)
        positions = tail.positions
        tail.close()

    assert sorted(handed) == sorted({event.id for own in server.streams.values() for _, event in own})
