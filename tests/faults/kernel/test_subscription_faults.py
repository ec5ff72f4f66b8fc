"""Subscriptions under crashes at every call, lost replies, rivals and poison; and what planted mistakes do."""

import itertools
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from holdfast.dynamodb.transport import Answer, Transport
from holdfast.errors import NotFound, ServiceError
from holdfast.log import partition_of
from holdfast.outbox import MemoryOutbox, RefusedMessage
from holdfast.streams.companions import Change, Is
from holdfast.subscriptions import ATTEMPTS_MAX, Deliverer, rows
from holdfast.testing import FAULTS, Crash, FaultyTransport, Fuse, Killed, at_every_crash, at_random
from tests.soak import examples
from tests.subscription_lab import QUEUE, SubscriptionLab

STREAMS = ("s/1", "s/2")
"""Of one partition: they meet in every window."""
CALLS, CALLS_CATCHING_UP, CALLS_BESIDE_PARKED = 9, 14, 7
"""Calls on the store of one move: with nothing in the way or an event refused, out of one's way, and past a stream."""


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch):
    """Few events suffice for several windows."""
    monkeypatch.setattr("holdfast.subscriptions.rules.EVENTS_FIRST", 2)


def world(poison: tuple[str, int] | None = None) -> SubscriptionLab:
    """A subscription with a few events to send, of which it has sent the first."""
    lab = SubscriptionLab(partitions=sorted({partition_of(stream) for stream in STREAMS}))
    assert len(lab.partitions) == 1
    made = lab.subscribe()
    lab.append_all(*[(stream, 2) for stream in STREAMS])
    if poison:
        lab.poison.add(poison)
    lab.move(made)
    lab.append_all(*[(stream, count) for stream in STREAMS for count in (2, 1)])
    lab.wait()
    return lab


def act(lab: SubscriptionLab, fuse: Fuse) -> None:
    deliverer = lab.deliverer(fuse.wrap(lab.lab.transport), fuse.wrap(lab.outbox))
    lab.move(lab.registry().get("all"), deliverer)


def test_killed_at_any_call_it_loses_nothing_and_keeps_the_order():
    def then(crash: Crash[SubscriptionLab]) -> None:
        lab = crash.world
        made = lab.registry().get("all")
        lab.check(made)
        lab.move(made)
        lab.check_all_arrived(made)

    assert at_every_crash(world, act, then) == 24


@pytest.mark.parametrize("version", [1, 3, 4][: examples(2, soak=3)])
def test_killed_at_any_call_around_a_stream_that_stands_still(version):
    def make() -> SubscriptionLab:
        return world(("s/2", version))

    def then(crash: Crash[SubscriptionLab]) -> None:
        lab = crash.world
        made = lab.registry().get("all")
        lab.check(made)
        lab.settle(made)
        lab.check_all_arrived(made, but=["s/2"])
        assert [(stand.version, stand.attempts) for stand in lab.all_stands(made)] == [(version, ATTEMPTS_MAX)]
        assert lab.told
        lab.poison.clear()
        lab.registry().redrive(made)
        lab.settle(made)
        lab.check_all_arrived(made)
        assert lab.all_stands(made) == []

    assert at_every_crash(make, act, then) >= 24


def test_killed_at_any_call_of_a_redrive():
    def make() -> SubscriptionLab:
        lab = world(("s/2", 2))
        made = lab.registry().get("all")
        lab.settle(made)
        lab.poison.clear()
        lab.registry().redrive(made)
        return lab

    def then(crash: Crash[SubscriptionLab]) -> None:
        lab = crash.world
        made = lab.registry().get("all")
        lab.check(made)
        lab.settle(made)
        lab.check_all_arrived(made)
        assert lab.all_stands(made) == []

    assert at_every_crash(make, act, then) == 26


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("at", range(1, CALLS_CATCHING_UP + 1, examples(3, soak=1)))
def test_one_fault_at_any_call_is_survived(fault, at):
    lab = world(("s/2", 2))
    made = lab.registry().get("all")

    lab.move(made, lab.deliverer(FaultyTransport(lab.lab.transport, [None] * (at - 1) + [fault])))

    lab.check(made)
    lab.poison.clear()
    lab.settle(made)
    lab.check_all_arrived(made)
    assert lab.all_stands(made) == []


class Meddled:
    """A port before whose nth call somebody else does their work."""

    def __init__(self, inner: Any, at: int, rival: Callable[[], None]) -> None:
        self._inner = inner
        self._at = at
        self._rival = rival
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*args: Any) -> Any:
            self.calls += 1
            if self.calls == self._at:
                self._rival()
            return found(*args)

        return call


@pytest.mark.parametrize(
    ("poison", "at"),
    [
        *((poison, at) for poison in (None, ("s/2", 4)) for at in range(1, CALLS + 1)),
        *((("s/2", 2), at) for at in range(1, CALLS_CATCHING_UP + 1)),
    ],
)
def test_two_at_once_repeat_and_never_overtake(poison, at):
    lab = world(poison)
    made = lab.registry().get("all")

    def rival() -> None:
        lab.move(made)
        lab.append("s/2")
        lab.wait()
        lab.move(made)

    meddled = Meddled(lab.lab.transport, at, rival)
    lab.move(made, lab.deliverer(meddled))

    assert meddled.calls >= at
    lab.check(made)
    lab.poison.clear()
    lab.registry().redrive(made)
    lab.settle(made)
    lab.check_all_arrived(made)
    assert lab.all_stands(made) == []


@pytest.mark.parametrize("at", range(1, CALLS_CATCHING_UP + 1))
def test_a_rival_who_frees_one_stream_while_another_comes_to_stand_still(at):
    """As many streams stand still as before, and they are others."""
    lab = world(("s/2", 2))
    made = lab.registry().get("all")

    def rival() -> None:
        lab.poison = {("s/1", 4)}
        lab.move(made)
        lab.append("s/2")
        lab.append("s/1")
        lab.move(made)

    meddled = Meddled(lab.lab.transport, at, rival)
    lab.move(made, lab.deliverer(meddled))

    assert meddled.calls >= at
    lab.check(made)
    lab.poison.clear()
    lab.settle(made)
    lab.check_all_arrived(made)


@pytest.mark.parametrize("at", range(1, CALLS_BESIDE_PARKED + 1))
def test_a_rival_who_frees_a_parked_stream_that_grows_then(at):
    lab = world(("s/2", 2))
    made = lab.registry().get("all")
    lab.settle(made)
    lab.append("s/1")

    def rival() -> None:
        lab.poison.clear()
        lab.registry().redrive(made)
        lab.move(made)
        lab.append("s/2")

    meddled = Meddled(lab.lab.transport, at, rival)
    lab.move(made, lab.deliverer(meddled))

    assert meddled.calls >= at
    lab.check(made)
    lab.settle(made)
    lab.check_all_arrived(made)


@pytest.mark.parametrize("at", range(1, 4))
def test_a_redrive_that_meets_who_tells_of_the_stream_lets_it_go_all_the_same(at):
    lab = world(("s/2", 2))
    made = lab.registry().get("all")
    lab.can_tell = False
    lab.settle(made)
    lab.can_tell = True
    assert [(stand.is_parked, stand.is_told) for stand in lab.all_stands(made)] == [(True, False)]

    lab.registry(Meddled(lab.lab.transport, at, lambda: lab.move(made))).redrive(made)

    assert not any(stand.is_parked for stand in lab.all_stands(made))


def test_killed_at_any_call_of_a_deletion_it_leaves_nothing_once_that_is_repeated():
    def act(lab: SubscriptionLab, fuse: Fuse) -> None:
        lab.registry(fuse.wrap(lab.lab.transport)).delete("all")

    def then(crash: Crash[SubscriptionLab]) -> None:
        lab = crash.world
        with suppress(NotFound):
            lab.registry().delete("all")
        assert lab.kinds_of_rows() == ["SUB", "SUBS"]

    assert at_every_crash(lambda: world(("s/2", 2)), act, then) == 16


# ----- anything may happen


class Mortal(Transport):
    """A transport at whose calls the process ends now and then, before or after."""

    def __init__(self, inner: Transport, noise: random.Random) -> None:
        self._inner = inner
        self._noise = noise

    def call(self, operation: str, request: Any) -> Answer:
        chance = self._noise.random()
        if chance < 0.02:
            raise Killed
        answer = self._inner.call(operation, request)
        if chance < 0.04:
            raise Killed
        return answer


class MortalOutbox(MemoryOutbox):
    """An outbox that ends the process before or after it has sent a part."""

    def __init__(self, inner: MemoryOutbox, noise: random.Random) -> None:
        super().__init__()
        self._inner = inner
        self._noise = noise

    def to_queue(self, arn: str, messages: Any) -> Any:
        if self._noise.random() < 0.1:
            self._inner.to_queue(arn, messages[: self._noise.randrange(len(messages) + 1)])
            raise Killed
        return self._inner.to_queue(arn, messages)


def live(seed: int) -> SubscriptionLab:
    """Let a subscription live through random events, failures, late writes, repeats, kills, poison and redrives."""
    random.seed(seed)  # what waits between attempts is drawn from
    noise = random.Random(seed)
    lab = SubscriptionLab(partitions=sorted({partition_of(f"s/{number}") for number in range(4)}))
    made = lab.subscribe()
    is_over = False

    def refusal(_: str, message: Any) -> str | None:
        event = msgspec.json.decode(message.body)
        is_moody = (event["streamversion"] + int(event["stream"][-1]) + seed) % 7 == 0
        return "no" if is_moody and not is_over and noise.random() < 0.7 else None

    lab.outbox.refusal = refusal
    faulty = FaultyTransport(lab.lab.transport, at_random(noise, 0.12), late_by=9)
    for _ in range(12):
        lab.lab.indexer().index(lab.lab.grow(noise, noise.randrange(8), streams=4))
        lab.wait() if noise.random() < 0.4 else None
        if noise.random() < 0.1:
            lab.registry().redrive(made)
        with suppress(Killed, ServiceError):
            lab.move(made, lab.deliverer(Mortal(faulty, noise), MortalOutbox(lab.outbox, noise)))
        lab.check(made)
    faulty.arrive()
    is_over = True  # from now on everything is taken
    lab.registry().redrive(made)
    lab.settle(made)
    lab.check_all_arrived(made)
    assert lab.all_stands(made) == []
    return lab


@pytest.mark.parametrize("part", range(5))
def test_whatever_happens_each_event_arrives_and_none_before_its_time(part):
    delivered = 0
    for seed in itertools.count(part, 5):
        delivered += len(live(seed).outbox.sent[QUEUE])
        if delivered >= examples(1_000, soak=10_000) / 5:
            return


def test_the_same_seed_gives_the_same_trace():
    first, second = live(3), live(3)

    assert first.arrived() == second.arrived()
    assert first.told == second.told
    assert [msgspec.json.decode(each.body)["streamversion"] for each in first.outbox.sent[QUEUE]] == [
        msgspec.json.decode(each.body)["streamversion"] for each in second.outbox.sent[QUEUE]
    ]


# ----- planted mistakes


def caught(scenario: Callable[[], None]) -> str:
    """Say what a scenario finds wrong."""
    with pytest.raises(AssertionError) as found:
        scenario()
    return str(found.value).partition("\n")[0]


def test_a_checkpoint_before_the_sending_is_caught(monkeypatch):
    written, send = Deliverer._written, Deliverer._send

    def too_early(self: Deliverer, update: Any, others: Any) -> bool:
        return True

    def late(self: Deliverer, track: Any, events: Any) -> Any:
        place, _ = self._standing(track)
        if events:
            after = rows.Checkpoint(events[-1].position, place.recorded_at, place.standing, self.database.clock.now())
            written(self, track.checkpoint_change(place, after), [])
        return send(self, track, events)

    monkeypatch.setattr(Deliverer, "_written", too_early)
    monkeypatch.setattr(Deliverer, "_send", late)

    assert "arrived" in caught(test_killed_at_any_call_it_loses_nothing_and_keeps_the_order)


def test_overtaking_a_stream_that_stands_still_is_caught(monkeypatch):
    go_on = Deliverer._go_on
    monkeypatch.setattr(
        Deliverer, "_go_on", lambda self, track, place, head, _, until: go_on(self, track, place, head, set(), until)
    )

    assert "arrived as [1, 3" in caught(lambda: test_killed_at_any_call_around_a_stream_that_stands_still(2))


def test_a_batch_with_two_events_of_one_stream_is_caught(monkeypatch):
    """A part of it is refused, and the later event is taken before the earlier."""

    def at_once(messages: Any, send: Any, *, message_bytes_max: int) -> Any:
        return tuple(RefusedMessage(place, reason) for place, reason in sorted(send(messages).items()))

    monkeypatch.setattr("holdfast.outbox.memory.send_in_order", at_once)

    assert "arrived as [1, 2, 4" in caught(lambda: test_killed_at_any_call_around_a_stream_that_stands_still(3))


def test_going_on_with_an_old_view_of_what_stands_still_is_caught(monkeypatch):
    """Without the guard, who believes that a stream stands still which has been freed passes what it never got."""
    monkeypatch.setattr(rows.Track, "checkpoint_change", unguarded(rows.Track.checkpoint_change))

    def scenario() -> None:
        for at in range(1, CALLS_BESIDE_PARKED + 1):
            test_a_rival_who_frees_a_parked_stream_that_grows_then(at)

    assert "arrived" in caught(scenario)


def unguarded(checkpoint_change: Any) -> Any:
    def change(self: Any, before: Any, after: Any) -> Any:
        made = checkpoint_change(self, before, after)
        if not before.turns:
            return made
        return Change(made.key, (Is("pk", made.key["pk"]),), set=made.set)

    return change


def test_parking_at_once_is_caught(monkeypatch):
    monkeypatch.setattr("holdfast.subscriptions.rules.ATTEMPTS_MAX", 1)
    lab = world(("s/2", 3))
    made = lab.registry().get("all")
    lab.move(made)
    lab.poison.clear()
    lab.settle(made)

    assert "of s/2 only [1, 2] arrived" in caught(lambda: lab.check_all_arrived(made))
    assert partition_of("s/2") == lab.all_stands(made)[0].partition
