"""
Finding the commits that a past state needs, without reading the others.

A state asks for events up to a version, an event time and a recorded time. Along a stream's blocks, versions, recorded
times and the latest event time so far only rise; so there is one last block up to which everything counts, found by
descending through them. Behind it lie runs whose events all happened too late, and are skipped, and others that hold
an early event that arrived late, and are read. The sequence is filtered, never cut.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from holdfast.dynamodb.attributes import ordered
from holdfast.dynamodb.reads import query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database
from holdfast.log.blocks import Block, Watermark, block_of
from holdfast.log.values import block_key


class Bounds(msgspec.Struct, frozen=True):
    """Up to where events count; times in microseconds, None for no bound."""

    version: int
    at: int | None = None
    known_at: int | None = None

    def covers(self, block: Block) -> bool:
        """Tell whether every event of the stream up to the end of *block* counts."""
        return (
            block.version <= self.version
            and (self.at is None or block.latest <= self.at)
            and (self.known_at is None or block.recorded_at <= self.known_at)
        )

    def may_touch(self, block: Block) -> bool:
        """Tell whether an event of *block* itself may count."""
        return block.first_version <= self.version and (self.at is None or block.earliest <= self.at)


class Run(msgspec.Struct, frozen=True):
    """Versions to read, both included."""

    first: int
    last: int


@dataclass(frozen=True)
class History:
    """The blocks of one stream as they stood when *watermark* was read."""

    database: Database
    tables: Tables
    tenant: str
    stream: str
    watermark: Watermark
    _known: dict[tuple[int, int, int], tuple[Block, ...]] = field(default_factory=dict)
    """What was read of the blocks: where a state begins and what it reads are found in the same ones."""

    def covered(self, bounds: Bounds) -> Block | None:
        """Find the last block up to which every event counts; one of level 0 ends where it does."""
        found: Block | None = None
        blocks: Iterable[Block] = self._closed()
        while True:
            uncovered = None
            for block in blocks:
                if not bounds.covers(block):
                    uncovered = block
                    break
                found = block
            if uncovered is None or uncovered.level == 0:
                return found
            blocks = self._within(uncovered)

    def closed(self, after: int) -> Iterator[Block]:
        """Yield the closed blocks of level 0 that begin beyond version *after*, in order."""
        last = self.watermark.open_from - 1
        return self._read(0, after + 1, last) if after < last else iter(())

    def runs(self, after: int, bounds: Bounds) -> Iterator[Run]:
        """Yield what has to be read beyond version *after*, in order."""
        joined: Run | None = None
        for run in (*self._closed_runs(self._closed(), after, bounds), self._open_run(after, bounds)):
            if run.first > run.last:
                continue
            if joined and run.first == joined.last + 1:
                joined = Run(joined.first, run.last)
                continue
            if joined:
                yield joined
            joined = run
        if joined:
            yield joined

    def _open_run(self, after: int, bounds: Bounds) -> Run:
        """Beyond the closed blocks everything is read, also what is not indexed yet."""
        return Run(max(after + 1, self.watermark.open_from), bounds.version)

    def _closed_runs(self, blocks: Iterable[Block], after: int, bounds: Bounds) -> Iterator[Run]:
        for block in blocks:
            if block.version <= after or not bounds.may_touch(block):
                continue
            if block.level and not (block.first_version > after and bounds.covers(block)):
                yield from self._closed_runs(self._within(block), after, bounds)
            else:
                yield Run(max(after + 1, block.first_version), min(block.version, bounds.version))

    def _closed(self) -> Iterator[Block]:
        """
        Yield the largest closed blocks that together hold all closed ones, in order.

        Those of one level that are not part of a closed block of the next are those that its open block counts.
        """
        for level in range(len(self.watermark.levels) - 2, -1, -1):
            own, above = self.watermark.levels[level : level + 2]
            if above.count:
                # The block that was open then may be closed by now; it begins where its open end did.
                last = own.first_version - 1 if own.count else self.watermark.version
                yield from self._blocks(level, above.first_version, last)

    def _within(self, block: Block) -> tuple[Block, ...]:
        return self._blocks(block.level - 1, block.first_version, block.version)

    def _blocks(self, level: int, first: int, last: int) -> tuple[Block, ...]:
        """Read the blocks of one level, FANOUT at most, that begin within *first* to *last*."""
        if (level, first, last) not in self._known:
            self._known[level, first, last] = tuple(self._read(level, first, last))
        return self._known[level, first, last]

    def _read(self, level: int, first: int, last: int) -> Iterator[Block]:
        pk = block_key(self.tenant, self.stream, level)
        for row in query(self.database, self.tables.log, pk, first=ordered(first), until=ordered(last)):
            yield block_of(row, level)
