"""
Reading what was recorded, by position and by originator; no read walks over what it was not asked for.

A query is not one moment: it can see a segment and miss the one before it, which became visible while it ran. Positions
have no gaps, so a reader that meets one reads again from there, and never skips.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from eventsourcing.persistence import Notification, StoredEvent

from holdfast.dynamodb.attributes import ordered
from holdfast.dynamodb.reads import KEYS_MAX, get, get_many, query
from holdfast.errors import Unavailable
from holdfast.integrations.eventsourcing.ledger import Beliefs
from holdfast.integrations.eventsourcing.rows import (
    NO_VERSION,
    SOLE,
    VERSION_MAX,
    OriginatorHead,
    OriginatorId,
    Segment,
    Share,
    Space,
    head_of,
    last_position,
    segment_key,
    segment_of,
    shares_of,
)

GAP_READS_MAX: Final = 8
"""How often a gap is read again before it counts as a fault."""
GAP_WAIT_SECONDS: Final = 0.02


class History:
    """One application's events, as they are read. What it sees of heads it adds to *beliefs*."""

    def __init__(self, space: Space, beliefs: Beliefs) -> None:
        self._space = space
        self._beliefs = beliefs

    # ----- by position

    def last_position(self) -> int:
        """Read how far the log goes; 0 where it is empty."""
        return last_position(get(self._space.database, self._space.table, self._space.log_head_key(), SOLE))

    def notifications(
        self, start: int, limit: int, *, stop: int | None = None, topics: Sequence[str] = ()
    ) -> Iterator[Notification]:
        """Yield up to *limit* notifications from *start* to *stop*, those of *topics* only if any are named."""
        # Every segment holds an event, so no more of them are needed than events; of some topics it may hold none.
        segments = self.segments(start, None if topics else limit)
        events = itertools.chain.from_iterable(segment.notifications() for segment in segments)
        wanted = itertools.takewhile(lambda each: stop is None or each.id <= stop, events)
        return itertools.islice(
            (each for each in wanted if each.id >= start and (not topics or each.topic in topics)), max(limit, 0)
        )

    def segments(self, start: int, limit: int | None) -> Iterator[Segment]:
        """
        Yield the segments that hold positions from *start* on, in order and without a gap.

        Raises:
            Unavailable: a gap stays.
        """
        expected, left = start, limit
        for attempt in range(GAP_READS_MAX):
            if attempt:
                self._space.database.clock.sleep(GAP_WAIT_SECONDS)
            for row in query(
                self._space.database,
                self._space.table,
                self._space.log_key(),
                first=segment_key(expected),
                limit=left,
            ):
                segment = segment_of(row)
                if segment.first > expected:
                    break
                yield segment
                expected = segment.last + 1
                left = None if left is None else left - 1
            else:
                return
        raise _missing(f"position {expected}")

    # ----- by originator

    def events(
        self, originator: OriginatorId, *, gt: int | None = None, lte: int | None = None, desc: bool = False
    ) -> Iterator[StoredEvent]:
        """Yield an originator's events of versions beyond *gt*, up to and with *lte*, as they are asked for."""
        low = NO_VERSION if gt is None else max(gt, NO_VERSION)
        high = VERSION_MAX if lte is None else min(lte, VERSION_MAX)
        if low >= high:
            return
        key = self._space.originator_key(originator)
        row = get(self._space.database, self._space.table, key, SOLE)
        self._beliefs.learn(key, row)
        shares = self._shares(originator, head_of(row), low, high, desc=desc)
        # A few at first: who wants one event reads one segment, who wants all soon reads a hundred at a time.
        size = 1
        while True:
            chunk = list(itertools.islice(shares, size))
            for segment in self._segments_at([share.position for share in chunk]):
                found = [event for event in segment.events_of(originator) if low < event.originator_version <= high]
                yield from reversed(found) if desc else found
            if len(chunk) < size:
                return
            size = min(size * 10, KEYS_MAX)

    def _shares(
        self, originator: OriginatorId, head: OriginatorHead, low: int, high: int, *, desc: bool
    ) -> Iterator[Share]:
        """Yield the shares that may hold versions beyond *low*, up to and with *high*."""
        if desc:
            older = self._blocks_down(originator, head.sealed, low, high)
            shares: Iterator[Share] = itertools.chain(reversed(head.recent), older)
            before = next(shares, None)
            # The share below says where the one above begins.
            for below in itertools.chain(shares, [Share(NO_VERSION, 0)]):
                if before is None or before.version <= low:
                    return
                if below.version < high:
                    yield before
                before = below
            return
        previous = NO_VERSION
        for share in itertools.chain(self._blocks_up(originator, head.sealed, low), head.recent):
            if previous >= high:
                return
            if share.version > low:
                yield share
            previous = share.version

    def _blocks_up(self, originator: OriginatorId, sealed: int, low: int) -> Iterator[Share]:
        if sealed <= low:
            return
        # What was sealed after the head was read is in the head as well.
        key = self._space.block_key(originator)
        for row in query(self._space.database, self._space.table, key, first=ordered(low + 1), until=ordered(sealed)):
            yield from shares_of(row["places"])

    def _blocks_down(self, originator: OriginatorId, sealed: int, low: int, high: int) -> Iterator[Share]:
        if sealed <= low:
            return
        key = self._space.block_key(originator)
        top = ordered(sealed)
        if high < sealed:
            # A block lies at its last version, so the one that holds *high* may lie beyond it.
            (row,) = query(self._space.database, self._space.table, key, first=ordered(high), until=top, limit=1)
            top = row["sk"]
        for row in query(self._space.database, self._space.table, key, until=top, newest_first=True):
            yield from reversed(shares_of(row["places"]))

    def _segments_at(self, positions: Sequence[int]) -> Iterator[Segment]:
        keys = [(self._space.table, self._space.log_key(), segment_key(position)) for position in positions]
        found = get_many(self._space.database, keys)
        for attempt in range(GAP_READS_MAX):
            missing = [key for key in keys if key not in found]
            if not missing:
                break
            self._space.database.clock.sleep(GAP_WAIT_SECONDS * (attempt + 1))
            found |= get_many(self._space.database, missing)
        else:
            raise _missing(f"a segment of {len(missing)}")
        return map(segment_of, (found[key] for key in keys))


def _missing(what: str) -> Unavailable:
    return Unavailable("log_gap", f"The log names {what} and does not show it. Repeat; if it stays so, rows were lost.")
