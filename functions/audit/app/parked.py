"""Routes of what a read model could not take: streams that stand still in it, and letting them go on."""

import msgspec

from functions.audit import adapters
from functions.audit.app.announcing import EFFECTS
from functions.audit.app.door import STORE_ERRORS, STORE_UNAVAILABLE, app, stream_named
from functions.audit.service import Redriving
from holdfast.http import Caller
from holdfast.projections.batches import Parked


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
    503: [*STORE_UNAVAILABLE, "outcome_unknown", "unfinished", "bus_unavailable"],
}


@app.get("/v1/views/{view}/parked", scope="audit:rebuild", raises=PARKED_ERRORS)
def get_parked_in_view(caller: Caller, view: str) -> ParkedAnswer:
    """List the streams that stand still in the live generation of a read model."""
    standing = redriving(caller).standing(view)
    return ParkedAnswer(standing.generation, [*map(ParkedItem.of, standing.streams)])


@app.post("/v1/views/{view}/redrive", scope="audit:rebuild", raises=REDRIVE_ERRORS)
def post_redrive_in_view(caller: Caller, view: str, query: RedriveQuery) -> RedriveAnswer:
    """Let streams that stand still in a read model go on, each in its order from the event that it could not take."""
    stream = None if query.stream is None else stream_named(query.stream)
    redriven = redriving(caller).go_on(view, stream)
    return RedriveAnswer(list(redriven.caught_up), [*map(ParkedItem.of, redriven.parked)])


def redriving(caller: Caller) -> Redriving:
    projector = adapters.projector(EFFECTS)
    return Redriving(caller.tenant, projector, adapters.views_of(caller.tenant), adapters.redrive(projector))
