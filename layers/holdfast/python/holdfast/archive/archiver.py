"""Archiving all logs of one service, a few seconds at a time."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec

from holdfast.archive.partition import RANGE_BYTES, WORKERS, YOUNGEST, Moved, Partition
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database
from holdfast.errors import Unavailable
from holdfast.log.bodies import Lost
from holdfast.log.heads import heads
from holdfast.objects import Damaged, Objects
from holdfast.retry import deadline, seconds_left

HOT_DAYS: Final = 90
"""How long a commit stays in the table, at least."""
SECONDS_MAX: Final = 50.0
"""How long one call works; whatever it leaves is gone on with by the next."""


class Stuck(msgspec.Struct, frozen=True):
    """A partition that cannot be archived: somebody has to look. Nothing of it is removed until then."""

    tenant: str
    partition: int
    reason: str


class Report(msgspec.Struct, frozen=True):
    """What one call did."""

    commits: int
    """Archived."""
    removed: int
    """From the table."""
    is_done: bool
    """Nothing is left that is old enough."""


@dataclass(frozen=True)
class Archiver:
    """Move the commits of one service out of its table once they are *hot_days* old."""

    database: Database
    tables: Tables
    objects: Objects
    on_stuck: Callable[[Stuck], None]
    """Told of a partition that cannot be archived; all others are."""
    hot_days: float = HOT_DAYS
    range_bytes: int = RANGE_BYTES
    workers: int = WORKERS

    def __post_init__(self) -> None:
        if timedelta(days=self.hot_days) < YOUNGEST:
            raise ValueError(
                "Commits stay in the table for a day at least: writers stand on what they have read there."
            )

    def run(self, seconds: float = SECONDS_MAX) -> Report:
        """
        Archive what is old enough, range by range and each partition in turn, for so many *seconds*.

        May be repeated, run beside itself, and be stopped anywhere.

        Raises:
            Throttled, Unavailable, Uncertain: a store does not answer; the next call goes on.
        """
        moved = list[Moved]()
        with deadline(seconds, self.database.clock):
            try:
                is_done = self._run(moved)
            except Unavailable:
                if seconds_left() > 0:
                    raise
                is_done = False
        return Report(sum(each.commits for each in moved), sum(each.removed for each in moved), is_done)

    def _run(self, moved: list[Moved]) -> bool:
        partitions = [self.partition(head.tenant, head.partition) for head in heads(self.database, self.tables)]
        random.shuffle(partitions)  # where there is more to do than time, everybody comes first at some time
        pending = deque(partitions)
        while pending:
            if seconds_left() <= 0:
                return False
            partition = pending.popleft()
            try:
                one = partition.archive()
            except (Damaged, Lost) as error:
                self.on_stuck(Stuck(partition.tenant, partition.number, f"{type(error).__name__}: {error}"))
                continue
            if one:
                moved.append(one)
                pending.append(partition)
        return True

    def partition(self, tenant: str, number: int) -> Partition:
        """Name one partition, to archive it by itself."""
        hot = timedelta(days=self.hot_days)
        return Partition(self.database, self.tables, self.objects, tenant, number, hot, self.range_bytes, self.workers)
