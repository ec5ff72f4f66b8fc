"""
Inserting: one transaction that holds, or is refused and says why.

A writer acts on what it believes the heads to be: from its last write, from a read, or from nothing, and then it reads
them first. Every head carries a number that rises with each change, and is written only where that number still is
the believed one. So a belief can be old but never do harm: the refusal brings the rows as they are, and the writer
decides again.

An insert knows itself: its segment, or the tracking it was made for, carries the id of the operation, and what a lost
reply left behind is found by it.
"""

import itertools
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from eventsourcing.persistence import DataError, IntegrityError, StoredEvent, Tracking

from holdfast.dynamodb.attributes import from_item, ordered, to_item
from holdfast.dynamodb.reads import get_many
from holdfast.dynamodb.transport import Cancelled, Reason
from holdfast.dynamodb.writes import companion_action, put_action, transact_once
from holdfast.errors import Unavailable
from holdfast.ids import NewId
from holdfast.integrations.eventsourcing.rows import (
    ORIGINATORS_MAX,
    SOLE,
    Row,
    Space,
    block_row,
    check_name,
    head_of,
    head_row,
    last_position,
    pack,
    segment_key,
    versions_of,
)
from holdfast.retry import Budget, repeat, seconds_left
from holdfast.streams.companions import Companion, Is, Put, Update

ROUNDS: Final = Budget(attempts_max=64, seconds_max=12.0, first_wait_seconds=0.005, longest_wait_seconds=0.25)
"""How often an insert that lost the head of the log to another process is made anew."""
TURN_SECONDS_MAX: Final = 12.0
"""How long a thread waits for the others of its process to have inserted before it."""
BELIEFS_MAX: Final = 4_096
"""Heads remembered by one recorder. Beyond them all are forgotten, which costs a read each."""

CHANGES_MAX: Final = 99
"""Rows of a view that change with its tracking: a transaction holds 100 actions, and the tracking is one."""

REFUSED: Final = "ConditionalCheckFailed"


class Beliefs:
    """What the heads were when they were last seen; None where there was none."""

    def __init__(self) -> None:
        self._rows: dict[str, Row | None] = {}

    def learn(self, key: str, row: Row | None) -> None:
        if len(self._rows) >= BELIEFS_MAX:
            self._rows.clear()
        self._rows[key] = row

    def among(self, keys: Sequence[str]) -> dict[str, Row | None]:
        found = {key: self._rows.get(key, ...) for key in keys}
        return {key: row for key, row in found.items() if row is not ...}


class _Moved(Exception):
    """Another writer changed a head first."""


class Ledger:
    """One application's log and tracking, as they are written."""

    def __init__(self, space: Space, new_id: NewId = lambda: uuid.uuid4().hex) -> None:
        self._space = space
        self._new_id = new_id
        self._turn = threading.Lock()
        self.beliefs = Beliefs()

    def insert(
        self, events: Sequence[StoredEvent], tracking: Tracking | None = None, changes: Sequence[Companion] = ()
    ) -> range:
        """
        Record *events* behind all others, *tracking*, and *changes* to a view's rows, all of it or nothing.

        Returns the notification ids. A change names the table itself. Only tracking alone brings changes.

        Raises:
            IntegrityError: a version, or the tracking, does not come after what is recorded; or a change is refused.
            DataError: there is more than one transaction holds.
            Throttled, Unavailable: nothing happened.
            Uncertain: it may have happened.
        """
        if events and changes:
            raise ValueError("a view's changes come with tracking alone")
        if len(changes) > CHANGES_MAX:
            raise DataError(f"{len(changes)} changes at once; {CHANGES_MAX} go with one tracking.")
        if not events and tracking is None:
            return range(0)
        versions = versions_of(events, originators_max=ORIGINATORS_MAX - (tracking is not None))
        if tracking is not None:
            check_name(tracking.application_name)
        body = pack(events) if events else b""
        insert = _Insert(self._space, self._new_id(), len(events), body, versions, tracking, tuple(changes))
        with self._its_turn():
            try:
                return repeat(lambda: self._attempt(insert), on=_Moved, budget=ROUNDS, clock=self._space.database.clock)
            except _Moved as error:
                raise _contended() from error

    @contextmanager
    def _its_turn(self) -> Iterator[None]:
        """Let one thread after the other meet the head of the log: two at once could only refuse each other."""
        if not self._turn.acquire(timeout=max(0.0, min(TURN_SECONDS_MAX, seconds_left()))):
            raise _contended()
        try:
            yield
        finally:
            self._turn.release()

    def _attempt(self, insert: "_Insert") -> range:
        believed = self._believed(insert.keys())
        insert.check(believed)
        for originator in insert.versions:
            key = self._space.originator_key(originator)
            if head_of(believed[key]).is_full:
                believed[key] = self._close(originator, believed[key])
        after = insert.rows_after(believed)
        actions = insert.actions(believed, after)
        try:
            transact_once(self._space.database, actions, is_final=insert.is_told)
        except Cancelled as cancelled:
            if insert.is_among(cancelled.reasons):
                return insert.positions(believed)
            self._learn_from(list(after), cancelled, insert.head_index)
            insert.refuse_changes(cancelled.reasons)
            raise _Moved from cancelled
        for key, row in after.items():
            self.beliefs.learn(key, row)
        return insert.positions(believed)

    def _believed(self, keys: Sequence[str]) -> dict[str, Row | None]:
        believed = self.beliefs.among(keys)
        places = [(self._space.table, key, SOLE) for key in keys if key not in believed]
        found = get_many(self._space.database, places)
        for place in places:
            believed[place[1]] = found.get(place)
            self.beliefs.learn(place[1], found.get(place))
        return believed

    def _close(self, originator: str, before: Row | None) -> Row:
        """Move the places that an originator's head has collected into a block, so that the head stays small."""
        key, head = self._space.originator_key(originator), head_of(before)
        row = head_row(head.closed())
        block = Put(
            self._space.table,
            {"pk": self._space.block_key(originator), "sk": ordered(head.last)},
            block_row(head),
        )
        moved = _moved(self._space.table, key, before, row)
        actions = [companion_action(change, self._space.table) for change in (moved, block)]
        try:
            # Revisions only rise: what stands in the way once does so for ever.
            transact_once(self._space.database, actions, is_final=lambda _cancelled: True)
        except Cancelled as cancelled:
            # Whoever changed the head: it is read in the refusal, and the insert begins anew.
            self._learn_from([key], cancelled)
            raise _Moved from cancelled
        self.beliefs.learn(key, row)
        return row

    def _learn_from(self, keys: Sequence[str], cancelled: Cancelled, start: int = 0) -> None:
        """Take the heads at *keys*, whose actions begin at *start*, as the refusal shows them."""
        if all(reason.code != REFUSED for reason in cancelled.reasons):
            raise cancelled  # a reason that is no condition's: a fault of ours, which no repeat would heal
        for key, reason in zip(keys, cancelled.reasons[start:], strict=False):
            if reason.code == REFUSED:
                self.beliefs.learn(key, from_item(reason.item) if reason.item is not None else None)


@dataclass(frozen=True)
class _Insert:
    """What one insert is to record, whatever it finds."""

    space: Space
    operation: str
    count: int
    body: bytes
    versions: Mapping[str, tuple[int, int]]
    """Each originator's first and last version."""
    tracking: Tracking | None
    changes: tuple[Companion, ...]

    @property
    def head_index(self) -> int:
        """Say which action is the first that moves a head: the segment's is before them."""
        return 1 if self.count else 0

    def keys(self) -> list[str]:
        """Name the heads that it moves, in the order of its actions."""
        tracking = [self.space.tracking_key(self.tracking.application_name)] if self.tracking else []
        log = [self.space.log_head_key()] if self.count else []
        return [*tracking, *log, *map(self.space.originator_key, self.versions)]

    def check(self, believed: Mapping[str, Row | None]) -> None:
        """
        Refuse what cannot come to be: whatever is believed, heads have only risen since.

        Raises:
            IntegrityError: a version, or the tracking, does not come after what is recorded.
        """
        if self.tracking:
            tracked = last_position(believed[self.space.tracking_key(self.tracking.application_name)])
            if self.tracking.notification_id <= tracked:
                raise IntegrityError(f"{self.tracking} does not come after {tracked}, which is recorded.")
        for originator, (first, _) in self.versions.items():
            last = head_of(believed[self.space.originator_key(originator)]).last
            if first <= last:
                raise IntegrityError(f"Version {first} of {originator} does not come after {last}, which is recorded.")

    def positions(self, believed: Mapping[str, Row | None]) -> range:
        if not self.count:
            return range(0)
        first = last_position(believed[self.space.log_head_key()]) + 1
        return range(first, first + self.count)

    def rows_after(self, believed: Mapping[str, Row | None]) -> dict[str, Row]:
        """Say what the heads will be, in the order of `keys`."""
        last = self.positions(believed).stop - 1
        after: dict[str, Row] = {}
        if self.tracking:
            key = self.space.tracking_key(self.tracking.application_name)
            after[key] = {"v": self.tracking.notification_id, "op": self.operation}
        if self.count:
            after[self.space.log_head_key()] = {"v": last}
        for originator, (_, version) in self.versions.items():
            key = self.space.originator_key(originator)
            after[key] = head_row(head_of(believed[key]).extended(version, last))
        return after

    def actions(self, believed: Mapping[str, Row | None], after: Mapping[str, Row]) -> list[Mapping[str, Any]]:
        table, positions = self.space.table, self.positions(believed)
        actions: list[Mapping[str, Any]] = []
        if self.count:
            segment = {
                "pk": self.space.log_key(),
                "sk": segment_key(positions.stop - 1),
                "first": positions.start,
                "op": self.operation,
                "ev": self.body,
            }
            actions.append({"Put": put_action(table, to_item(segment))})
        moves = [_moved(table, key, believed[key], row) for key, row in after.items()]
        return [*actions, *(companion_action(change, change.table) for change in itertools.chain(moves, self.changes))]

    def is_among(self, reasons: Sequence[Reason]) -> bool:
        """Tell whether what stands in the way is this very insert, done by an attempt that got no answer."""
        return any(reason.item is not None and from_item(reason.item).get("op") == self.operation for reason in reasons)

    def is_told(self, cancelled: Cancelled) -> bool:
        """
        Tell whether a refusal is for ever.

        Where there are events, it is: heads only rise, and the segment is there to say whose it is. Tracking alone
        is written over by the tracking that comes next, so if that has come nothing says what was before; and what
        only a view's row refuses now may be allowed when an attempt arrives that is still on its way.
        """
        if self.count or self.tracking is None:
            return True
        refusal = cancelled.reasons[0]
        if refusal.code != REFUSED or refusal.item is None:
            return False
        return last_position(from_item(refusal.item)) <= self.tracking.notification_id

    def refuse_changes(self, reasons: Sequence[Reason]) -> None:
        """
        Say that a view's row is not as its change wants it, unless tracking says more.

        Raises:
            IntegrityError: the condition of a change does not hold.
        """
        if not self.changes or reasons[0].code == REFUSED:
            return
        for index, reason in enumerate(reasons[1:]):
            if reason.code == REFUSED:
                raise IntegrityError(f"The condition of change {index} does not hold.")


def _moved(table: str, key: str, before: Row | None, after: Row) -> Put | Update:
    """Write a head that must not exist yet, or must still be as it was believed."""
    place = {"pk": key, "sk": SOLE}
    return Put(table, place, after) if before is None else Update(table, place, (Is("v", before["v"]),), set=after)


def _contended() -> Unavailable:
    return Unavailable(
        "contended", "Too many writers meet at the head of this log. Nothing happened; repeat.", retry_after_seconds=1
    )
