"""
One tenant's streams with everything that the kernel keeps about them, beside a model that is nothing but lists.

The world has streams, a log, snapshots, an archive, sealed events, and two read models. The model has, for each
stream, the list of what was acknowledged. Whatever is done to the world, both answer alike.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec
import pytest

from holdfast.clock import to_text
from holdfast.dynamodb import Database, DynamoEventStores, Transport
from holdfast.envelope import MemoryKeyRing
from holdfast.folds import MERGE_PATCH, Folded, Within
from holdfast.log import PARTITIONS, Hint
from holdfast.projections import Projector
from holdfast.projections.rebuilds import Rebuild, Rebuilds
from holdfast.sealing import SHREDKEY, SUBJECTS, Sealer
from holdfast.snapshots import Snapshots
from holdfast.streams import Append, Appended, EventStore, Expected, RawCodec
from holdfast.streams.packing import fingerprint_of
from holdfast.subjects import KeyCache, SubjectKeys
from holdfast.testing import Fuse, Killed
from tests.archive_lab import ArchiveLab, archive_lab
from tests.log_lab import EveryEvent, PerStream
from tests.subject_acts import erase

KEYS_CACHED: Final = timedelta(seconds=61)
"""After so long, nobody holds a key any more that was destroyed."""
STEPS_MAX: Final = 200
"""Steps of one rebuild."""


@dataclass(frozen=True)
class Told:
    """One event, as the model keeps it."""

    version: int
    time: datetime
    recorded_at: datetime
    patch: dict[str, Any]
    subject: str | None
    source: str

    def counts(self, within: Within) -> bool:
        return (
            (within.version is None or self.version <= within.version)
            and (within.at is None or self.time <= within.at)
            and (within.known_at is None or self.recorded_at <= within.known_at)
        )


@dataclass(frozen=True)
class Happening:
    """An event that is yet to be appended."""

    minutes_late: int
    patch: dict[str, Any]
    subject: str | None = None


@dataclass(frozen=True)
class Asked:
    """A call, as it can be made again byte for byte."""

    streams: tuple[str, ...]
    expected: tuple[Expected, ...]
    events: tuple[tuple[dict[str, Any], ...], ...]
    commit_id: str
    answers: tuple[Appended, ...] = ()

    @property
    def subjects(self) -> set[str]:
        return {event[SHREDKEY] for events in self.events for event in events if SHREDKEY in event}


@dataclass
class HistoryWorld:
    """The world and its model."""

    lab: ArchiveLab = field(default_factory=archive_lab)
    told: dict[str, list[Told]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    erased: set[str] = field(default_factory=set)
    ring: MemoryKeyRing = field(default_factory=MemoryKeyRing)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._cache = KeyCache(self.lab.clock)

    # ----- the parts, each over a transport that may end its process

    def database(self, transport: Transport | None = None) -> Database:
        return self.lab.database(transport)

    def store(self, transport: Transport | None = None) -> EventStore[bytes]:
        reader = self.lab.reader(transport)
        return DynamoEventStores(self.database(transport), RawCodec(), self.lab.tables, reader).of(
            self.lab.tenant, "ann"
        )

    def keys(self) -> SubjectKeys:
        return SubjectKeys(self.database(), self.lab.tables, self.ring, self.lab.tenant, self._cache)

    @property
    def sealer(self) -> Sealer:
        return Sealer(self.keys(), self.lab.tenant)

    def snapshots(self, transport: Transport | None = None) -> Snapshots:
        store, objects = self.store(transport), self.lab.objects
        return Snapshots(self.database(transport), self.lab.tables, self.lab.tenant, store, objects, self.sealer)

    def projector(self, transport: Transport | None = None) -> Projector:
        bodies = self.lab.bodies(self.lab.reader(transport), transport)
        return Projector(self.database(transport), self.lab.tables, bodies, [EveryEvent(), PerStream()], {})

    # ----- appending

    def end(self, stream: str) -> int:
        return len(self.told.get(stream, ()))

    def wish(self, streams: Sequence[str], expected: Sequence[Expected], happenings: Sequence[Happening]) -> Asked:
        """Make up a call; every stream gets the same happenings."""
        self.lab.clock.advance(timedelta(seconds=1))
        now, number = self.lab.clock.now(), next(self._numbers)
        events = tuple(
            tuple(
                {
                    "id": f"{number}-{index}",
                    "source": f"urn:{stream}",
                    "type": "t",
                    "time": to_text(now - timedelta(minutes=each.minutes_late)),
                    "data": each.patch,
                    **({SHREDKEY: each.subject} if each.subject else {}),
                }
                for index, each in enumerate(happenings)
            )
            for stream in streams
        )
        return Asked(tuple(streams), tuple(expected), events, f"commit-{number}")

    def ask(self, asked: Asked, transport: Transport | None = None) -> tuple[Appended, ...]:
        """Make the call: its sealed events are sealed anew each time, as a caller's repeat would be."""
        appends = [
            Append(
                stream,
                expected,
                [msgspec.json.encode(self.sealer.sealed(stream, event), order="sorted") for event in events],
                fingerprint_of([self.sealer.fingerprint_part(event) for event in events]),
            )
            for stream, expected, events in zip(asked.streams, asked.expected, asked.events, strict=True)
        ]
        store = self.store(transport)
        if len(appends) > 1:
            return store.append_many(appends, commit_id=asked.commit_id)
        (wish,) = appends
        answer = store.append(
            wish.stream, wish.expected, wish.events, commit_id=asked.commit_id, fingerprint=wish.fingerprint
        )
        return (answer,)

    def acknowledged(self, asked: Asked, answers: tuple[Appended, ...]) -> None:
        """Tell the model what was acknowledged."""
        for answer, stream, events in zip(answers, asked.streams, asked.events, strict=True):
            before = self.told.setdefault(stream, [])
            assert (answer.first_version, answer.version) == (len(before) + 1, len(before) + len(events))
            assert not before or answer.recorded_at > before[-1].recorded_at
            before.extend(
                Told(
                    version=answer.first_version + index,
                    time=datetime.fromisoformat(event["time"]),
                    recorded_at=answer.recorded_at,
                    patch=event["data"],
                    subject=event.get(SHREDKEY),
                    source=event["source"],
                )
                for index, event in enumerate(events)
            )
            self.lab.written[stream] = answer.version
        self.asked.append(
            Asked(asked.streams, asked.expected, asked.events, asked.commit_id, answers),
        )

    def erase(self, subject: str) -> None:
        erase(self.keys(), subject)
        self.erased.add(subject)
        self.lab.written[f"{SUBJECTS}/{subject}"] = 1  # what was done is told, once
        self.lab.clock.advance(KEYS_CACHED)

    # ----- what runs behind it

    def hints(self) -> list[Hint]:
        """Name the newest commit of each stream, as the stream of changes does."""
        newest = {stream: self.store().last(stream) for stream in self.told}
        return [Hint(self.lab.tenant, stream, each.first_version) for stream, each in newest.items() if each]

    def catch_up(self) -> None:
        self.lab.repair().walk()
        for partition in range(PARTITIONS):
            self.projector().project(self.lab.tenant, partition)

    def archive(self, transport: Transport | None = None) -> None:
        self.lab.age()
        self.lab.archiver(transport).run()

    def rebuild(self, view: str, number: int, kill: Fuse | None = None) -> Rebuild:
        """Rebuild a view, with workers of which one may end in the middle of a step."""
        steps: list[tuple[str, str, int]] = []

        def rebuilds(transport: Transport | None = None) -> Rebuilds:
            projector = self.projector(transport)
            return Rebuilds(projector.database, projector.tables, projector, lambda *step: steps.append(step))

        begun = rebuilds().start(self.lab.tenant, view, rebuild_id=f"r{number}", actor="ann", reason="a test")
        for _ in range(STEPS_MAX):
            if not steps:
                return rebuilds().get(self.lab.tenant, begun.rebuild_id)
            step = steps.pop(0)
            if kill:
                killed(kill, self.lab.transport, partial(_step, rebuilds, step))
                kill = None
            rebuilds().step(*step)
        raise AssertionError("The rebuild never ends.")

    # ----- what must be so

    def state(self, stream: str, within: Within) -> Folded:
        found = self.snapshots().state(stream, MERGE_PATCH, within)
        assert found.last_version == self.end(stream)
        return found.folded

    def expected_state(self, stream: str, within: Within) -> tuple[dict[str, Any], int, int]:
        """Fold in the plainest way there is: the state, its last version, and how much is erased."""
        state: dict[str, Any] = {}
        counted = [told for told in self.told[stream] if told.counts(within)]
        for told in counted:
            if told.subject in self.erased:
                continue
            for name, value in told.patch.items():
                if value is None:
                    state.pop(name, None)
                else:
                    state[name] = value
        return state, counted[-1].version if counted else 0, sum(told.subject in self.erased for told in counted)

    def check_state(self, stream: str, within: Within) -> None:
        folded = self.state(stream, within)
        assert (folded.state, folded.version, folded.events_erased) == self.expected_state(stream, within)

    def check(self) -> None:
        """Everything agrees: streams with the model, the log with the streams, the read models with the log."""
        for stream, told in self.told.items():
            self.check_stream(stream, told)
            self.check_state(stream, Within())
        self.catch_up()
        self.lab.check_log()
        self.lab.check_leaves()
        for view in ("every", "per-stream"):
            self.lab.check_views_of(view, self.lab.views().pointer(view).live)
        assert self.lab.broken == []
        assert self.lab.stuck == []

    def check_stream(self, stream: str, told: list[Told]) -> None:
        commits = list(self.store().read(stream))
        version, previous = 0, b""
        for commit in commits:
            assert (commit.first_version, commit.previous_hash) == (version + 1, previous)
            version, previous = commit.version, commit.hash
        assert version == len(told)
        ids = [msgspec.json.decode(event)["id"] for commit in commits for event in commit.events]
        assert len(set(ids)) == len(ids)
        assert [commit.recorded_at for commit in commits for _ in commit.events] == [each.recorded_at for each in told]
        assert [commit.hash for commit in self.store().read_back(stream)] == [each.hash for each in reversed(commits)]
        shown = [msgspec.json.decode(event) for commit in commits for event in self.sealer.shown(commit).events]
        for event, each in zip(shown, told, strict=True):
            assert event.get("data") == (None if each.subject in self.erased else each.patch)


def _step(rebuilds: Callable[[Transport], Rebuilds], step: tuple[str, str, int], transport: Transport) -> None:
    rebuilds(transport).step(*step)


def killed(fuse: Fuse, transport: Transport, act: Callable[[Transport], object]) -> None:
    """Let a process end somewhere in what it does; or not, if it is done before."""
    try:
        act(fuse.wrap(transport))
    except Killed:
        return


def refused_with(error: type[Exception], code: str, act: Callable[[], object]) -> Any:
    with pytest.raises(error) as refused:
        act()
    assert getattr(refused.value, "code", None) == code
    return refused.value
