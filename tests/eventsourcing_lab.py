"""Recorders on a store in memory, events for them, and what must always hold of what they recorded."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eventsourcing.persistence import Notification, StoredEvent

from holdfast.clock import ManualClock
from holdfast.dynamodb import Answer, Database, Transport
from holdfast.integrations.eventsourcing import (
    HoldfastAggregateRecorder,
    HoldfastApplicationRecorder,
    HoldfastProcessRecorder,
    HoldfastTrackingRecorder,
)
from holdfast.integrations.eventsourcing.history import History
from holdfast.integrations.eventsourcing.ledger import Beliefs
from holdfast.integrations.eventsourcing.rows import Space
from tests.memory_dynamodb import MemoryTransport

TABLE = "events"


def stored(originator: str, *versions: int, topic: str = "happened", state: bytes | None = None) -> list[StoredEvent]:
    return [
        StoredEvent(originator, version, topic, state if state is not None else f"{originator}@{version}".encode())
        for version in versions
    ]


def memory() -> MemoryTransport:
    transport = MemoryTransport()
    transport.create_table(TABLE, "S")
    return transport


class ForgetfulTransport:
    """A store that has forgotten every request token, as DynamoDB does after ten minutes: only rows can tell."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        without = {name: value for name, value in request.items() if name != "ClientRequestToken"}
        return self._inner.call(operation, without)


@dataclass
class RecorderLab:
    """One application's space. Every recorder made here is another process: it shares nothing but the table."""

    memory: MemoryTransport = field(default_factory=memory)
    clock: ManualClock = field(default_factory=ManualClock)

    @property
    def transport(self) -> Transport:
        return ForgetfulTransport(self.memory)

    def copy(self) -> "RecorderLab":
        return RecorderLab(self.memory.copy())

    def space(self, transport: Transport | None = None) -> Space:
        return Space(Database.connect(transport or self.transport, self.clock), TABLE, "app")

    def application(self, transport: Transport | None = None) -> HoldfastApplicationRecorder:
        return HoldfastApplicationRecorder(self.space(transport))

    def process(self, transport: Transport | None = None) -> HoldfastProcessRecorder:
        return HoldfastProcessRecorder(self.space(transport))

    def tracking(self, transport: Transport | None = None) -> HoldfastTrackingRecorder:
        return HoldfastTrackingRecorder(self.space(transport))

    def snapshots(self, transport: Transport | None = None) -> HoldfastAggregateRecorder:
        return HoldfastAggregateRecorder(self.space(transport), "snapshots")

    def log(self) -> list[Notification]:
        """Read all that was recorded; see to it that both ways of reading agree and no position is missing."""
        history = History(self.space(), Beliefs())
        notifications = list(history.notifications(1, 1_000_000))
        assert [each.id for each in notifications] == list(range(1, len(notifications) + 1))
        assert history.last_position() == len(notifications)
        by_originator = sorted(notifications, key=lambda each: str(each.originator_id))
        for originator, group in itertools.groupby(by_originator, key=lambda each: each.originator_id):
            assert list(history.events(originator)) == [_without_position(each) for each in group]
        return notifications


def _without_position(notification: Notification) -> StoredEvent:
    return StoredEvent(
        notification.originator_id, notification.originator_version, notification.topic, notification.state
    )


def places(events: Sequence[StoredEvent]) -> list[tuple[str, int]]:
    return [(str(event.originator_id), event.originator_version) for event in events]
