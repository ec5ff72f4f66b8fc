"""A real event store in memory: the same rules, hashes and answers as the one on DynamoDB, for one process."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from holdfast.clock import Clock, SystemClock
from holdfast.streams.companions import Companion, CompanionRefused, Row, applied, is_refused
from holdfast.streams.packing import Codec, Packed, prepare, seal
from holdfast.streams.rules import (
    answer_of,
    check_appends,
    empty,
    expected_version,
    mismatch,
    recognise,
    wants_any,
)
from holdfast.streams.values import (
    Append,
    Appended,
    Boundary,
    Commit,
    Expected,
    Instant,
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
    streams: defaultdict[tuple[str, str], list[Commit[E]]] = field(default_factory=lambda: defaultdict(list))
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
        check_appends(appends, companions)
        contents = [prepare(self._codec, wish.events, wish.fingerprint) for wish in appends]
        with self._shelf.lock:
            answers = self._find_answers(appends, contents, commit_id)
            if answers:
                return answers
            boundaries = [self._stand(wish) for wish in appends]
            self._apply(companions)
            if wants_any(appends):
                self._shelf.operations[self._tenant, commit_id] = tuple(
                    (boundary.stream, boundary.version + 1) for boundary in boundaries
                )
            return tuple(
                self._keep(boundary, wish.events, content, commit_id)
                for boundary, wish, content in zip(boundaries, appends, contents, strict=True)
            )

    def read(self, stream: str, after: int = 0, *, until: int | None = None) -> Iterator[Commit[E]]:
        for commit in self._commits(stream):
            if commit.version > after and (until is None or commit.first_version <= until):
                yield commit

    def read_back(self, stream: str, before: int | None = None) -> Iterator[Commit[E]]:
        for commit in reversed(self._commits(stream)):
            if before is None or commit.first_version < before:
                yield commit

    def last(self, stream: str) -> Commit[E] | None:
        return next(self.read_back(stream), None)

    def _commits(self, stream: str) -> list[Commit[E]]:
        with self._shelf.lock:
            return list(self._shelf.streams.get((self._tenant, check_stream(stream)), ()))

    def _find_answers(
        self, appends: Sequence[Append[E]], contents: Sequence[Packed], commit_id: str
    ) -> tuple[Appended, ...]:
        """Find what these appends were answered before, if they were."""
        places = self._shelf.operations.get((self._tenant, commit_id)) if wants_any(appends) else self._places(appends)
        if places is None:
            return ()
        if [stream for stream, _ in places] != [wish.stream for wish in appends]:
            raise mismatch()
        found = (
            recognise(self._commit_at(stream, first), commit_id, content)
            for (stream, first), content in zip(places, contents, strict=True)
        )
        return tuple(answer for answer in found if answer)

    def _places(self, appends: Sequence[Append[E]]) -> tuple[tuple[str, int], ...]:
        """Say where commits with known expectations stand if they have been written."""
        return tuple((wish.stream, (expected_version(wish) or 0) + 1) for wish in appends)

    def _stand(self, wish: Append[E]) -> Boundary:
        """Find the end that the wish may stand on."""
        commits = self._shelf.streams[self._tenant, wish.stream]
        end = commits[-1].boundary if commits else empty(wish.stream, self._instant())
        expected = expected_version(wish)
        if expected is not None and expected != end.version:
            raise StaleStream(wish.stream, end.version, self._commit_at(wish.stream, expected + 1))
        return end

    def _commit_at(self, stream: str, first_version: int) -> Commit[E] | None:
        commits = self._shelf.streams[self._tenant, stream]
        return next((commit for commit in commits if commit.first_version == first_version), None)

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

    def _keep(self, boundary: Boundary, events: Sequence[E], content: Packed, commit_id: str) -> Appended:
        sealed = seal(self._tenant, boundary, content, commit_id=commit_id, actor=self._actor, now=self._clock.now())
        commit = Commit(
            stream=sealed.stream,
            first_version=sealed.first_version,
            events=tuple(events),
            commit_id=commit_id,
            fingerprint=sealed.fingerprint,
            actor=self._actor,
            recorded_at=sealed.recorded_at,
            previous_hash=sealed.previous_hash,
            hash=sealed.hash,
            read_at=self._instant(),
        )
        self._shelf.streams[self._tenant, sealed.stream].append(commit)
        return answer_of(sealed, commit.read_at)

    def _instant(self) -> Instant:
        return Instant(self._clock.now(), self._clock.monotonic())


def _row_key(table: str, key: Row) -> _Key:
    return table, tuple(sorted(key.items()))
