"""A real event store in memory: the same rules, hashes and answers as the one on DynamoDB, for one process."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from holdfast.clock import Clock, Instant, SystemClock
from holdfast.streams.companions import Companion, CompanionRefused, Row, applied, is_refused
from holdfast.streams.packing import Codec, Packed, seal
from holdfast.streams.rules import (
    Seen,
    answer_again,
    answer_of,
    check_appends,
    empty,
    expected_version,
    find_answers,
    find_stale,
    is_fresh,
    mismatch,
    prepare_all,
    recognise,
    wants_any,
    whole,
)
from holdfast.streams.values import (
    Append,
    Appended,
    Boundary,
    Commit,
    Expected,
    StaleStream,
    check_stream,
    check_tenant,
)

E = TypeVar("E")

_Key = tuple[str, tuple[tuple[str, Any], ...]]


@dataclass
class _Shelf(Generic[E]):
    """What all stores of one `MemoryEventStores` share."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    streams: defaultdict[tuple[str, str], dict[int, Commit[E]]] = field(default_factory=lambda: defaultdict(dict))
    """Commits by their first version, in order."""
    operations: dict[tuple[str, str], tuple[tuple[str, int], ...]] = field(default_factory=dict)
    rows: dict[_Key, Row] = field(default_factory=dict)


class MemoryEventStores(Generic[E]):
    """Every tenant's streams, in this process's memory."""

    def __init__(self, codec: Codec[E], clock: Clock | None = None) -> None:
        self._codec = codec
        self._clock = clock or SystemClock()
        self._shelf: _Shelf[E] = _Shelf()

    def of(self, tenant: str, actor: str) -> "MemoryEventStore[E]":
        return MemoryEventStore(self._shelf, self._codec, self._clock, check_tenant(tenant), actor)

    def row(self, table: str, key: Row) -> Row | None:
        """Look at a companion's row."""
        with self._shelf.lock:
            return self._shelf.rows.get(_row_key(table, key))


class MemoryEventStore(Generic[E]):
    """One tenant's streams, written by one actor. See `EventStore` for the promises."""

    def __init__(self, shelf: _Shelf[E], codec: Codec[E], clock: Clock, tenant: str, actor: str) -> None:
        self._shelf = shelf
        self._codec = codec
        self._clock = clock
        self._tenant = tenant
        self._actor = actor

    def append(
        self,
        stream: str,
        expected: Expected,
        events: Sequence[E],
        *,
        commit_id: str,
        fingerprint: bytes | None = None,
        companions: Sequence[Companion] = (),
    ) -> Appended:
        wish = Append(stream, expected, events, fingerprint)
        return self.append_many([wish], commit_id=commit_id, companions=companions)[0]

    def append_many(
        self, appends: Sequence[Append[E]], *, commit_id: str, companions: Sequence[Companion] = ()
    ) -> tuple[Appended, ...]:
        check_appends(appends, companions, self._tenant)
        contents = prepare_all(self._codec, appends, companions)
        with self._shelf.lock:
            seen = [self._see(wish) for wish in appends]
            answers = self._recall(appends, contents, commit_id) or whole(find_answers(seen, contents, commit_id))
            if answers:
                return answers
            stale = find_stale(appends, seen)
            if stale:
                raise stale
            answers = self._meet(seen, contents, commit_id)
            if answers:
                return answers
            self._apply(companions)
            if wants_any(appends):
                self._shelf.operations[self._tenant, commit_id] = tuple(
                    (each.end.stream, each.end.version + 1) for each in seen
                )
            return tuple(self._keep(each.end, content, commit_id) for each, content in zip(seen, contents, strict=True))

    def recall(self, commit_id: str) -> tuple[Appended, ...]:
        with self._shelf.lock:
            places = self._shelf.operations.get((self._tenant, commit_id), ())
            return tuple(answer_again(self._shelf.streams[self._tenant, stream][first]) for stream, first in places)

    def read(
        self, stream: str, after: int = 0, *, until: int | None = None, at: datetime | None = None
    ) -> Iterator[Commit[E]]:
        for commit in self._commits(stream):
            if commit.version > after and (until is None or commit.first_version <= until) and self._is_of(commit, at):
                yield commit

    def read_back(self, stream: str, before: int | None = None) -> Iterator[Commit[E]]:
        for commit in reversed(self._commits(stream)):
            if before is None or commit.first_version < before:
                yield commit

    def last(self, stream: str) -> Commit[E] | None:
        with self._shelf.lock:
            return _newest(self._shelf.streams.get((self._tenant, check_stream(stream)), {}))

    def _commits(self, stream: str) -> list[Commit[E]]:
        with self._shelf.lock:
            return list(self._shelf.streams.get((self._tenant, check_stream(stream)), {}).values())

    def _is_of(self, commit: Commit[E], at: datetime | None) -> bool:
        """Tell whether an event happened by *at*."""
        times = (self._codec.time_of(event) or commit.recorded_at for event in commit.events)
        return at is None or min(times) <= at

    def _see(self, wish: Append[E]) -> Seen:
        if isinstance(wish.expected, Boundary) and is_fresh(wish.expected, self._clock):
            return Seen(wish.expected)
        commits = self._shelf.streams[self._tenant, wish.stream]
        newest = _newest(commits)
        end = newest.boundary if newest else empty(self._tenant, wish.stream, self._instant())
        expected = expected_version(wish)
        winner = commits.get(expected + 1) if expected is not None else None
        return Seen(end, tuple(commit for commit in (winner, newest) if commit), winner)

    def _meet(self, seen: Sequence[Seen], contents: Sequence[Packed], commit_id: str) -> tuple[Appended, ...]:
        """Meet what stands behind a boundary that was held, and has been built on since."""
        standing = [self._shelf.streams[self._tenant, each.end.stream].get(each.end.version + 1) for each in seen]
        answers = whole(
            [recognise(commit, commit_id, content) for commit, content in zip(standing, contents, strict=True)]
        )
        if answers:
            return answers
        for winner in filter(None, standing):
            newest = _newest(self._shelf.streams[self._tenant, winner.stream]) or winner
            raise StaleStream(winner.stream, newest.version, winner)
        return ()

    def _recall(self, appends: Sequence[Append[E]], contents: Sequence[Packed], commit_id: str) -> tuple[Appended, ...]:
        """Find the answer of an operation that expected any version."""
        places = self._shelf.operations.get((self._tenant, commit_id)) if wants_any(appends) else None
        if places is None:
            return ()
        if [stream for stream, _ in places] != [wish.stream for wish in appends]:
            raise mismatch()
        commits = (self._shelf.streams[self._tenant, stream][first] for stream, first in places)
        return whole([recognise(commit, commit_id, content) for commit, content in zip(commits, contents, strict=True)])

    def _apply(self, companions: Sequence[Companion]) -> None:
        for index, companion in enumerate(companions):
            row = self._shelf.rows.get(_row_key(companion.table, companion.key))
            if is_refused(companion, row):
                raise CompanionRefused(index, row)
        for companion in companions:
            key = _row_key(companion.table, companion.key)
            after = applied(companion, self._shelf.rows.get(key))
            if after is not None:
                self._shelf.rows[key] = after

    def _keep(self, boundary: Boundary, content: Packed, commit_id: str) -> Appended:
        sealed = seal(boundary, content, commit_id=commit_id, actor=self._actor, now=self._clock.now())
        commit = Commit(
            tenant=self._tenant,
            stream=sealed.stream,
            first_version=sealed.first_version,
            # As they come back from bytes: what a codec cannot keep must not seem kept here.
            events=tuple(self._codec.decode(event) for event in sealed.events),
            commit_id=commit_id,
            fingerprint=sealed.fingerprint,
            actor=self._actor,
            recorded_at=sealed.recorded_at,
            previous_hash=sealed.previous_hash,
            hash=sealed.hash,
            read_at=self._instant(),
        )
        self._shelf.streams[self._tenant, sealed.stream][sealed.first_version] = commit
        return answer_of(sealed, commit.read_at)

    def _instant(self) -> Instant:
        return Instant.of(self._clock)


def _newest(commits: dict[int, Commit[E]]) -> Commit[E] | None:
    return next(reversed(commits.values()), None)


def _row_key(table: str, key: Row) -> _Key:
    return table, tuple(sorted(key.items()))
