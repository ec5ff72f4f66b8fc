"""The keys of a tenant's data subjects, wrapped, in the operations table: one row each, which is never removed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from holdfast.clock import Instant, from_micros, to_micros
from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.dynamodb.reads import Row, get
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database, put_new
from holdfast.envelope import Context, DataKey, KeyRing
from holdfast.sealing import Erased, check_subject
from holdfast.streams.companions import Is, Update
from holdfast.subjects.cache import KeyCache
from holdfast.subjects.rules import Hold, Subject, by_reason, subject_erased, subject_not_found

ROLE: Final = "subjects"
"""The role under which a companion names the table (`Tables.companions`)."""

_ONLY: Final = 0
"""The sort key of a row that has its partition to itself."""


@dataclass(frozen=True)
class SubjectKeys:
    """One tenant's data subjects, in the operations table. It fulfils `holdfast.sealing.Keys`."""

    database: Database
    tables: Tables
    ring: KeyRing
    tenant: str
    cache: KeyCache
    """One for the whole process."""

    def key_for(self, subject: str) -> DataKey:
        """
        Answer the key to seal with, made on first use. Of two who make it at once, both get the same.

        An erasure is heard of within KEY_AGE_MAX. What is sealed until then under a key that is already destroyed is
        stored, and erased from the beginning.

        Raises:
            Invalid: `invalid_subject`.
            Conflict: `subject_erased`.
            Forged: the row holds what the ring did not wrap for this subject.
        """
        known = self.peek(subject) or self._make(subject)
        if isinstance(known, Erased):
            raise subject_erased(subject)
        return known

    def peek(self, subject: str) -> DataKey | Erased | None:
        """
        Answer the key to read with, as it was KEY_AGE_MAX ago or later; None if there never was one.

        Raises:
            Invalid: `invalid_subject`.
            Forged: the row holds what the ring did not wrap for this subject.
        """
        known = self.cache.get(self.tenant, subject)
        if known:
            return known
        asked_at = self.cache.instant()
        row = self._row(subject)
        return self._remember(subject, self._unwrapped(subject, row), asked_at) if row else None

    def find(self, subject: str) -> Subject:
        """
        Tell what is known of a subject.

        Raises:
            Invalid: `invalid_subject`.
            NotFound: `subject_not_found`.
        """
        return _subject_of(self._found(subject))

    def change(self, before: Subject, after: Subject) -> Update:
        """Write a change as the companion of the event that tells of it; an erasure overwrites the key."""
        return Update(ROLE, self._key(before.name), (Is("v", before.version),), set=_changes_of(after))

    def forget(self, subject: str) -> None:
        """Use no key of *subject* that was read before."""
        self.cache.forget(self.tenant, subject)

    def _make(self, subject: str) -> DataKey | Erased:
        made = self.ring.make(self._context(subject))
        asked_at = self.cache.instant()
        row = _changes_of(Subject(subject, 1)) | self._key(subject) | {"key": made.wrapped}
        standing = put_new(self.database, self.tables.operations, to_item(row))
        found = from_item(standing) if standing else row
        # A row that stands there may be of an earlier attempt of ours: then its key is known already.
        is_ours = found["key"] == made.wrapped
        return self._remember(subject, made.key if is_ours else self._unwrapped(subject, found), asked_at)

    def _unwrapped(self, subject: str, row: Row) -> DataKey | Erased:
        if row["state"] == "erased":
            return Erased()
        return self.ring.unwrap(row["key"], self._context(subject))

    def _remember(self, subject: str, key: DataKey | Erased, asked_at: Instant) -> DataKey | Erased:
        self.cache.put(self.tenant, subject, key, asked_at)
        return key

    def _found(self, subject: str) -> Row:
        row = self._row(subject)
        if row is None:
            raise subject_not_found(subject)
        return row

    def _row(self, subject: str) -> Row | None:
        key = self._key(check_subject(subject))
        return get(self.database, self.tables.operations, key["pk"], key["sk"])

    def _key(self, subject: str) -> Row:
        return {"pk": f"K#{self.tenant}#{subject}", "sk": _ONLY}

    def _context(self, subject: str) -> Context:
        return {"tenant": self.tenant, "subject": subject}


def _subject_of(row: Mapping[str, Any]) -> Subject:
    return Subject(
        name=row["pk"].split("#", 2)[2],
        version=row["v"],
        state=row["state"],
        holds=by_reason(Hold(reason, each["by"], _moment(each["until"])) for reason, each in row["holds"].items()),
        erased_at=_moment(row["erased_at"]),
        final_at=_moment(row["final_at"]),
    )


def _changes_of(subject: Subject) -> Row:
    """Write what a change may have changed. The wrapped key is overwritten with the erasure, and at no other time."""
    return {
        "v": subject.version,
        "state": subject.state,
        "holds": {hold.reason: {"by": hold.by, "until": _micros(hold.until)} for hold in subject.holds},
        "erased_at": _micros(subject.erased_at),
        "final_at": _micros(subject.final_at),
    } | ({"key": None} if subject.state == "erased" else {})


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else to_micros(moment)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
