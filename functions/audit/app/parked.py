"""Routes of what a read model could not take: streams that stand still in it, and letting them go on."""

from collections.abc import Iterator
from itertools import islice

import msgspec

from functions.audit import adapters
from functions.audit.app.announcing import EFFECTS
from functions.audit.app.door import PAGE_ITEMS_MAX, STORE_ERRORS, app, stream_named
from holdfast.errors import Conflict, NotFound
from holdfast.http import Caller
from holdfast.log import PARTITIONS, partition_of
from holdfast.projections import Generation, Pointer, View
from holdfast.projections.batches import Parked
from holdfast.projections.redrive import Redrive


class ParkedItem(msgspec.Struct, frozen=True):
    """A stream that stands still: its first event that the read model could not take."""

    stream: str
    version: int
    partition: int
    position: int
    reason: str

    @classmethod
    def of(cls, parked: Parked) -> "ParkedItem":
        return cls(parked.stream, parked.version, parked.partition, parked.position, parked.reason)


class ParkedAnswer(msgspec.Struct, frozen=True):
    generation: int
    """The live one, in which they stand still."""
    items: list[ParkedItem]
    """A thousand at most."""


class RedriveQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stream: str | None = None
    """The one to let go on; up to a thousand of them if not said."""


class RedriveAnswer(msgspec.Struct, frozen=True):
    redriven: list[str]
    """Streams that have caught up."""
    parked: list[ParkedItem]
    """Those that stand still again, there or further on."""


PARKED_ERRORS = {**STORE_ERRORS, 404: ["view_not_found"]}
REDRIVE_ERRORS = {
    **STORE_ERRORS,
    400: ["invalid_stream"],
    404: ["view_not_found", "not_parked"],
    409: ["view_outdated"],
    503: ["store_unavailable", "outcome_unknown", "unfinished", "bus_unavailable"],
}


@app.get("/v1/views/{view}/parked", scope="audit:rebuild", raises=PARKED_ERRORS)
def get_parked_in_view(caller: Caller, view: str) -> ParkedAnswer:
    """List the streams that stand still in the live generation of a read model."""
    generation = live(caller, view)[1]
    return ParkedAnswer(generation.number, [*map(ParkedItem.of, islice(standing_in(generation), PAGE_ITEMS_MAX))])


@app.post("/v1/views/{view}/redrive", scope="audit:rebuild", raises=REDRIVE_ERRORS)
def post_redrive_in_view(caller: Caller, view: str, query: RedriveQuery) -> RedriveAnswer:
    """Let streams that stand still in a read model go on, each in its order from the event that it could not take."""
    pointer, generation = live(caller, view)
    made_by = adapters.projector(EFFECTS).view(view, pointer.version)
    if made_by is None:
        raise Conflict("view_outdated", f"Version {pointer.version} of {view!r} is there no more; rebuild the view.")
    stream = None if query.stream is None else stream_named(query.stream)
    chosen = [standing(generation, stream)] if stream else [*islice(standing_in(generation), PAGE_ITEMS_MAX)]
    ends = [(each.stream, gone_on(made_by, pointer, generation, each)) for each in chosen]
    return RedriveAnswer(
        redriven=[name for name, parked in ends if parked is None],
        parked=[ParkedItem.of(parked) for _, parked in ends if parked],
    )


def live(caller: Caller, view: str) -> tuple[Pointer, Generation]:
    """
    Find the live generation of a read model.

    Raises:
        NotFound: `view_not_found`.
    """
    adapters.projector().named(view)
    pointer = adapters.views_of(caller.tenant).pointer(view)
    return pointer, Generation(view, pointer.live, caller.tenant)


def standing_in(generation: Generation) -> Iterator[Parked]:
    for partition in range(PARTITIONS):
        yield from redrive().parked(generation, partition)


def standing(generation: Generation, stream: str) -> Parked:
    """
    Say where a stream stands still.

    Raises:
        NotFound: `not_parked`.
    """
    parked = redrive().find(generation, partition_of(stream), stream)
    if parked is None:
        raise NotFound("not_parked", f"The stream {stream!r} does not stand still in {generation.view!r}.")
    return parked


def gone_on(view: View, pointer: Pointer, generation: Generation, parked: Parked) -> Parked | None:
    """Let one stream go on; return where it stands still again, or None."""
    return redrive().stream(
        view,
        generation,
        parked.partition,
        parked.stream,
        effects_from=pointer.effects_begin(parked.partition),
    )


def redrive() -> Redrive:
    return Redrive(adapters.projector(EFFECTS))
