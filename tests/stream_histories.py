"""
Clients at one stream at the same time, under faults, and the plainest stream there is to judge what they were told.

Each client has a clock, a transport and faults of its own. A client appends where it last saw the stream end, wherever
it ends, or where it does not; repeats what was asked before, by anybody; and reads.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final

import msgspec

from holdfast.clock import ManualClock
from holdfast.dynamodb import Database, DynamoEventStores, Transport
from holdfast.errors import ServiceError
from holdfast.retry import Budget
from holdfast.streams import ANY, EventStore, Expected, RawCodec, StaleStream
from holdfast.testing import FAULTS, FaultyTransport, Operation, Recorder, at_random, linearize
from tests.dynamo_tables import TestTables
from tests.promises import event

STREAM = "s/1"
CLIENTS: Final = 4
OPERATIONS_EACH: Final = 6
FAULTY_SHARES: Final = (0.05, 0.2, 0.4)
"""Of the attempts: where much fails, less happens at the same time."""
PATIENCE: Final = Budget(attempts_max=2, seconds_max=5.0)
"""Of each call: so little that many an outcome stays unknown."""


class Append(msgspec.Struct, frozen=True):
    expected: int | str
    count: int
    commit_id: str


class Read(msgspec.Struct, frozen=True):
    pass


Asked = Append | Read


class Placed(msgspec.Struct, frozen=True):
    """A commit, as the model keeps it, and as an answer says where it stands."""

    commit_id: str
    first_version: int
    version: int


class Stale(msgspec.Struct, frozen=True):
    last_version: int
    winner: Placed | None


Stream = tuple[Placed, ...]
Result = Placed | Stale | Stream
EMPTY: Stream = ()


def step(stream: Stream, asked: Asked) -> Iterator[tuple[Stream, Result]]:
    """What a stream promises, where nothing happens at the same time."""
    if isinstance(asked, Read):
        yield stream, stream
        return
    end = stream[-1].version if stream else 0
    standing = [commit for commit in stream if commit.commit_id == asked.commit_id]
    if standing:
        yield stream, standing[0]
    elif asked.expected in (end, ANY):
        commit = Placed(asked.commit_id, end + 1, end + asked.count)
        yield (*stream, commit), commit
    else:
        winner = next((commit for commit in stream if commit.first_version - 1 == asked.expected), None)
        yield stream, Stale(end, winner)


@dataclass
class Client:
    """One of them, from its own seed."""

    name: str
    noise: random.Random
    transport: FaultyTransport
    stores: DynamoEventStores[bytes]
    tenant: str
    recorder: Recorder[Asked, Result]
    asked: list[tuple[Append, Expected]]
    """What all of them have appended so far, with what was expected as it was said."""
    ends: list[Expected] = field(default_factory=lambda: [0])
    """Where this one saw the stream end."""

    def run(self) -> None:
        for number in range(OPERATIONS_EACH):
            with suppress(ServiceError):
                self.ask(number)

    def ask(self, number: int) -> None:
        match self.noise.choice(["end"] * 4 + ["any", "forged", "again", "again", "read", "read"]):
            case "end":
                self.append(number, self.ends[-1])
            case "any":
                self.append(number, ANY)
            case "forged":
                self.append(number, max(0, version_of(self.ends[-1]) + self.noise.choice([-2, -1, 1, 2])))
            case "again" if self.asked:
                self.ask_for(*self.noise.choice(self.asked))
            case _:
                self.read()

    def append(self, number: int, expected: Expected) -> None:
        said = ANY if expected == ANY else version_of(expected)
        append = Append(said, self.noise.randint(1, 2), f"{self.name}-{number}")
        self.asked.append((append, expected))
        self.ask_for(append, expected)

    def ask_for(self, append: Append, expected: Expected) -> None:
        self.recorder.ask(self.name, append, partial(self._append, append, expected))

    def read(self) -> None:
        self.recorder.ask(self.name, Read(), self._read)

    def _append(self, append: Append, expected: Expected) -> Result:
        events = [event(number, commit=append.commit_id) for number in range(append.count)]
        try:
            answer = self.store.append(STREAM, expected, events, commit_id=append.commit_id)
        except StaleStream as stale:
            self.ends.append(stale.last_version)
            return Stale(stale.last_version, placed(stale.winner) if stale.winner else None)
        self.ends.append(answer.boundary or answer.version)
        return placed(answer)

    def _read(self) -> Result:
        commits = list(self.store.read(STREAM))
        if commits:
            self.ends.append(self.noise.choice([commits[-1].boundary, commits[-1].version]))
        return tuple(map(placed, commits))

    @property
    def store(self) -> EventStore[bytes]:
        return self.stores.of(self.tenant, self.name)


def version_of(expected: Any) -> int:
    return getattr(expected, "version", expected)


def placed(found: Any) -> Placed:
    return Placed(found.commit_id, found.first_version, found.version)


@dataclass
class History:
    """Four clients at a stream of *database*; *between* is put between them and it."""

    database: TestTables
    tenant: str
    seed: int
    between: Callable[[Transport], Transport] = lambda transport: transport
    recorder: Recorder[Asked, Result] = field(default_factory=Recorder)
    injected: Counter[str] = field(default_factory=Counter)

    def run(self, side_by_side: Callable[[Sequence[Callable[[], object]]], object]) -> None:
        """Let all of them ask, then let what was delayed arrive, and read what stands there in the end."""
        asked: list[tuple[Append, Expected]] = []
        clients = [self._client(f"c{number}", asked) for number in range(CLIENTS)]
        side_by_side([client.run for client in clients])
        for client in clients:
            client.transport.arrive()
            self.injected += client.transport.injected
        reader = self._client("reader", asked, share=0.0)
        reader.read()

    def order(self) -> Sequence[Operation[Asked, Result]]:
        """Find the order in which all of it could have happened, and insist on what a stream is made of."""
        order = linearize(self.recorder.operations, EMPTY, step)
        commits = list(self.database.stores(ManualClock()).of(self.tenant, "ann").read(STREAM))
        assert [commit.previous_hash for commit in commits] == [b"", *(commit.hash for commit in commits)][:-1]
        times = [commit.recorded_at for commit in commits]
        assert times == sorted(set(times))
        return order

    def _client(self, name: str, asked: list[tuple[Append, Expected]], share: float | None = None) -> Client:
        noise = random.Random(f"{self.seed} {name}")
        if share is None:
            share = FAULTY_SHARES[self.seed % len(FAULTY_SHARES)]
        clock = ManualClock()
        clock.jump(timedelta(seconds=noise.randint(-20, 20)))
        transport = FaultyTransport(
            self.between(self.database.transport), at_random(noise, share), late_by=noise.randint(1, 6)
        )
        stores = DynamoEventStores(Database(transport, clock, PATIENCE), RawCodec(), self.database.tables)
        return Client(name, noise, transport, stores, self.tenant, self.recorder, asked)


def outcomes(histories: Sequence[History]) -> Counter[str]:
    """Count what came of it, and which faults there were."""
    told = Counter[str](each.outcome for history in histories for each in history.recorder.operations)
    told.update(
        type(each.result).__name__ for history in histories for each in history.recorder.operations if each.result
    )
    return told + sum((history.injected for history in histories), Counter())


EVERYTHING = {"answered", "failed", "unknown", "Placed", "Stale", "tuple", *FAULTS}
"""What many histories together have seen; one that sees less tests less."""
