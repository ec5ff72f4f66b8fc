"""Streams: append, read, and the state at any point of a stream's life."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec

from functions.audit import domain
from holdfast.errors import Invalid, Stale
from holdfast.folds import Folded, Open, Reducer, Within, encode_state
from holdfast.sealing import Sealer
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


class States(Protocol):
    """Folds a stream, by whatever shortcut there is."""

    def state(
        self, stream: str, reducer: Reducer, within: Within, last_version: int, *, opened: Open | None = None
    ) -> Folded: ...


@dataclass(frozen=True)
class AuditTrail:
    """One tenant's streams, as one caller sees them."""

    store: EventStore[bytes]
    sealer: Sealer
    states: States

    def append(self, writing: domain.Writing) -> tuple[Appended, ...]:
        """
        Append what was understood of a request, to all its streams or to none.

        Raises:
            Stale: a stream ends elsewhere; carries what took the place.
        """
        try:
            if len(writing.appends) > 1:
                return self.store.append_many(writing.appends, commit_id=writing.commit_id)
            (only,) = writing.appends
            appended = self.store.append(
                only.stream, only.expected, only.events, commit_id=writing.commit_id, fingerprint=only.fingerprint
            )
        except StaleStream as error:
            facts = domain.winner_facts(self.sealer.shown(error.winner) if error.winner else None)
            if error.winner and len(writing.appends) > 1:
                facts["stream"] = error.winner.stream
            raise Stale(error.code, error.detail, last_version=error.last_version, **facts) from error
        return (appended,)

    def events(self, stream: str, *, after: int, limit: int, newest_first: bool) -> EventsPage:
        """Read a page of a stream's events, as the stream stood when it was asked where it ends."""
        last_version = self._last_version(stream)
        if newest_first:
            commits = self.store.read_back(stream, min(after or last_version + 1, last_version + 1))
        else:
            commits = self.store.read(stream, after, until=last_version)
        page = domain.page_of(map(self.sealer.shown, commits), after=after, limit=limit, newest_first=newest_first)
        return EventsPage(page, last_version)

    def state(
        self, stream: str, *, version: int | None = None, at: datetime | None = None, known_at: datetime | None = None
    ) -> StateAnswer:
        """
        Answer the state that the events up to *version*, *at* and *known_at* make; see `holdfast.folds`.

        What is appended meanwhile does not count: the state is never of a version beyond *last_version*.
        """
        last_version = self._last_version(stream)
        domain.check_version(version, last_version)
        within = Within(last_version if version is None else version, at, known_at)
        return StateAnswer(self._fold(stream, within, last_version), domain.reducers.of(stream).label, last_version)

    def changes(self, stream: str, from_version: int, to_version: int | None) -> Changes:
        """
        Say what changed between two versions, by default up to the last one; version 0 is before the first event.

        Raises:
            Invalid: `invalid_range`; 422 `no_merge_patch`, `state_too_large`.
        """
        last_version = self._last_version(stream)
        until = last_version if to_version is None else to_version
        domain.check_version(max(from_version, until), last_version)
        if from_version > until:
            raise Invalid("invalid_range", "`from_version` lies behind `to_version`.", pointer="/from_version")
        before, after = (self._fold(stream, Within(version), last_version) for version in (from_version, until))
        for folded in (before, after):
            encode_state(folded.state)
        return Changes(domain.merge_patch(before.state, after.state), from_version, until)

    def _fold(self, stream: str, within: Within, last_version: int) -> Folded:
        reducer = domain.reducers.of(stream)
        return self.states.state(stream, reducer, within, last_version, opened=self.sealer.opened)

    def _last_version(self, stream: str) -> int:
        newest = self.store.last(stream)
        if newest is None:
            raise domain.stream_not_found(stream)
        return newest.version
