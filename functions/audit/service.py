"""What can be asked of the audit trail: append, read, and the state at any point of a stream's life."""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from functions.audit import domain
from holdfast.errors import Stale
from holdfast.folds import Folded, Within, fold
from holdfast.streams import Appended, EventStore, StaleStream


class EventsPage(msgspec.Struct, frozen=True):
    page: domain.Page
    last_version: int


class StateAnswer(msgspec.Struct, frozen=True):
    folded: Folded
    reducer: str
    last_version: int


@dataclass(frozen=True)
class AuditTrail:
    """One tenant's streams, as one caller sees them."""

    store: EventStore[bytes]

    def append(self, stream: str, writing: domain.Writing) -> Appended:
        """
        Append what was understood of a request.

        Raises:
            Stale: the stream ends elsewhere; carries what took the place.
        """
        try:
            return self.store.append(
                stream,
                writing.expected,
                writing.events,
                commit_id=writing.commit_id,
                fingerprint=writing.fingerprint,
            )
        except StaleStream as error:
            facts = domain.winner_facts(error.winner)
            raise Stale(error.code, error.detail, last_version=error.last_version, **facts) from error

    def events(self, stream: str, *, after: int, limit: int, newest_first: bool) -> EventsPage:
        """Read a page of a stream's events, as the stream stood when it was asked where it ends."""
        last_version = self._last_version(stream)
        if newest_first:
            commits = self.store.read_back(stream, min(after or last_version + 1, last_version + 1))
        else:
            commits = self.store.read(stream, after, until=last_version)
        page = domain.page_of(commits, after=after, limit=limit, newest_first=newest_first)
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
        reducer = domain.reducers.of(stream)
        until = last_version if version is None else version
        folded = fold(self.store.read(stream, until=until), reducer, Within(until, at, known_at))
        return StateAnswer(folded, reducer.label, last_version)

    def _last_version(self, stream: str) -> int:
        newest = self.store.last(stream)
        if newest is None:
            raise domain.stream_not_found(stream)
        return newest.version
