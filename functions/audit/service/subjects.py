"""Data subjects: held, released, erased; what is done about one is told in a stream of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import msgspec

from functions.audit import domain
from holdfast.errors import Unavailable, once_done
from holdfast.streams import ANY, Appended, Commit, Companion, CompanionRefused, EventStore
from holdfast.streams.rules import mismatch
from holdfast.subjects.rules import Subject

TURNS_MAX: Final = 8
"""How often an act is decided again when others get ahead of it."""


class Keys(Protocol):
    """One tenant's subjects and their keys (`holdfast.subjects.SubjectKeys`)."""

    def find(self, subject: str) -> Subject: ...
    def change(self, before: Subject, after: Subject) -> Companion: ...
    def forget(self, subject: str) -> None: ...


class Done(msgspec.Struct, frozen=True):
    """What is so once something was to be done."""

    subject: Subject
    is_change: bool = True
    """Whether there was anything to do."""
    is_replay: bool = False
    """Whether it had been done before, under the same key."""


@dataclass(frozen=True)
class Subjects:
    """One tenant's data subjects; its store may write their rows beside an event."""

    keys: Keys
    store: EventStore[bytes]
    now: Callable[[], datetime]

    def do(self, act: domain.Act) -> Done:
        """
        Hold, release or erase a subject, and tell of it; both happen, or neither. What is so already is not told again.

        Under a key the first answer is given for ever; a key under which there was nothing to do is not remembered.

        Raises:
            Invalid: `invalid_subject`, `invalid_reason`, `invalid_until`; 422 `idempotency_mismatch`.
            NotFound: `subject_not_found`.
            Conflict: `subject_erased`, `too_many_holds`, `held`.
            Unavailable: `contended`; nothing happened.
        """
        before = self.keys.find(act.subject)
        first = self._first(act)
        if first:
            return first
        for _ in range(TURNS_MAX):
            after = domain.decided(act, before, self.now())
            if after == before:
                return Done(before, is_change=False)
            try:
                appended = self.store.append(
                    act.stream,
                    ANY,
                    [domain.subject_event(act, after)],
                    commit_id=act.commit_id(before),
                    fingerprint=act.fingerprint,
                    companions=[self.keys.change(before, after)],
                )
            except CompanionRefused:
                before = self.keys.find(act.subject)
                continue
            self.keys.forget(act.subject)
            if not appended.is_replay:
                return Done(after)
            with once_done():
                return _again(self._commit(appended))
        raise Unavailable("contended", f"Others keep changing {act.subject!r} first. Nothing happened; repeat.")

    def _first(self, act: domain.Act) -> Done | None:
        """Find what was done under the caller's key, however much was done about the subject since."""
        done = () if act.key is None else self.store.recall(act.commit_id_by_key(act.key))
        commits = map(self._commit, done)
        commit = next(commits, None)
        if commit and commit.fingerprint != act.fingerprint:
            raise mismatch()
        return _again(commit) if commit else None

    def _commit(self, appended: Appended) -> Commit[bytes]:
        (commit,) = self.store.read(appended.stream, appended.first_version - 1, until=appended.version)
        return commit


def _again(commit: Commit[bytes]) -> Done:
    return Done(domain.subject_told(commit.events[0]), is_replay=True)
