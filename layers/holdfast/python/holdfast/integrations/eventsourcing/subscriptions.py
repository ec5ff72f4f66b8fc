"""
Subscriptions: notifications as they come, from this process or another.

Who inserts through the same recorder wakes its subscriptions at once. Of others nothing is told, so a subscription
looks: soon after something came, and ever more seldom while nothing comes.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from eventsourcing.persistence import ApplicationRecorder, Notification, Subscription

from holdfast.integrations.eventsourcing.refusals import library_errors

if TYPE_CHECKING:
    from holdfast.integrations.eventsourcing.recorders import HoldfastApplicationRecorder

FIRST_WAIT_SECONDS: Final = 0.05
LONGEST_WAIT_SECONDS: Final = 1.0
"""How late a subscription may see what another process inserts."""
SEGMENTS_MAX: Final = 100
"""Segments that one look reads at most, whatever topics they hold."""


class HoldfastSubscription(Subscription[ApplicationRecorder]):
    """
    Iterates over notifications beyond *gt*, and waits for more.

    It reads in the thread that iterates, where its errors surface; `stop` may come from any.
    """

    def __init__(
        self, recorder: "HoldfastApplicationRecorder", gt: int | None = None, topics: Sequence[str] = ()
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._history = recorder.history
        self._waking = recorder.waking
        self._seen = max(gt or 0, 0)
        """The last position that was looked at, whatever its topic."""
        self._come: deque[Notification] = deque()
        self._woken = threading.Event()
        self._waking.add(self._woken)

    def stop(self) -> None:
        super().stop()
        self._waking.discard(self._woken)
        self._woken.set()

    def __next__(self) -> Notification:
        wait_seconds = FIRST_WAIT_SECONDS
        while not self._has_been_stopped:
            if self._come:
                return self._come.popleft()
            self._woken.clear()
            if self._look():
                wait_seconds = FIRST_WAIT_SECONDS
            elif not self._has_been_stopped:
                self._woken.wait(wait_seconds)
                wait_seconds = min(2 * wait_seconds, LONGEST_WAIT_SECONDS)
        raise StopIteration

    def _look(self) -> bool:
        """Read what has come, and say whether anything has."""
        before = self._seen
        with library_errors():
            for segment in self._history.segments(before + 1, SEGMENTS_MAX):
                self._come += (
                    each
                    for each in segment.notifications()
                    if each.id > before and (not self._topics or each.topic in self._topics)
                )
                self._seen = segment.last
        return self._seen > before
