"""
The projector: moves generations of views along the log, each event into each of them exactly once.

What it is told is again only a hint; where it stands is the checkpoint's to say. A counting view's rows and its
checkpoint change in one transaction. A listing view's rows are put first, and repeated if the checkpoint was not
reached. An event that a view cannot take is parked: its stream stands still in that view, in order and for as long as
it takes, while all other streams go on.

A generation is made by one version of its view from its first row to its last. Once that version is not registered any
more, the generation stands still until a rebuild has made one by the new version.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from holdfast.clock import from_micros
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.batches import put_many
from holdfast.dynamodb.reads import Row, RowKey, get, get_many, query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database, carry_out, put_action, update_action
from holdfast.errors import NotFound, Unavailable
from holdfast.log.bodies import Bodies
from holdfast.log.reader import LogReader
from holdfast.log.values import PARTITIONS, Entry, Head
from holdfast.projections import batches
from holdfast.projections.batches import Batch, Parked, Selection
from holdfast.projections.pointers import made_pointer, read_pointers
from holdfast.projections.rows import (
    Generation,
    Pointer,
    attributes_of,
    checkpoint_key,
    checkpoint_of,
    checkpoint_row,
    parked_key,
    parked_row,
    row_key,
)
from holdfast.projections.views import Attributes, Checkpoint, Counting, Effect, Key, Listing, Recorded, View
from holdfast.retry import seconds_left
from holdfast.streams.companions import Change, Is
from holdfast.streams.packing import unpack

SEGMENTS_FIRST: Final = 8
"""Segments asked for with the first page, of up to 100 commits each: as many as a batch mostly needs."""
ROUNDS_MAX: Final = 10_000
"""Batches in one call."""


OnViewParked = Callable[[Generation, Parked], None]
"""Told of a stream that stands still in a view from now on; somebody has to look."""
OnOutdated = Callable[[Generation, int], None]
"""Told, each time, of a live generation that stands still: the version of its view is not registered any more."""


class Survey(msgspec.Struct, frozen=True):
    """How the live generations stand."""

    behind: set[tuple[str, int]]
    """The (tenant, partition) pairs whose heads one of some view has not reached."""
    parked: int
    """Streams that stand still in one, in all of them together."""
    outdated: int
    """Generations made by a version of their view that is not registered any more."""


@dataclass(frozen=True)
class Step:
    """Where a generation stands before its next batch."""

    generation: Generation
    partition: int
    before: Checkpoint


@dataclass(frozen=True)
class Projector:
    """Move views along one service's log."""

    database: Database
    tables: Tables
    bodies: Bodies
    views: Sequence[View]
    """Of one name there may be several versions, each for the generations that it has made."""
    effects: Mapping[str, Effect]
    """By view."""
    on_parked: OnViewParked = lambda _generation, _parked: None
    on_outdated: OnOutdated = lambda _generation, _version: None

    def project(self, tenant: str, partition: int) -> None:
        """
        Bring the live generation of every view up to the partition's head.

        May be repeated, and run beside itself. What keeps one view from moving is told when all have had their turn.

        Raises:
            Unavailable: `unfinished`, there was more to do than there was time for; repeat.
        """
        failed = list[Exception]()
        for newest in self.newest:
            try:
                self._project(newest, tenant, partition)
            except Exception as error:  # noqa: BLE001 - told below; one view's trouble is not another's
                failed.append(error)
        if failed:
            raise failed[0]

    def _project(self, newest: View, tenant: str, partition: int) -> None:
        pointer = made_pointer(self.database, self.tables, newest, tenant)
        view, generation = self.view(newest.name, pointer.version), Generation(newest.name, pointer.live, tenant)
        if view is None:
            self.on_outdated(generation, pointer.version)
        else:
            self.advance(view, generation, partition, effects_from=pointer.effects_begin(partition))

    @property
    def newest(self) -> list[View]:
        """The views, each once, of the version that makes what is new."""
        return [view for view in self.views if view is self.view(view.name)]

    def view(self, name: str, version: int | None = None) -> View | None:
        """Find a view by its name, of the version asked for or else the newest; None if that is not registered."""
        found = [view for view in self.views if view.name == name and version in (None, view.version)]
        return max(found, key=lambda view: view.version, default=None)

    def named(self, name: str) -> View:
        """
        Find the newest version of the view that a caller has named.

        Raises:
            NotFound: `view_not_found`.
        """
        view = self.view(name)
        if view is None:
            names = ", ".join(each.name for each in self.newest)
            raise NotFound("view_not_found", f"There is no view {name!r}; there are {names}.")
        return view

    def survey(self, heads: Iterable[Head]) -> Survey:
        """Look how the live generations of all views stand in the partitions of *heads*."""
        names, found = [view.name for view in self.newest], list(heads)
        pointers = read_pointers(self.database, self.tables, {head.tenant for head in found}, names)
        places: dict[RowKey, Head] = {}
        for head in found:
            for name in names:
                generation = Generation(name, pointers[head.tenant, name].live, head.tenant)
                places[self.tables.views, *checkpoint_key(generation, head.partition)] = head
        rows = get_many(self.database, list(places))
        standing = [(head, checkpoint_of(rows.get(place))) for place, head in places.items()]
        return Survey(
            behind={(head.tenant, head.partition) for head, at in standing if at.position < head.position},
            parked=sum(at.parked for _, at in standing),
            outdated=sum(self._is_outdated(name, pointer) for (_, name), pointer in pointers.items()),
        )

    def _is_outdated(self, name: str, pointer: Pointer) -> bool:
        """Tell whether a generation is there, and the version that made it is not registered any more."""
        return pointer.turns > 0 and self.view(name, pointer.version) is None

    def advance(
        self,
        view: View,
        generation: Generation,
        partition: int,
        *,
        until: int | None = None,
        known_at: datetime | None = None,
        effects_from: int | None = None,
    ) -> Checkpoint:
        """
        Bring one generation up to position *until*, or to the head; return where it stands then.

        *view* is of the version that has made what the generation holds.

        With *known_at* it takes only events that had been recorded by then. Effects happen for events beyond
        *effects_from*; for none if that is None.

        Raises:
            Unavailable: `unfinished`.
        """
        target = LogReader(self.database, self.tables, generation.tenant).head(partition).position
        target = target if until is None else min(until, target)
        try:
            for _ in range(ROUNDS_MAX):
                before = self.checkpoint(generation, partition)
                if before.position >= target:
                    return before
                if seconds_left() <= 0:
                    break
                step = Step(generation, partition, before)
                # No further than a batch goes: commits come whole, and what is fetched beyond is fetched again.
                end = min(target, before.position + batches.EVENTS_MAX)
                entries = self.entries(step, before.position, end)
                batch = self._built(view, step, Selection(self.events(step, entries, before.position, end), known_at))
                self._write(view, step, batch, effects_from)
        except Unavailable as error:
            if error.code != "out_of_time":
                raise
        raise Unavailable("unfinished", "There is more to project than there was time for; repeat.")

    def checkpoint(self, generation: Generation, partition: int) -> Checkpoint:
        return checkpoint_of(get(self.database, self.tables.views, *checkpoint_key(generation, partition)))

    def checkpoints(self, *generations: Generation) -> list[tuple[Checkpoint, ...]]:
        """Say where generations stand in each partition, read in one request."""
        places: list[list[RowKey]] = [
            [(self.tables.views, *checkpoint_key(generation, partition)) for partition in range(PARTITIONS)]
            for generation in generations
        ]
        rows = get_many(self.database, [place for each in places for place in each])
        return [tuple(checkpoint_of(rows.get(place)) for place in each) for each in places]

    def entries(self, step: Step, after: int, until: int) -> Iterator[Entry]:
        log = LogReader(self.database, self.tables, step.generation.tenant)
        return log.entries(step.partition, after, until=until, first_page=SEGMENTS_FIRST)

    def events(self, step: Step, entries: Iterable[Entry], after: int, until: int) -> Iterator[Recorded]:
        """Yield the events of *entries* at positions beyond *after* up to *until*."""
        tenant = step.generation.tenant
        for entry, commit in self.bodies.of(tenant, entries):
            for offset, stored in enumerate(unpack(commit.packed)):
                position = entry.position + offset
                if after < position <= until:
                    yield Recorded(
                        tenant=tenant,
                        stream=commit.stream,
                        version=commit.first_version + offset,
                        first_version=commit.first_version,
                        partition=step.partition,
                        position=position,
                        stored=stored,
                        actor=commit.actor,
                        recorded_at=from_micros(commit.recorded_at),
                        commit_id=commit.commit_id,
                    )

    @staticmethod
    def placed(generation: Generation, rows: Mapping[Key, Attributes]) -> list[Row]:
        """Give rows their keys in the table."""
        places = {key: row_key(generation, key) for key in rows}
        return [{"pk": places[key][0], "sk": places[key][1], **attributes} for key, attributes in rows.items()]

    def _built(self, view: View, step: Step, selection: Selection) -> Batch:
        standing_still = self._standing_still(step) if step.before.parked else frozenset()
        if isinstance(view, Listing):
            return batches.listing(view, step.before, selection, standing_still)
        chosen = batches.chosen(view, selection, standing_still)
        return batches.counting(view, step.before, chosen, self.standing_rows(step.generation, chosen.keys))

    def _standing_still(self, step: Step) -> frozenset[str]:
        pk = parked_key(step.generation, step.partition)
        return frozenset(row["sk"] for row in query(self.database, self.tables.views, pk))

    def standing_rows(self, generation: Generation, keys: Iterable[Key]) -> dict[Key, Attributes]:
        """Read what rows of a generation hold now; those that do not exist are left out."""
        places: dict[RowKey, Key] = {(self.tables.views, *row_key(generation, key)): key for key in keys}
        return {places[place]: attributes_of(row) for place, row in get_many(self.database, list(places)).items()}

    def _write(self, view: View, step: Step, batch: Batch, effects_from: int | None) -> None:
        """Write a batch; if the generation has moved meanwhile, what is written says the same, or nothing is."""
        rows = self.placed(step.generation, batch.rows)
        if isinstance(view, Listing):
            put_many(self.database, self.tables.views, rows)
        if effects_from is not None:
            self.have_effects(view, batch, effects_from)
        actions = [self.moved(step, batch.checkpoint)]
        if isinstance(view, Counting):
            actions += [{"Put": {"TableName": self.tables.views, "Item": to_item(row)}} for row in rows]
        actions += [
            {"Put": put_action(self.tables.views, to_item(parked_row(step.generation, parked)))}
            for parked in batch.parked
        ]
        if carry_out(self.database, actions):
            for parked in batch.parked:
                self.on_parked(step.generation, parked)

    def have_effects(self, view: View, batch: Batch, effects_from: int) -> None:
        """Let happen what shall happen for the events of a batch beyond *effects_from*."""
        effect = self.effects.get(view.name)
        for event in batch.events if effect else ():
            if effect and event.position > effects_from:
                effect(event)

    def moved(self, step: Step, after: Checkpoint) -> Mapping[str, Any]:
        """Write the checkpoint, if it stands where the step began."""
        pk, sk = checkpoint_key(step.generation, step.partition)
        key, row, before = {"pk": pk, "sk": sk}, checkpoint_row(after), step.before
        if before.position == 0:
            return {"Put": put_action(self.tables.views, to_item(key | row))}
        # A redrive changes what is counted at the same position, so the position alone guards too little.
        when = (Is("pos", before.position), Is("digest", before.tally.digest), Is("parked", before.parked))
        return {"Update": update_action(self.tables.views, Change(key, when, set=row))}
