"""
A made history of one stream over three years, and its states by a fold so plain that it can be trusted.

Seeded: the same number of events is the same history. One event in twenty arrives late: it says a time up to weeks
before those that were recorded around it. And a few claim to have happened in the future.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import msgspec

from holdfast.clock import ManualClock, to_text
from holdfast.streams import EventStores

BEGIN = datetime(2023, 1, 1, tzinfo=UTC)
YEARS = timedelta(days=3 * 365)
LATE_SHARE = 0.05
LATE_DAYS_MEAN = 5
EARLY_SHARE = 0.002
EARLY_DAYS_MEAN = 90
MEMBERS = 1_500
REMOVED_SHARE = 0.1
COMMIT_EVENTS = 250
ACTORS = ("ann", "bob", "cai", "dee", "eli")


@dataclass(frozen=True, slots=True)
class Change:
    """One event: when it happened, when it was recorded, and what it changed."""

    version: int
    time: datetime
    recorded_at: datetime
    patch: dict[str, Any]

    def stored(self) -> bytes:
        event = {
            "specversion": "1.0",
            "id": str(self.version),
            "source": "urn:made",
            "type": f"stock.{'moved' if self.version % 3 else 'counted'}",
            "time": to_text(self.time),
            "actor": ACTORS[self.version % len(ACTORS)],
            "data": self.patch,
        }
        return msgspec.json.encode(event, order="sorted")


def changes(events: int, seed: int = 1, *, early_share: float = EARLY_SHARE) -> Iterator[Change]:
    """
    Make *events* changes, spread over three years; those of one commit are recorded at once.

    Of them *early_share* claim to have happened in the future.
    """
    noise = random.Random(seed)
    step = YEARS / events
    for version in range(1, events + 1):
        commit = -(-version // COMMIT_EVENTS)
        recorded_at = BEGIN + step * min(commit * COMMIT_EVENTS, events)
        happened = BEGIN + step * version
        if noise.random() < LATE_SHARE:
            happened -= timedelta(days=noise.expovariate(1 / LATE_DAYS_MEAN))
        elif noise.random() < early_share:
            happened += timedelta(days=noise.expovariate(1 / EARLY_DAYS_MEAN))
        name = f"item-{noise.randrange(MEMBERS)}"
        value = None if noise.random() < REMOVED_SHARE else {"count": noise.randrange(1_000), "by": version}
        yield Change(version, happened, recorded_at, {name: value})


def append_all(
    stores: EventStores[bytes], clock: ManualClock, stream: str, history: Iterable[Change], tenant: str = "made"
) -> int:
    """Write a history through the event store, each commit at its own time; return the last version."""
    store = stores.of(tenant, "maker")
    version = 0
    for commit in batched(history):
        clock.advance(commit[-1].recorded_at - clock.now())
        stored = [change.stored() for change in commit]
        version = store.append(stream, version, stored, commit_id=f"commit-{commit[0].version}").version
    return version


def batched(history: Iterable[Change]) -> Iterator[list[Change]]:
    """Cut a history into commits."""
    remaining = iter(history)
    while commit := list(islice(remaining, COMMIT_EVENTS)):
        yield commit


def state_of(
    history: Iterable[Change],
    *,
    version: int | None = None,
    at: datetime | None = None,
    known_at: datetime | None = None,
) -> dict[str, Any]:
    """Fold a history in the plainest way there is."""
    state: dict[str, Any] = {}
    for change in _within(history, version, at, known_at):
        for name, value in change.patch.items():
            if value is None:
                state.pop(name, None)
            else:
                # A merge patch merges objects member by member.
                state[name] = {**state.get(name, {}), **value}
    return state


def state_by_newest(
    history: Sequence[Change],
    *,
    version: int | None = None,
    at: datetime | None = None,
    known_at: datetime | None = None,
) -> dict[str, Any]:
    """
    Give what `state_of` gives, from the newest patch of each item alone.

    That one decides, since it removes its item or sets each member of it: reading backwards ends once all were met.
    """
    state: dict[str, Any] = {}
    for change in _within(reversed(history), version, at, known_at):
        for name, value in change.patch.items():
            state.setdefault(name, value)
        if len(state) == MEMBERS:
            break
    return {name: value for name, value in state.items() if value is not None}


def _within(
    history: Iterable[Change], version: int | None, at: datetime | None, known_at: datetime | None
) -> Iterator[Change]:
    for change in history:
        if version is not None and change.version > version:
            continue
        if at is not None and change.time > at:
            continue
        if known_at is not None and change.recorded_at > known_at:
            continue
        yield change
