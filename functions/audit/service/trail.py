"""Streams: append, read, and the state at any point of a stream's life."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec

from functions.audit import domain
from functions.audit.service.sealing import Sealing, sealed
from holdfast.errors import Invalid, Stale
from holdfast.folds import Folded, Found, Reducer, Within, encode_state
from holdfast.streams import Appended, EventStore, StaleStream


class EventsPage(msgspec.Struct, frozen=True):
    page: domain.Page
    last_version: int


class StateAnswer(msgspec.Struct, frozen=True):
    folded: Folded
    reducer: str
    last_version: int


class Changes(msgspec.Struct, frozen=True):
    patch: Any
    from_version: int
    to_version: int


OnShow = Callable[[Mapping[str, Any]], None]
"""Is told what a caller is about to be shown, and may forbid it by raising a `ServiceError`."""


class States(Protocol):
    """Folds a stream, by whatever shortcut there is."""

    def state(self, stream: str, reducer: Reducer, within: Within) -> Found: ...


@dataclass(frozen=True)
class AuditTrail:
    """One tenant's streams, as one caller sees them."""

    store: EventStore[bytes]
    sealing: Sealing
    states: States

    def append(self, writing: domain.Writing, *, shows: OnShow | None = None) -> tuple[Appended, ...]:
        """
        Append what was understood of a request, to all its streams or to none.

        Raises:
            Invalid: `event_too_large`, once it is sealed; or what the store finds too large together.
            Conflict: `subject_erased`.
            Stale: a stream ends elsewhere. Carries the events that took the place if *shows* lets it, who is told
                first that they are read; or else where they are read.
        """
        appends = [sealed(each, self.sealing) for each in writing.appends]
        try:
            if len(appends) > 1:
                return self.store.append_many(appends, commit_id=writing.commit_id)
            (only,) = appends
            appended = self.store.append(
                only.stream, only.expected, only.events, commit_id=writing.commit_id, fingerprint=only.fingerprint
            )
        except StaleStream as error:
            facts = self._winner(error, writing, shows)
            raise Stale(error.code, error.detail, last_version=error.last_version, **facts) from error
        return (appended,)

    def _winner(self, error: StaleStream, writing: domain.Writing, shows: OnShow | None) -> Mapping[str, Any]:
        """Tell what a stream holds beyond the version that was expected of it; nothing, if it ends before that."""
        expected = next(each.expected for each in writing.appends if each.stream == error.stream)
        told = {"stream": error.stream} if len(writing.appends) > 1 else {}
        if not isinstance(expected, int) or expected >= error.last_version:
            return told
        if shows is None:
            return {**told, "events_after": expected}
        # Inside a commit there is no winner: the events behind the expected one were there already.
        commits = [error.winner] if error.winner else self.store.read(error.stream, expected, until=expected + 1)
        facts = domain.winner_facts(map(self.sealing.shown, commits), expected)
        if "events" in facts:
            shows({"stream": error.stream, "after": expected, "limit": len(facts["events"])})
        return {**told, **facts}

    def events(self, stream: str, *, after: int, limit: int, newest_first: bool) -> EventsPage:
        """Read a page of a stream's events, as the stream stood when it was asked where it ends."""
        last_version = self._last_version(stream)
        if newest_first:
            commits = self.store.read_back(stream, min(after or last_version + 1, last_version + 1))
        else:
            commits = self.store.read(stream, after, until=last_version)
        page = domain.page_of(map(self.sealing.shown, commits), after=after, limit=limit, newest_first=newest_first)
        return EventsPage(page, last_version)

    def state(
        self, stream: str, *, version: int | None = None, at: datetime | None = None, known_at: datetime | None = None
    ) -> StateAnswer:
        """
        Answer the state that the events up to *version*, *at* and *known_at* make; see `holdfast.folds`.

        Raises:
            NotFound: `stream_not_found`, `version_not_found`.
            Invalid: 422 `state_too_large`.
        """
        found = self._found(stream, Within(version, at, known_at))
        return StateAnswer(found.folded, domain.reducers.of(stream).label, found.last_version)

    def changes(self, stream: str, from_version: int, to_version: int | None) -> Changes:
        """
        Say what changed between two versions, by default up to the last one; version 0 is before the first event.

        Raises:
            Invalid: `invalid_range`; 422 `no_merge_patch`, `state_too_large`.
        """
        after = self._found(stream, Within(to_version))
        until = after.last_version if to_version is None else to_version
        domain.check_version(from_version, after.last_version)
        if from_version > until:
            raise Invalid("invalid_range", "`from_version` lies behind `to_version`.", pointer="/from_version")
        before = self._found(stream, Within(from_version))
        for found in (before, after):
            encode_state(found.folded.state)
        return Changes(domain.merge_patch(before.folded.state, after.folded.state), from_version, until)

    def _found(self, stream: str, within: Within) -> Found:
        found = self.states.state(stream, domain.reducers.of(stream), within)
        if not found.last_version:
            raise domain.stream_not_found(stream)
        domain.check_version(within.version, found.last_version)
        return found

    def _last_version(self, stream: str) -> int:
        newest = self.store.last(stream)
        if newest is None:
            raise domain.stream_not_found(stream)
        return newest.version
