"""Reading a view: which generation is live, how far it has come, its rows, and waiting for one's own writes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from holdfast.dynamodb.reads import Row, RowKey, get, get_many, query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database
from holdfast.errors import NotFound, Unavailable
from holdfast.log.heads import head_of
from holdfast.log.reader import LogReader
from holdfast.log.values import PARTITIONS, SOLE, Head, head_key, partition_of
from holdfast.projections.rows import (
    Generation,
    Pointer,
    attributes_of,
    checkpoint_key,
    checkpoint_of,
    is_there,
    parked_key,
    pointer_key,
    pointer_of,
    row_key,
)
from holdfast.projections.views import Attributes, Checkpoint, Key

WAIT_SECONDS_MAX: Final = 5.0
"""How long a reader waits for its own writes."""
POLL_SECONDS: Final = 0.05


class Standing(msgspec.Struct, frozen=True):
    """How far a generation has come, beside how far the log has."""

    generation: Generation
    checkpoints: tuple[Checkpoint, ...]
    heads: tuple[Head, ...]

    @property
    def positions(self) -> dict[int, int]:
        return {partition: checkpoint.position for partition, checkpoint in enumerate(self.checkpoints)}

    def lag_seconds(self, now: datetime) -> float:
        """
        Say for how long, at least, the view has lacked an event of the log; 0 if it lacks none.

        What it lacks was recorded after the newest event that it has, and by the time that the head tells.
        """
        since = [
            checkpoint.recorded_at if checkpoint.position else head.recorded_at or now
            for checkpoint, head in zip(self.checkpoints, self.heads, strict=True)
            if checkpoint.position < head.position
        ]
        return max(0.0, (now - min(since)).total_seconds()) if since else 0.0

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """Bound the events' own times; None where there is no event."""
        earliest = [checkpoint.earliest for checkpoint in self.checkpoints if checkpoint.earliest]
        latest = [checkpoint.latest for checkpoint in self.checkpoints if checkpoint.latest]
        return (min(earliest), max(latest)) if earliest and latest else None


@dataclass(frozen=True)
class ViewReader:
    """One tenant's read models."""

    database: Database
    tables: Tables
    tenant: str

    def pointer(self, view: str) -> Pointer:
        return pointer_of(get(self.database, self.tables.views, *pointer_key(view, self.tenant)))

    def standing(self, view: str, number: int | None = None) -> Standing:
        """
        Say how far the live generation has come, or the one with *number*, in two requests.

        Raises:
            NotFound: `generation_not_found`.
        """
        pointer = self.pointer(view)
        if number is not None and not is_there(pointer, number):
            raise NotFound("generation_not_found", f"The view {view!r} has no generation {number}.")
        generation = Generation(view, number or pointer.live, self.tenant)
        places: list[RowKey] = []
        for partition in range(PARTITIONS):
            places.append((self.tables.views, *checkpoint_key(generation, partition)))
            places.append((self.tables.log, head_key(self.tenant, partition), SOLE))
        rows = get_many(self.database, places)
        return Standing(
            generation,
            tuple(checkpoint_of(rows.get(place)) for place in places[::2]),
            tuple(head_of(self.tenant, partition, rows.get(place)) for partition, place in enumerate(places[1::2])),
        )

    def rows(
        self,
        generation: Generation,
        pk: str,
        *,
        after: str | None = None,
        first: str | None = None,
        until: str | None = None,
        prefix: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[str, Attributes]]:
        """Yield the rows under *pk* with their sort keys; bounds as in `holdfast.dynamodb.reads.query`."""
        key, _ = row_key(generation, Key(pk, ""))
        found: Iterator[Row] = query(
            self.database,
            self.tables.views,
            key,
            after=after,
            first=first,
            until=until,
            prefix=prefix,
            newest_first=newest_first,
            limit=limit,
        )
        for row in found:
            yield row["sk"], attributes_of(row)

    def wait_for(self, view: str, stream: str, version: int) -> int:
        """
        Wait until the live generation holds *version* of *stream*, so that a caller reads its own writes.

        Returns its number: it may not be the live one any more when its rows are read, and is kept.

        Raises:
            Unavailable: `view_behind`, after WAIT_SECONDS_MAX.
        """
        clock = self.database.clock
        until = clock.monotonic() + WAIT_SECONDS_MAX
        log, partition, position = LogReader(self.database, self.tables, self.tenant), partition_of(stream), 0
        while True:
            if not position:
                watermark = log.watermark(stream)
                # Of the stream's newest event by then: at or beyond the one that is waited for, and it moves no more.
                position = watermark.position if watermark.version >= version else 0
            if position:
                generation = Generation(view, self.pointer(view).live, self.tenant)
                row = get(self.database, self.tables.views, *checkpoint_key(generation, partition))
                checkpoint = checkpoint_of(row)
                if checkpoint.position >= position and not (
                    checkpoint.parked and self._stands_still(generation, partition, stream, version)
                ):
                    return generation.number
            if clock.monotonic() >= until:
                raise Unavailable(
                    "view_behind",
                    f"The view {view!r} does not hold {stream}@{version} yet. Repeat, or read without waiting.",
                    retry_after_seconds=1,
                )
            clock.sleep(POLL_SECONDS)

    def _stands_still(self, generation: Generation, partition: int, stream: str, version: int) -> bool:
        """Tell whether the stream is parked before *version*: the view lacks that, whatever its checkpoint says."""
        row = get(self.database, self.tables.views, parked_key(generation, partition), stream)
        return row is not None and row["v"] <= version
