"""What a read model could not take: streams that stand still in it, and letting them go on."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

import msgspec

from holdfast.errors import Conflict, NotFound
from holdfast.log.values import PARTITIONS, partition_of
from holdfast.projections.batches import Parked
from holdfast.projections.rows import Generation, Pointer
from holdfast.projections.views import View

STREAMS_MAX: Final = 1_000
"""Streams that are listed, or let go on, at a time."""


class Registered(Protocol):
    """The read models there are, in each of their versions (`holdfast.projections.Projector`)."""

    def named(self, name: str) -> View: ...
    def view(self, name: str, version: int | None = None) -> View | None: ...


class Pointers(Protocol):
    """Which generations are live for one tenant (`holdfast.projections.reader.ViewReader`)."""

    def pointer(self, view: str) -> Pointer: ...


class Redrive(Protocol):
    """Looks at parked streams, and lets them go on (`holdfast.projections.redrive.Redrive`)."""

    def parked(self, generation: Generation, partition: int) -> Iterator[Parked]: ...
    def find(self, generation: Generation, partition: int, stream: str) -> Parked | None: ...
    def stream(
        self, view: View, generation: Generation, partition: int, stream: str, *, effects_from: int | None = None
    ) -> Parked | None: ...


class StandingStill(msgspec.Struct, frozen=True):
    """The streams that stand still in the live generation of a read model."""

    generation: int
    streams: tuple[Parked, ...]


class Redriven(msgspec.Struct, frozen=True):
    """Streams that have caught up, and those that stand still again, there or further on."""

    caught_up: tuple[str, ...]
    parked: tuple[Parked, ...]


@dataclass(frozen=True)
class Redriving:
    """One tenant's read models, and what stands still in them."""

    tenant: str
    registered: Registered
    pointers: Pointers
    redrive: Redrive

    def standing(self, view: str) -> StandingStill:
        """
        List what stands still, STREAMS_MAX streams at most.

        Raises:
            NotFound: `view_not_found`.
        """
        generation = self._generation(view, self._live(view))
        return StandingStill(generation.number, self._parked(generation))

    def go_on(self, view: str, stream: str | None) -> Redriven:
        """
        Let streams go on, each in its order from the event that could not be taken: one, or STREAMS_MAX at most.

        Raises:
            NotFound: `view_not_found`, `not_parked`.
            Conflict: `view_outdated`; the version that made the live generation is there no more.
            Unavailable: `unfinished`, `bus_unavailable`; repeat.
        """
        pointer = self._live(view)
        made_by = self.registered.view(view, pointer.version)
        if made_by is None:
            raise Conflict(
                "view_outdated", f"Version {pointer.version} of {view!r} is there no more; rebuild the view."
            )
        generation = self._generation(view, pointer)
        caught_up, parked = list[str](), list[Parked]()
        for each in (self._found(generation, stream),) if stream else self._parked(generation):
            effects_from = pointer.effects_begin(each.partition)
            still = self.redrive.stream(made_by, generation, each.partition, each.stream, effects_from=effects_from)
            if still is None:
                caught_up.append(each.stream)
            else:
                parked.append(still)
        return Redriven(tuple(caught_up), tuple(parked))

    def _live(self, view: str) -> Pointer:
        newest, pointer = self.registered.named(view), self.pointers.pointer(view)
        # Where nothing was made yet, the newest version will make it.
        return pointer if pointer.turns else msgspec.structs.replace(pointer, version=newest.version)

    def _generation(self, view: str, pointer: Pointer) -> Generation:
        return Generation(view, pointer.live, self.tenant)

    def _parked(self, generation: Generation) -> tuple[Parked, ...]:
        every = (each for partition in range(PARTITIONS) for each in self.redrive.parked(generation, partition))
        return tuple(islice(every, STREAMS_MAX))

    def _found(self, generation: Generation, stream: str) -> Parked:
        parked = self.redrive.find(generation, partition_of(stream), stream)
        if parked is None:
            raise NotFound("not_parked", f"The stream {stream!r} does not stand still in {generation.view!r}.")
        return parked
