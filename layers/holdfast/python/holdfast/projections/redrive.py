"""
Redrive: a stream that stood still in a view goes on, in its order, from the event that could not be taken.

What it missed is taken in batches like any other, each with the checkpoint and the place where the stream stands in
one transaction. That is moved on also where other streams alone have written: what was looked through is not looked
through again. When the stream has caught up with the checkpoint it is parked no more.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec

from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.batches import put_many
from holdfast.dynamodb.reads import get, query
from holdfast.dynamodb.writes import carry_out, delete_action, update_action
from holdfast.errors import Unavailable
from holdfast.log.values import Entry
from holdfast.projections import batches
from holdfast.projections.batches import Batch, Parked, Selection
from holdfast.projections.projector import Projector, Step
from holdfast.projections.rows import Generation, parked_key, parked_of, parked_row
from holdfast.projections.views import Counting, Listing, View
from holdfast.retry import seconds_left
from holdfast.streams.companions import Change, Is

ROUNDS_MAX: Final = 10_000
"""Batches in one call."""
COMMITS_MAX: Final = 10_000
"""Commits of the log, of all streams, that one batch looks through: about a hundred segments."""


@dataclass
class _Stretch:
    """The commits of one stream in the next part of the log, and how far that was looked through."""

    entries: Iterator[Entry]
    stream: str
    position: int

    def __iter__(self) -> Iterator[Entry]:
        for entry in islice(self.entries, COMMITS_MAX):
            self.position = entry.last_position
            if entry.reference.stream == self.stream:
                yield entry


@dataclass(frozen=True)
class Redrive:
    """Look at parked streams, and let them go on."""

    projector: Projector

    def parked(self, generation: Generation, partition: int) -> Iterator[Parked]:
        """Yield the streams that stand still."""
        for row in query(self._database, self._views, parked_key(generation, partition)):
            yield parked_of(row, partition)

    def find(self, generation: Generation, partition: int, stream: str) -> Parked | None:
        """Say where a stream stands still; None if it does not."""
        row = get(self._database, self._views, parked_key(generation, partition), stream)
        return parked_of(row, partition) if row else None

    def stream(
        self, view: View, generation: Generation, partition: int, stream: str, *, effects_from: int | None = None
    ) -> Parked | None:
        """
        Let a parked stream go on; return where it stands still again, or None if it does not (any more).

        *view* is of the version that has made the generation; effects are as in `Projector.advance`.

        Raises:
            Unavailable: `unfinished`; repeat.
        """
        try:
            for _ in range(ROUNDS_MAX):
                parked = self.find(generation, partition, stream)
                if parked is None:
                    return None
                if seconds_left() <= 0:
                    break
                step = Step(generation, partition, self.projector.checkpoint(generation, partition))
                entries = self.projector.entries(step, parked.position - 1, step.before.position)
                stretch = _Stretch(entries, stream, parked.position - 1)
                batch = self._built(view, step, parked, stretch)
                if batch.parked and batch.parked[0].position == parked.position:
                    return msgspec.structs.replace(parked, reason=batch.parked[0].reason)
                if effects_from is not None:
                    self.projector.have_effects(view, batch, effects_from)
                self._write(view, step, batch, before=parked, after=_next(parked, batch, stretch.position))
        except Unavailable as error:
            if error.code != "out_of_time":
                raise
        raise Unavailable("unfinished", "There is more to redrive than there was time for; repeat.")

    def _built(self, view: View, step: Step, parked: Parked, stretch: _Stretch) -> Batch:
        missed = self.projector.events(step, stretch, parked.position - 1, step.before.position)
        selection = Selection(missed)
        if isinstance(view, Listing):
            return batches.listing(view, step.before, selection, frozenset())
        chosen = batches.chosen(view, selection, frozenset())
        return batches.counting(view, step.before, chosen, self.projector.standing_rows(step.generation, chosen.keys))

    def _write(self, view: View, step: Step, batch: Batch, *, before: Parked, after: Parked) -> None:
        rows = self.projector.placed(step.generation, batch.rows)
        if isinstance(view, Listing):
            put_many(self._database, self._views, rows)
        has_caught_up = after.position > step.before.position
        moved = msgspec.structs.replace(
            batch.checkpoint,
            position=step.before.position,
            recorded_at=step.before.recorded_at,
            parked=step.before.parked - has_caught_up,
        )
        actions: list[Mapping[str, Any]] = [self.projector.moved(step, moved)]
        if isinstance(view, Counting):
            actions += [{"Put": {"TableName": self._views, "Item": to_item(row)}} for row in rows]
        actions.append(self._gone(step, before) if has_caught_up else self._stands(step, before, after))
        carry_out(self._database, actions)

    def _gone(self, step: Step, parked: Parked) -> Mapping[str, Any]:
        key = {"pk": parked_key(step.generation, step.partition), "sk": parked.stream}
        return {"Delete": delete_action(self._views, key, (Is("pos", parked.position),))}

    def _stands(self, step: Step, before: Parked, after: Parked) -> Mapping[str, Any]:
        row = parked_row(step.generation, after)
        key = {"pk": row.pop("pk"), "sk": row.pop("sk")}
        return {"Update": update_action(self._views, Change(key, (Is("pos", before.position),), set=row))}

    @property
    def _database(self) -> Any:
        return self.projector.database

    @property
    def _views(self) -> str:
        return self.projector.tables.views


def _next(before: Parked, batch: Batch, looked_through: int) -> Parked:
    """Say where the stream stands after a batch: at what was not taken, or behind what was, or was not the stream's."""
    if batch.parked:
        return batch.parked[0]
    version = batch.events[-1].version + 1 if batch.events else before.version
    position = looked_through if batch.is_all else batch.events[-1].position
    return msgspec.structs.replace(before, version=version, position=position + 1)
