"""
Moving all subscriptions: where the log has grown, and, once in a while, wherever one stands behind.

What has grown is only a hint. The sweep finds what no hint told of, what could not be sent then, and streams whose time
to be tried again has come. They are taken in an order of chance, and each has a share of the time that is left: none
holds up the others, whatever its target does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, Final, TypeVar

import msgspec

from holdfast import telemetry
from holdfast.clock import to_micros
from holdfast.errors import ServiceError, Unavailable
from holdfast.log.reader import LogReader
from holdfast.retry import seconds_left
from holdfast.subscriptions import rows
from holdfast.subscriptions.delivering import Deliverer
from holdfast.subscriptions.registry import Subscriptions
from holdfast.subscriptions.rows import Checkpoint, Track

T = TypeVar("T")

RESTING: Final = timedelta(seconds=10)
"""How long the sweep leaves alone what somebody has moved: he is probably still at it."""


SHARE_SECONDS_MIN: Final = 2.0
"""What each is given at least, as long as there is time: less may not suffice for a single call."""


class Followed(msgspec.Struct, frozen=True):
    """What came of a call."""

    tracks: int
    """Subscriptions times partitions that were looked after."""
    failed: int
    """Those of them that are held up: their targets do not answer, or are not allowed any more."""
    unfinished: int = 0
    """Those of them that had more to send than there was time for."""
    parked: int | None = None
    """Streams that were parked when a sweep began, as far as it has looked; None where nobody looked."""


@dataclass(frozen=True)
class Follower:
    """Move every subscription of a service."""

    deliverer: Deliverer

    def follow(self, grown: Iterable[tuple[str, int]]) -> Followed:
        """Move the subscriptions of tenants along partitions that have grown."""
        tracks: list[Track] = []
        partitions: dict[str, set[int]] = {}
        for tenant, partition in grown:
            partitions.setdefault(tenant, set()).add(partition)
        for tenant, grown_ones in sorted(partitions.items()):
            tracks += [
                Track(subscription, partition)
                for subscription in self._registry(tenant).all()
                for partition in sorted(grown_ones)
            ]
        return self._move(tracks)

    def sweep(self) -> Followed:
        """
        Move every subscription that stands behind, or has streams that stand still.

        Half of the time may go into finding them; whom it does not suffice for comes first in another sweep.
        """
        tracks: list[Track] = []
        parked, half = 0, seconds_left() / 2
        for tenant in self._shuffled(rows.tenants(self.deliverer.database, self.deliverer.tables)):
            if seconds_left() < half:
                break
            registry = self._registry(tenant)
            checkpoints = [each for subscription in registry.all() for each in registry.checkpoints(subscription)]
            tracks += self._neglected(tenant, checkpoints)
            parked += self._parked(checkpoints)
        return msgspec.structs.replace(self._move(tracks), parked=parked)

    def _neglected(self, tenant: str, checkpoints: Sequence[tuple[Track, Checkpoint]]) -> list[Track]:
        if not checkpoints:
            return []
        heads = LogReader(self.deliverer.database, self.deliverer.tables, tenant).heads()
        now = self.deliverer.database.clock.now()
        return [
            track
            for track, checkpoint in checkpoints
            if (checkpoint.standing or checkpoint.position < heads[track.partition].position)
            and (checkpoint.moved_at is None or abs(now - checkpoint.moved_at) >= RESTING)
        ]

    def _parked(self, checkpoints: Sequence[tuple[Track, Checkpoint]]) -> int:
        standing = [track for track, checkpoint in checkpoints if checkpoint.standing]
        stands = [each.stands(self.deliverer.database, self.deliverer.tables) for each in standing]
        return sum(stand.is_parked for each in stands for stand in each)

    def _move(self, tracks: Sequence[Track]) -> Followed:
        order = self._shuffled(tracks)
        failed = unfinished = 0
        for number, track in enumerate(order):
            share = max(SHARE_SECONDS_MIN, seconds_left() / (len(order) - number))
            try:
                self.deliverer.move(track.subscription, track.partition, seconds=share)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this subscription's, and the others go on
                if isinstance(error, Unavailable) and error.code in _OF_TIME:
                    unfinished += 1
                else:
                    failed += 1
                    self._tell(track, error)
        return Followed(len(order), failed, unfinished)

    def _tell(self, track: Track, error: Exception) -> None:
        subscription = track.subscription
        named: dict[str, Any] = {
            "tenant": subscription.tenant,
            "subscription": subscription.name,
            "partition": track.partition,
        }
        if isinstance(error, ServiceError):
            telemetry.logger().warning("A subscription is held up.", **named, reason=str(error))
        else:
            telemetry.logger().error("A subscription cannot be moved.", **named, exc_info=error)
            self.deliverer.on_bug(error, subscription)

    def _shuffled(self, items: Iterable[T]) -> list[T]:
        order = list(items)
        Random(to_micros(self.deliverer.database.clock.now())).shuffle(order)  # noqa: S311 - it keeps no secret
        return order

    def _registry(self, tenant: str) -> Subscriptions:
        deliverer = self.deliverer
        return Subscriptions(deliverer.database, deliverer.tables, tenant, deliverer.allowed)


_OF_TIME: Final = frozenset({"unfinished", "out_of_time"})
