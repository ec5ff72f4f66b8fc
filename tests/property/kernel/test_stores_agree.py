"""Memory and DynamoDB give the same answers, errors and histories to the same calls, however they are mixed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.clock import ManualClock
from holdfast.errors import ServiceError
from holdfast.streams import (
    ANY,
    Append,
    Appended,
    AtLeast,
    Check,
    EventStore,
    Is,
    MemoryEventStores,
    Missing,
    Put,
    RawCodec,
    StaleStream,
    Update,
)
from tests.dynamo_tables import memory_stores, row_reader
from tests.soak import examples

STREAMS = "abc"
ROWS = (1, 2)
CALLS_MAX = 10


class Wish(msgspec.Struct, frozen=True):
    """An append whose expectation is said relative to the end of its stream, as an end held from before, or as any."""

    stream: str
    expects: str
    off: int
    numbers: tuple[int, ...]


class Call(msgspec.Struct, frozen=True):
    wishes: tuple[Wish, ...]
    commit_id: str
    companions: tuple[tuple[int, int], ...]
    """(row, which kind)"""
    seconds: int


wishes = st.builds(
    Wish,
    stream=st.sampled_from(STREAMS),
    expects=st.sampled_from(["end", "end", "any", "held"]),
    off=st.sampled_from([0, 0, 0, 0, -1, 1, -2]),
    numbers=st.lists(st.integers(0, 1), min_size=1, max_size=2).map(tuple),
)
calls = st.builds(
    Call,
    wishes=st.lists(wishes, min_size=1, max_size=2, unique_by=lambda wish: wish.stream).map(tuple),
    commit_id=st.sampled_from(["x", "y", "z", "u", "v", "w"]),
    companions=st.lists(
        st.tuples(st.sampled_from(ROWS), st.integers(0, 4)), max_size=2, unique_by=lambda row: row[0]
    ).map(tuple),
    seconds=st.sampled_from([0, 0, 0, 5, 70]),
)


class Side:
    """One store, and what a client of it has seen."""

    def __init__(self, store: EventStore[bytes], clock: ManualClock, row: Callable[..., Any], tenant: str) -> None:
        self.store, self.clock, self.row, self.tenant = store, clock, row, tenant
        self.held: dict[str, Any] = {}

    def carry_out(self, call: Call) -> Any:
        self.clock.advance(timedelta(seconds=call.seconds))
        appends = [Append(wish.stream, self.expected(wish), list(map(stored, wish.numbers))) for wish in call.wishes]
        companions = [companion(self.tenant, number, kind) for number, kind in call.companions]
        try:
            answers = self.store.append_many(appends, commit_id=call.commit_id, companions=companions)
        except ServiceError as error:
            return told(error)
        self.held |= {answer.stream: answer.boundary for answer in answers if answer.boundary}
        return [facts(answer) for answer in answers]

    def expected(self, wish: Wish) -> Any:
        if wish.expects == "any":
            return ANY
        if wish.expects == "held" and wish.stream in self.held:
            return self.held[wish.stream]
        newest = self.store.last(wish.stream)
        return max(0, (newest.version if newest else 0) + wish.off)

    def history(self) -> Any:
        commits = [[(one.first_version, one.events, one.hash) for one in self.store.read(name)] for name in STREAMS]
        return commits, [self.row("balances", key(self.tenant, number)) for number in ROWS]


def stored(number: int) -> bytes:
    return msgspec.json.encode({"id": str(number), "type": "t"})


def key(tenant: str, number: int) -> dict[str, Any]:
    return {"pk": f"{tenant}-{number}", "sk": 0}


def companion(tenant: str, number: int, kind: int) -> Any:
    at = key(tenant, number)
    return (
        Put("balances", at, {"v": 1, "n": 5}),
        Update("balances", at, (Is("v", 1),), set={"v": 2}, add={"n": -1}),
        Update("balances", at, (Missing("gone"),), add={"n": 1}),
        Check("balances", at, (AtLeast("n", 3),)),
        Check("balances", at, (Missing("v"),)),
    )[kind]


def facts(answer: Appended) -> Any:
    return answer.stream, answer.first_version, answer.version, answer.recorded_at, answer.is_replay


def told(error: ServiceError) -> Any:
    winner = error.winner if isinstance(error, StaleStream) else None
    return type(error), error.code, error.facts, winner and (winner.stream, winner.first_version, winner.events)


@settings(max_examples=examples(40, soak=2_000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(calls, min_size=1, max_size=CALLS_MAX))
def test_the_stores_agree(history: list[Call]):
    database, clocks = memory_stores(), (ManualClock(), ManualClock())
    stores = MemoryEventStores(RawCodec(), clocks[0])
    memory = Side(stores.of("t", "ann"), clocks[0], stores.row, "t")
    dynamo = Side(database.stores(clocks[1]).of("t", "ann"), clocks[1], row_reader(database), "t")

    for call in history:
        assert memory.carry_out(call) == dynamo.carry_out(call)
        assert memory.history() == dynamo.history()
