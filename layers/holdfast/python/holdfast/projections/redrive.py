"""
Redrive: a stream that stood still in a view goes on, in its order, from the event that could not be taken.

What it missed is taken in batches like any other, each with the checkpoint and the place where the stream stands in
one transaction. When it has caught up with the checkpoint it is parked no more.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.batches import put_many
from holdfast.dynamodb.reads import get, query
from holdfast.dynamodb.writes import delete_action, update_action
from holdfast.errors import Unavailable
from holdfast.projections import batches
from holdfast.projections.batches import Batch, Parked, Selection
from holdfast.projections.projector import Projector, Step, carry_out
from holdfast.projections.rows import Generation, parked_key, parked_of
from holdfast.projections.views import Counting, Listing, Recorded, View
from holdfast.retry import seconds_left
from holdfast.streams.companions import Is, Update

ROUNDS_MAX: Final = 10_000
"""Batches in one call."""


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
        for _ in range(ROUNDS_MAX):
            parked = self.find(generation, partition, stream)
            if parked is None:
                return None
            if seconds_left() <= 0:
                break
            step = Step(generation, partition, self.projector.checkpoint(generation, partition))
            batch = self._built(view, step, parked)
            if batch.parked and batch.parked[0].position == parked.position:
                return msgspec.structs.replace(parked, reason=batch.parked[0].reason)
            if effects_from is not None:
                self.projector.have_effects(view, batch, effects_from)
            self._write(view, step, parked, batch)
        raise Unavailable("unfinished", "There is more to redrive than there was time for; repeat.")

    def _built(self, view: View, step: Step, parked: Parked) -> Batch:
        until = step.before.position
        missed = self.projector.events(step, parked.position - 1, until, stream=parked.stream)
        selection = Selection(missed)
        if isinstance(view, Listing):
            return batches.listing(view, step.before, selection, frozenset())
        chosen = batches.chosen(view, selection, frozenset())
        return batches.counting(view, step.before, chosen, self.projector.standing_rows(step.generation, chosen.keys))

    def _write(self, view: View, step: Step, parked: Parked, batch: Batch) -> None:
        rows = self.projector.placed(step.generation, batch.rows)
        if isinstance(view, Listing):
            put_many(self._database, self._views, rows)
        is_done = not batch.parked and batch.checkpoint.position == self._last_missed(step, parked)
        after = msgspec.structs.replace(
            batch.checkpoint,
            position=step.before.position,
            recorded_at=step.before.recorded_at,
            parked=step.before.parked - is_done,
        )
        actions: list[Mapping[str, Any]] = [self.projector.moved(step, after)]
        if isinstance(view, Counting):
            actions += [{"Put": {"TableName": self._views, "Item": to_item(row)}} for row in rows]
        actions.append(self._gone(step, parked) if is_done else self._stands(step, parked, _next(batch)))
        carry_out(self._database, actions)

    def _last_missed(self, step: Step, parked: Parked) -> int:
        """Find the stream's last event that the checkpoint has passed."""
        position = 0
        for entry in self.projector.entries(step, parked.position - 1, step.before.position, stream=parked.stream):
            position = min(entry.last_position, step.before.position)
        return position

    def _gone(self, step: Step, parked: Parked) -> Mapping[str, Any]:
        key = {"pk": parked_key(step.generation, step.partition), "sk": parked.stream}
        return {"Delete": delete_action(self._views, key, (Is("pos", parked.position),))}

    def _stands(self, step: Step, before: Parked, place: tuple[int, int]) -> Mapping[str, Any]:
        key = {"pk": parked_key(step.generation, step.partition), "sk": before.stream}
        version, position = place
        change = Update(self._views, key, (Is("pos", before.position),), set={"v": version, "pos": position})
        return {"Update": update_action(self._views, change)}

    @property
    def _database(self) -> Any:
        return self.projector.database

    @property
    def _views(self) -> str:
        return self.projector.tables.views


def _next(batch: Batch) -> tuple[int, int]:
    """Say where the stream stands after a batch: at the event that was not taken, or behind the last one that was."""
    if batch.parked:
        return batch.parked[0].version, batch.parked[0].position
    last: Recorded = batch.events[-1]
    return last.version + 1, last.position + 1


__all__: Sequence[str] = ["Redrive"]
