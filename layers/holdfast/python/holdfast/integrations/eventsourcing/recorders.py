"""
The library's four recorders.

They keep the library's promises and are stricter in one: an originator's versions rise, so a version that is lower than
one recorded is refused, even if it is free. Snapshots, which an `AggregateRecorder` keeps, may come in any order.
"""

import itertools
import threading
import uuid
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    DataError,
    IntegrityError,
    Notification,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)

from holdfast.dynamodb.attributes import from_item, ordered, to_item
from holdfast.dynamodb.reads import get, query
from holdfast.dynamodb.transport import Cancelled
from holdfast.dynamodb.writes import put_action, put_new, transact_once
from holdfast.integrations.eventsourcing.history import History
from holdfast.integrations.eventsourcing.ledger import Ledger
from holdfast.integrations.eventsourcing.refusals import library_errors
from holdfast.integrations.eventsourcing.rows import (
    SOLE,
    VERSION_MAX,
    OriginatorId,
    Row,
    Space,
    check_event,
    last_position,
)
from holdfast.integrations.eventsourcing.subscriptions import HoldfastSubscription
from holdfast.streams import PACKED_BYTES_MAX
from holdfast.streams.companions import Companion
from holdfast.streams.rules import TRANSACTION_BYTES_MAX

ROWS_MAX: Final = 100
"""Events of one insert into sequences without positions: each is an item, and a transaction holds so many."""


class HoldfastAggregateRecorder(AggregateRecorder):
    """
    Sequences without positions, such as snapshots: one item per event, of up to 380,000 bytes.

    Versions may come in any order. An insert holds up to ROWS_MAX events, of 3,500,000 bytes together.
    """

    def __init__(self, space: Space, purpose: str) -> None:
        self._space = space
        self._purpose = purpose

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int] | None:
        """
        Record events, all or none of them; they have no notification ids.

        Raises:
            IntegrityError: a version is taken.
            DataError: an event, their number, or all of them together are too large.
        """
        with library_errors():
            self._insert(stored_events)
        return None

    def select_events(
        self,
        originator_id: OriginatorId,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        first = 0 if gt is None else max(gt + 1, 0)
        until = VERSION_MAX if lte is None else min(lte, VERSION_MAX)
        if first > until or (limit is not None and limit <= 0):
            return []
        with library_errors():
            return [
                StoredEvent(_id_of(row, originator_id), int(row["sk"]), row["topic"], row["state"])
                for row in query(
                    self._space.database,
                    self._space.table,
                    self._space.sequence_key(self._purpose, originator_id),
                    first=ordered(first),
                    until=ordered(until),
                    newest_first=desc,
                    limit=limit,
                )
            ]

    def _insert(self, events: Sequence[StoredEvent]) -> None:
        operation = uuid.uuid4().hex
        items = [to_item(self._row(event, operation)) for event in events]
        if len(items) > ROWS_MAX:
            raise DataError(f"{len(items)} events at once; one insert holds {ROWS_MAX}.")
        size = sum(len(event.state) + len(event.topic.encode()) for event in events)
        if size > TRANSACTION_BYTES_MAX:
            raise DataError(f"States and topics of {size} bytes at once; one insert holds {TRANSACTION_BYTES_MAX}.")
        if len({(str(event.originator_id), event.originator_version) for event in events}) < len(events):
            raise IntegrityError("Two of these events have one version.")
        standing = []
        if len(items) == 1:
            standing = [put_new(self._space.database, self._space.table, items[0])]
        elif items:
            actions = [{"Put": put_action(self._space.table, item)} for item in items]
            try:
                # What is recorded stays: what stands in the way once does so for ever.
                transact_once(self._space.database, actions, is_final=lambda _cancelled: True)
            except Cancelled as cancelled:
                standing = [reason.item for reason in cancelled.reasons]
        others = [item for item in standing if item is not None and from_item(item)["op"] != operation]
        if others:
            raise IntegrityError(f"Version {int(from_item(others[0])['sk'])} is recorded already.")

    def _row(self, event: StoredEvent, operation: str) -> Row:
        check_event(event)
        if len(event.state) > PACKED_BYTES_MAX:
            raise DataError(f"A state of {len(event.state)} bytes; an item holds {PACKED_BYTES_MAX}.")
        return {
            "pk": self._space.sequence_key(self._purpose, event.originator_id),
            "sk": ordered(event.originator_version),
            "op": operation,
            "is_uuid": isinstance(event.originator_id, UUID),
            "topic": event.topic,
            "state": event.state,
        }


def _id_of(row: Row, asked: OriginatorId) -> OriginatorId:
    return UUID(str(asked)) if row["is_uuid"] else str(asked)


class _LedgerRecorder:
    """What recorders that move heads have in common."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._ledger = Ledger(space)


class HoldfastApplicationRecorder(_LedgerRecorder, ApplicationRecorder):
    """
    Aggregates' sequences and the application's log, in one transaction.

    An insert holds up to 1,000 events of 98 originators, in 380,000 bytes after compression. What is more is refused
    whole with `DataError`: an insert is atomic, so nobody but the caller may split it.
    """

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.history = History(space, self._ledger.beliefs)
        self.waking: set[threading.Event] = set()
        """Set when something was inserted here."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """
        Record events, all or none of them, and return their notification ids.

        Raises:
            IntegrityError: a version does not come after the last of its originator.
            DataError: there is more than one insert holds.
            OutcomeUnknownError: it may have happened. Read the originators before you decide again.
            OperationalError: nothing happened.
        """
        with library_errors():
            positions = self._ledger.insert(stored_events, self._tracking_in(kwargs))
        for event in tuple(self.waking):
            event.set()
        return list(positions)

    def _tracking_in(self, kwargs: dict[str, Any]) -> Tracking | None:  # noqa: ARG002 - process recorders look
        return None

    def select_events(
        self,
        originator_id: OriginatorId,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        with library_errors():
            events = self.history.events(originator_id, gt=gt, lte=lte, desc=desc)
            return list(events if limit is None else itertools.islice(events, max(limit, 0)))

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        first = 1 if start is None else max(start + (not inclusive_of_start), 1)
        with library_errors():
            return list(self.history.notifications(first, limit, stop=stop, topics=topics))

    def max_notification_id(self) -> int | None:
        with library_errors():
            return self.history.last_position() or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        return HoldfastSubscription(self, gt, topics)


class HoldfastTrackingRecorder(_LedgerRecorder, TrackingRecorder):
    """
    How far the notifications of other applications were processed.

    A materialised view derives from it and changes its own rows with `insert_tracking_with`, exactly once.
    """

    def insert_tracking(self, tracking: Tracking) -> None:
        """
        Record that a notification was processed.

        Raises:
            IntegrityError: it, or a later one, was processed already.
            OutcomeUnknownError: it may have happened.
        """
        self.insert_tracking_with(tracking, ())

    def insert_tracking_with(self, tracking: Tracking, changes: Sequence[Companion]) -> None:
        """
        Record that a notification was processed together with what that changed, or neither.

        A change is a `Put`, `Update` or `Check` of `holdfast.streams` whose table is `self.space.table` and whose
        partition keys `self.space.view_key` makes; 99 of them go with one tracking.

        Raises:
            IntegrityError: it, or a later one, was processed already; or a change's condition does not hold.
            DataError: there are more changes than one transaction holds.
            OutcomeUnknownError: it may have happened.
        """
        with library_errors():
            self._ledger.insert((), tracking, changes)

    def max_tracking_id(self, application_name: str) -> int | None:
        with library_errors():
            key = self.space.tracking_key(application_name)
            row = get(self.space.database, self.space.table, key, SOLE)
            return None if row is None else last_position(row)


class HoldfastProcessRecorder(HoldfastTrackingRecorder, HoldfastApplicationRecorder, ProcessRecorder):
    """Events recorded together with the tracking of the notification that they come from: each processed once."""

    def _tracking_in(self, kwargs: dict[str, Any]) -> Tracking | None:
        return kwargs.get("tracking")
