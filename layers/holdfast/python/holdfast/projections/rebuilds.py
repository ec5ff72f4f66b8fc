"""
Rebuilds: a view is made again from the whole log beside the live one, compared with it, and swapped in.

Nobody waits meanwhile. The new generation runs along the log partition by partition, each as work that can be cut off
anywhere and taken up again, by many workers at once. Its effects are held back. In each partition it is brought to
exactly where the live one stands, and there the two are compared: how many rows, and the sum of their hashes. Then one
transaction makes it the live one, on condition that it holds all that the one before it holds by then: nobody who reads
ever goes back. What it followed stays for a week, and can come back.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from holdfast.clock import to_micros
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.reads import Row, get
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database, carry_out, companion_action, put_action, update_action
from holdfast.errors import Conflict, NotFound, Unavailable, once_done
from holdfast.log.reader import LogReader
from holdfast.log.values import PARTITIONS, SOLE
from holdfast.projections.pointers import made_pointer
from holdfast.projections.projector import Projector
from holdfast.projections.rows import (
    Generation,
    Pointer,
    checkpoint_key,
    pointer_key,
    pointer_of,
    pointer_row,
)
from holdfast.projections.views import Checkpoint, View
from holdfast.streams.companions import Change, Check, Is, Missing
from holdfast.streams.rules import mismatch

KEPT: Final = timedelta(days=7)
"""How long the generation before stays after a swap."""
TURNS_MAX: Final = 8
"""How often a change of the pointer is tried again when others change it."""
STILL: Final = timedelta(minutes=5)
"""How long a rebuild may run without moving before its steps are asked for again: they may be waiting in a queue."""
SWAPS_MAX: Final = 20
"""How often a swap is tried again when the generation that is to be replaced has moved on meanwhile."""

State = Literal["running", "ready", "needs_review", "flipped", "rolled_back", "abandoned"]


BEFORE: Final[Mapping[State, tuple[State, ...]]] = {
    "ready": ("running",),
    "needs_review": ("running",),
    "abandoned": ("running", "ready", "needs_review"),
}
"""From which states a rebuild may end without a swap, and how."""


class Compared(msgspec.Struct, frozen=True):
    """One partition, brought to where the live generation stood."""

    partition: int
    position: int
    rows: int
    digest: bytes
    live_rows: int
    live_digest: bytes

    @property
    def is_equal(self) -> bool:
        return (self.rows, self.digest) == (self.live_rows, self.live_digest)


class Rebuild(msgspec.Struct, frozen=True):
    """One making of a view, and how far it has come."""

    rebuild_id: str
    tenant: str
    view: str
    version: int
    """Of the view that makes it."""
    generation: int
    state: State
    reason: str
    actor: str
    started_at: datetime
    auto_flip: bool
    known_at: datetime | None
    targets: tuple[int, ...]
    """By partition, the log's position when it was started; with *known_at*, where it ends."""
    compared: tuple[Compared, ...] = ()
    followed: int | None = None
    """The generation that was live before it, once it has been swapped in."""
    followed_version: int = 1
    finished_at: datetime | None = None
    seen: tuple[int, ...] = (0,) * PARTITIONS
    """By partition, where it was when somebody last looked whether it moves."""
    seen_at: datetime | None = None
    turns: int = 0

    @property
    def is_over(self) -> bool:
        return self.state != "running"


Moved = Callable[[Rebuild], Rebuild]


@dataclass(frozen=True)
class Rebuilds:
    """Begin rebuilds, carry them on step by step, and swap generations."""

    database: Database
    tables: Tables
    projector: Projector
    send: Callable[[str, str, int], None]
    """Ask a worker for the first step of (tenant, rebuild_id, partition); it may come more than once, and late."""

    def start(
        self,
        tenant: str,
        view: str,
        *,
        rebuild_id: str,
        actor: str,
        reason: str,
        known_at: datetime | None = None,
        auto_flip: bool = True,
    ) -> Rebuild:
        """
        Begin to make *view* again; asking again with the same id gives the first answer.

        With *known_at* the new generation holds what was known then; it is read by its number, and never becomes live.

        Raises:
            NotFound: `view_not_found`.
            Invalid: 422 `idempotency_mismatch`; with that id something else was asked for.
            Conflict: `rebuild_running`; carries its id.
        """
        wish = Rebuild(
            rebuild_id=rebuild_id,
            tenant=tenant,
            view=view,
            version=self.projector.named(view).version,
            generation=0,
            state="running",
            reason=reason,
            actor=actor,
            started_at=self.database.clock.now(),
            auto_flip=auto_flip and known_at is None,
            known_at=known_at,
            targets=tuple(head.position for head in LogReader(self.database, self.tables, tenant).heads()),
        )
        rebuild = self._find(tenant, rebuild_id) or self._begun(wish)
        if _asked(rebuild) != _asked(wish):
            raise mismatch()
        if not rebuild.is_over:
            for partition in range(PARTITIONS):
                self.send(tenant, rebuild_id, partition)
        return rebuild

    def _begun(self, wish: Rebuild) -> Rebuild:
        """Give the rebuild its generation, and hold the view for it."""
        for _ in range(TURNS_MAX):
            pointer = made_pointer(self.database, self.tables, self.projector.named(wish.view), wish.tenant)
            if pointer.rebuild_id == wish.rebuild_id:
                return self.get(wish.tenant, wish.rebuild_id)
            if pointer.rebuild_id:
                raise Conflict(
                    "rebuild_running",
                    f"A rebuild of {wish.view!r} is running. Wait for it, or abandon it.",
                    rebuild_id=pointer.rebuild_id,
                )
            rebuild = msgspec.structs.replace(wish, generation=pointer.newest + 1)
            after = msgspec.structs.replace(
                pointer, newest=rebuild.generation, rebuild_id=wish.rebuild_id, turns=pointer.turns + 1
            )
            put = {"Put": put_action(self.tables.views, to_item(_row(rebuild)))}
            if carry_out(self.database, [put, self._pointed(wish.tenant, wish.view, pointer, after)]):
                return rebuild
        raise _contended(wish.view)

    def get(self, tenant: str, rebuild_id: str) -> Rebuild:
        """
        Read a rebuild.

        Raises:
            NotFound: `rebuild_not_found`.
        """
        found = self._find(tenant, rebuild_id)
        if found is None:
            raise NotFound("rebuild_not_found", "There is no such rebuild.")
        return found

    def ask_again(self, running: Iterable[tuple[str, str]]) -> None:
        """
        Ask again for the steps of those (tenant, rebuild_id) pairs that run and do not move: a message was lost.

        May be repeated, and run beside itself: who looks says so before asking, and then nobody looks for STILL.
        """
        for tenant, rebuild_id in running:
            rebuild, now = self._find(tenant, rebuild_id), self.database.clock.now()
            if rebuild is None or rebuild.is_over or now - (rebuild.seen_at or rebuild.started_at) < STILL:
                continue
            seen = tuple(checkpoint.position for checkpoint in self.progress(rebuild))
            looked = msgspec.structs.replace(rebuild, seen=seen, seen_at=now)
            if carry_out(self.database, [self._turned(rebuild, looked)]):
                for partition in _standing_still(rebuild, seen):
                    self.send(tenant, rebuild_id, partition)

    def progress(self, rebuild: Rebuild) -> tuple[Checkpoint, ...]:
        """Say how far each partition has come."""
        (checkpoints,) = self.projector.checkpoints(_generation(rebuild))
        return checkpoints

    def step(self, tenant: str, rebuild_id: str, partition: int) -> bool:
        """
        Carry a rebuild on in one partition, as far as the time for it goes; tell whether there is more to do.

        Whoever is told so asks for the next step, outside of the deadline that this one had. May be repeated, and run
        beside itself. The step that completes the last partition finishes the rebuild.
        """
        try:
            return self._step(tenant, rebuild_id, partition)
        except Unavailable as error:
            if error.code not in ("unfinished", "out_of_time", "contended"):
                raise
            return True

    def _step(self, tenant: str, rebuild_id: str, partition: int) -> bool:
        rebuild = self._find(tenant, rebuild_id)
        if rebuild is None or rebuild.is_over:
            return False
        view = self.projector.view(rebuild.view, rebuild.version)
        if view is None:
            # Other code would go on where this one began: nobody could say what the rows are of.
            self._release(rebuild, "abandoned")
            return False
        if partition not in {compared.partition for compared in rebuild.compared}:
            compared = self._compared(view, rebuild, partition)
            rebuild = self._changed(rebuild, lambda found: _with(found, compared))
        if len(rebuild.compared) == PARTITIONS and not rebuild.is_over:
            self._finish(rebuild)
        return False

    def _compared(self, view: View, rebuild: Rebuild, partition: int) -> Compared:
        """Bring one partition to where the live generation stands, and look at both."""
        generation = _generation(rebuild)
        if rebuild.known_at is not None:
            own = self.projector.advance(
                view, generation, partition, until=rebuild.targets[partition], known_at=rebuild.known_at
            )
            return _comparison(partition, own, own)
        for _ in range(TURNS_MAX):
            live_number = self._pointer(rebuild.tenant, rebuild.view).live
            live = self.projector.checkpoint(Generation(rebuild.view, live_number, rebuild.tenant), partition)
            own = self.projector.advance(view, generation, partition, until=live.position)
            if own.position == live.position:
                return _comparison(partition, own, live)
        # Others carry this step on as well, and are ahead of what was read.
        raise Unavailable("unfinished", "The live view moves on faster than it can be compared; repeat.")

    def _finish(self, rebuild: Rebuild) -> None:
        is_equal = all(compared.is_equal for compared in rebuild.compared)
        live_version = self._pointer(rebuild.tenant, rebuild.view).version
        if rebuild.auto_flip and (is_equal or rebuild.version != live_version):
            self.flip(rebuild.tenant, rebuild.rebuild_id)
            return
        is_ready = is_equal or rebuild.known_at is not None
        self._release(rebuild, "ready" if is_ready else "needs_review")

    def flip(self, tenant: str, rebuild_id: str) -> Rebuild:
        """
        Make a rebuilt generation the live one.

        Effects that the generation before has had are not had again; those of events that arrive during the swap
        may be had twice.

        Raises:
            Conflict: `rebuild_not_ready`; it runs, is over, or holds a past state.
            Unavailable: `contended`, the live view moved on all the time; `unfinished`. Repeat.
        """
        name = self.get(tenant, rebuild_id).view
        for _ in range(SWAPS_MAX):
            # In this order: what is not flipped yet when it is read was not live before.
            pointer, rebuild = self._pointer(tenant, name), self.get(tenant, rebuild_id)
            if rebuild.state == "flipped":
                return rebuild
            view = self.projector.view(rebuild.view, rebuild.version)
            if view is None or not self._may_be_live(rebuild, pointer):
                raise Conflict("rebuild_not_ready", f"This rebuild cannot become live: it is {rebuild.state}, or gone.")
            leaves = Generation(rebuild.view, pointer.live, tenant)
            before = self._brought(view, _generation(rebuild), leaves)
            after = msgspec.structs.replace(
                pointer,
                live=rebuild.generation,
                version=rebuild.version,
                rebuild_id="" if pointer.rebuild_id == rebuild_id else pointer.rebuild_id,
                # What a generation that is behind has had already was had by another one.
                effects_from=tuple(map(max, before, pointer.effects_from or before)),
                kept=self._kept(pointer, pointer.live, comes_back=rebuild.generation),
                turns=pointer.turns + 1,
            )
            done = msgspec.structs.replace(
                rebuild,
                state="flipped",
                finished_at=self.database.clock.now(),
                followed=pointer.live,
                followed_version=pointer.version,
            )
            if self._swapped(rebuild, done, pointer, after, *self._stay(leaves, before)):
                with once_done():
                    return self.get(tenant, rebuild_id)
        raise _contended(rebuild.view)

    def rollback(self, tenant: str, rebuild_id: str) -> Rebuild:
        """
        Make the generation before a rebuild the live one again, as long as it is kept.

        Raises:
            Conflict: `rebuild_not_live`; what it made is not live, or the one before, or what made that, is gone.
            Unavailable: `contended`, `unfinished`, as in `flip`.
        """
        name = self.get(tenant, rebuild_id).view
        for _ in range(SWAPS_MAX):
            # In this order, as in `flip`.
            pointer, rebuild = self._pointer(tenant, name), self.get(tenant, rebuild_id)
            if rebuild.state == "rolled_back":
                return rebuild
            followed, view = rebuild.followed, self.projector.view(rebuild.view, rebuild.followed_version)
            if followed is None or pointer.live != rebuild.generation or not self._is_kept(pointer, followed):
                raise Conflict(
                    "rebuild_not_live",
                    f"Only a generation that is live, and was made less than {KEPT.days} days ago, can be rolled back.",
                )
            if view is None:
                raise Conflict(
                    "rebuild_not_live",
                    f"Version {rebuild.followed_version} of {rebuild.view!r}, which could go on, is there no more.",
                )
            leaves = _generation(rebuild)
            positions = self._brought(view, Generation(rebuild.view, followed, tenant), leaves)
            after = msgspec.structs.replace(
                pointer,
                live=followed,
                version=rebuild.followed_version,
                effects_from=tuple(map(max, positions, pointer.effects_from or positions)),
                kept=self._kept(pointer, pointer.live, comes_back=followed),
                turns=pointer.turns + 1,
            )
            done = msgspec.structs.replace(rebuild, state="rolled_back")
            if self._swapped(rebuild, done, pointer, after, *self._stay(leaves, positions)):
                with once_done():
                    return self.get(tenant, rebuild_id)
        raise _contended(rebuild.view)

    def _brought(self, view: View, comes: Generation, leaves: Generation) -> tuple[int, ...]:
        """Bring the generation that *comes* to where the one that *leaves* stands; return where that is."""
        there, here = self.projector.checkpoints(leaves, comes)
        for partition, (end, own) in enumerate(zip(there, here, strict=True)):
            if own.position < end.position:
                self.projector.advance(view, comes, partition, until=end.position)
        return tuple(checkpoint.position for checkpoint in there)

    def _stay(self, generation: Generation, positions: tuple[int, ...]) -> Iterator[Mapping[str, Any]]:
        """Insist that a generation has not moved: what it takes in would be missing in the one that replaces it."""
        for partition, position in enumerate(positions):
            pk, sk = checkpoint_key(generation, partition)
            when = (Is("pos", position),) if position else (Missing("pos"),)
            yield companion_action(Check(self.tables.views, {"pk": pk, "sk": sk}, when), self.tables.views)

    def abandon(self, tenant: str, rebuild_id: str) -> Rebuild:
        """
        Give a rebuild up; workers that still have a step of it stop.

        Raises:
            Conflict: `rebuild_over`; it was swapped in.
        """
        given_up = self._release(self.get(tenant, rebuild_id), "abandoned")
        if given_up.state != "abandoned":
            raise Conflict("rebuild_over", "This rebuild has been swapped in; roll it back instead.")
        return given_up

    def _release(self, rebuild: Rebuild, state: State) -> Rebuild:
        """End a rebuild without a swap, so that the next may run; one that has gone further stays where it is."""
        for _ in range(TURNS_MAX):
            if rebuild.state not in BEFORE[state]:
                return rebuild
            pointer = self._pointer(rebuild.tenant, rebuild.view)
            done = msgspec.structs.replace(rebuild, state=state, finished_at=self.database.clock.now())
            after = msgspec.structs.replace(
                pointer,
                rebuild_id="" if pointer.rebuild_id == rebuild.rebuild_id else pointer.rebuild_id,
                kept=self._kept(pointer, rebuild.generation),
                turns=pointer.turns + 1,
            )
            if self._swapped(rebuild, done, pointer, after):
                with once_done():
                    return self.get(rebuild.tenant, rebuild.rebuild_id)
            rebuild = self.get(rebuild.tenant, rebuild.rebuild_id)
        raise _contended(rebuild.view)

    def _may_be_live(self, rebuild: Rebuild, pointer: Pointer) -> bool:
        """Tell whether a rebuild is whole, of the present, and its rows still there."""
        is_whole = len(rebuild.compared) == PARTITIONS and rebuild.known_at is None and rebuild.state != "abandoned"
        is_there = rebuild.state == "running" or self._is_kept(pointer, rebuild.generation)
        return is_whole and is_there

    def _is_kept(self, pointer: Pointer, number: int) -> bool:
        """Tell whether somebody may still come back to a generation."""
        until = dict(pointer.kept).get(number)
        return until is not None and until > to_micros(self.database.clock.now())

    def _swapped(
        self, before: Rebuild, after: Rebuild, pointer: Pointer, pointed: Pointer, *checks: Mapping[str, Any]
    ) -> bool:
        actions = [self._turned(before, after), self._pointed(before.tenant, before.view, pointer, pointed)]
        return carry_out(self.database, [*actions, *checks])

    def _kept(self, pointer: Pointer, leaves: int, *, comes_back: int | None = None) -> tuple[tuple[int, int], ...]:
        """Keep the generation that *leaves* for KEPT; one that comes back is not counted down any more."""
        others = {number: until for number, until in pointer.kept if number != comes_back}
        return tuple((others | {leaves: to_micros(self.database.clock.now() + KEPT)}).items())

    def _changed(self, rebuild: Rebuild, change: Moved) -> Rebuild:
        for _ in range(TURNS_MAX):
            after = change(rebuild)
            if after == rebuild or carry_out(self.database, [self._turned(rebuild, after)]):
                return self.get(rebuild.tenant, rebuild.rebuild_id)
            rebuild = self.get(rebuild.tenant, rebuild.rebuild_id)
        raise _contended(rebuild.view)

    def _turned(self, before: Rebuild, after: Rebuild) -> Mapping[str, Any]:
        row = _row(msgspec.structs.replace(after, turns=before.turns + 1))
        key = {"pk": row.pop("pk"), "sk": row.pop("sk")}
        when = (Is("turns", before.turns),)
        return {"Update": update_action(self.tables.views, Change(key, when, set=row))}

    def _pointed(self, tenant: str, view: str, before: Pointer, after: Pointer) -> Mapping[str, Any]:
        pk, sk = pointer_key(view, tenant)
        change = Change({"pk": pk, "sk": sk}, (Is("turns", before.turns),), set=pointer_row(after))
        return {"Update": update_action(self.tables.views, change)}

    def _pointer(self, tenant: str, view: str) -> Pointer:
        return pointer_of(get(self.database, self.tables.views, *pointer_key(view, tenant)))

    def _find(self, tenant: str, rebuild_id: str) -> Rebuild | None:
        row = get(self.database, self.tables.views, _pk(tenant, rebuild_id), SOLE)
        return _DECODER.decode(row["doc"]) if row else None


_DECODER: Final = msgspec.json.Decoder(Rebuild)


def _pk(tenant: str, rebuild_id: str) -> str:
    return f"R#{tenant}#{rebuild_id}"


def _row(rebuild: Rebuild) -> Row:
    return {
        "pk": _pk(rebuild.tenant, rebuild.rebuild_id),
        "sk": SOLE,
        "turns": rebuild.turns,
        "doc": msgspec.json.encode(rebuild),
    }


def _asked(rebuild: Rebuild) -> tuple[Any, ...]:
    """Say what makes it the same request."""
    return rebuild.view, rebuild.reason, rebuild.known_at, rebuild.auto_flip


def _generation(rebuild: Rebuild) -> Generation:
    return Generation(rebuild.view, rebuild.generation, rebuild.tenant)


def _standing_still(rebuild: Rebuild, positions: tuple[int, ...]) -> list[int]:
    """Name the partitions that have neither arrived nor moved since they were seen; one, if only the end is missing."""
    arrived = {compared.partition for compared in rebuild.compared}
    if len(arrived) == PARTITIONS:
        return [0]
    return [each for each in range(PARTITIONS) if each not in arrived and positions[each] == rebuild.seen[each]]


def _comparison(partition: int, own: Checkpoint, live: Checkpoint) -> Compared:
    return Compared(partition, own.position, own.tally.rows, own.tally.digest, live.tally.rows, live.tally.digest)


def _with(rebuild: Rebuild, compared: Compared) -> Rebuild:
    """Note what was compared; a rebuild that is over meanwhile stays as it was decided."""
    if rebuild.is_over:
        return rebuild
    others = tuple(each for each in rebuild.compared if each.partition != compared.partition)
    return msgspec.structs.replace(rebuild, compared=(*others, compared))


def _contended(view: str) -> Unavailable:
    return Unavailable("contended", f"Others keep changing the view {view!r}. Nothing happened; repeat.")
