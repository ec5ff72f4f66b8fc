"""How fast a rebuild goes, and how long it will take: pure."""

from collections.abc import Sequence
from datetime import datetime

import msgspec


class Pace(msgspec.Struct, frozen=True):
    """Events a second since the rebuild began, and the seconds that are left at that rate; None while unknown."""

    rate: float | None
    remaining_seconds: float | None


def pace_of(
    positions: Sequence[int],
    targets: Sequence[int],
    *,
    started_at: datetime,
    finished_at: datetime | None,
    now: datetime,
) -> Pace:
    """Measure how far the partitions have come towards where the log stood when the rebuild began."""
    done = sum(map(min, positions, targets))
    left = sum(targets) - done
    seconds = ((finished_at or now) - started_at).total_seconds()
    rate = round(done / seconds, 1) if seconds > 0 and done else None
    if finished_at or not left:
        return Pace(rate, 0.0)
    return Pace(rate, round(left / rate, 1) if rate else None)
