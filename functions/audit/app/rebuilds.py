"""Routes of rebuilds: a read model made again from the log, compared with the live one, and swapped in."""

from typing import Annotated
from uuid import UUID

import msgspec

from functions.audit import adapters
from functions.audit.app.announcing import announce_if_possible, rebuild_finished
from functions.audit.app.door import STORE_ERRORS, STORE_UNAVAILABLE, app, moment
from functions.audit.service import Progress, Rebuilding
from holdfast.clock import to_text
from holdfast.errors import NotFound
from holdfast.http import Caller, IdempotencyKey
from holdfast.projections.rebuilds import Compared, Rebuild
from holdfast.projections.views import Checkpoint

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


class RebuildBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    view: str
    reason: Reason
    as_of: str | None = None
    """Make it as it was known then (RFC 3339); it is read by its generation, and never becomes live."""
    auto_flip: bool = True
    """Swap it in when it is equal to the live one, or made by another version of the view."""


class StartedAnswer(msgspec.Struct, frozen=True):
    rebuild_id: str
    view: str
    generation: int
    state: str


class ComparedItem(msgspec.Struct, frozen=True):
    """Both generations at one position. A digest is the sum of the rows' SHA-256, in hex: their order plays no part."""

    position: int
    rows: int
    digest: str
    live_rows: int
    live_digest: str
    is_equal: bool

    @classmethod
    def of(cls, compared: Compared) -> "ComparedItem":
        return cls(
            position=compared.position,
            rows=compared.rows,
            digest=compared.digest.hex(),
            live_rows=compared.live_rows,
            live_digest=compared.live_digest.hex(),
            is_equal=compared.is_equal,
        )


class PartitionItem(msgspec.Struct, frozen=True):
    partition: int
    position: int
    target: int
    """Where the log stood when the rebuild began."""
    rows: int
    digest: str
    parked: int
    """Streams that stand still, each behind an event that the view cannot take."""
    compared: ComparedItem | None


class RebuildAnswer(msgspec.Struct, frozen=True):
    rebuild_id: str
    view: str
    version: int
    """Of the view that makes it."""
    generation: int
    state: str
    reason: str
    actor: str
    as_of: str | None
    auto_flip: bool
    started_at: str
    finished_at: str | None
    rows: int
    rate: float | None
    """Events a second, so far."""
    remaining_seconds: float | None
    partitions: list[PartitionItem]


REBUILD_ERRORS = {**STORE_ERRORS, 404: ["rebuild_not_found"]}
CHANGE_ERRORS = {503: [*STORE_UNAVAILABLE, "contended", "outcome_unknown"]}
START_ERRORS = {
    **STORE_ERRORS,
    400: ["invalid_time"],
    404: ["view_not_found"],
    409: ["rebuild_running"],
    422: ["idempotency_mismatch"],
    503: [*CHANGE_ERRORS[503], "queue_unavailable"],
}
FLIP_ERRORS = {**REBUILD_ERRORS, 409: ["rebuild_not_ready"], 503: [*CHANGE_ERRORS[503], "unfinished"]}
ROLLBACK_ERRORS = {**REBUILD_ERRORS, 409: ["rebuild_not_live"], 503: FLIP_ERRORS[503]}
ABANDON_ERRORS = {**REBUILD_ERRORS, 409: ["rebuild_over"], **CHANGE_ERRORS}


@app.post("/v1/rebuilds", scope="audit:rebuild", status=202, raises=START_ERRORS)
def post_rebuild(caller: Caller, body: RebuildBody, key: IdempotencyKey) -> StartedAnswer:
    """Begin to make a read model again, beside the live one."""
    rebuild = rebuilding(caller).start(
        body.view,
        body.reason,
        key=key,
        by=caller.subject,
        known_at=moment(body.as_of, "as_of"),
        auto_flip=body.auto_flip,
    )
    return StartedAnswer(rebuild.rebuild_id, rebuild.view, rebuild.generation, rebuild.state)


@app.get("/v1/rebuilds/{rebuild_id}", scope="audit:rebuild", raises=REBUILD_ERRORS)
def get_rebuild(caller: Caller, rebuild_id: str) -> RebuildAnswer:
    """Say how far a rebuild has come, and what its comparison shows."""
    return answer_of(rebuilding(caller).progress(rebuild_named(rebuild_id)))


@app.post("/v1/rebuilds/{rebuild_id}/flip", scope="audit:rebuild", raises=FLIP_ERRORS)
def post_flip(caller: Caller, rebuild_id: str) -> RebuildAnswer:
    """Make what was rebuilt the live generation."""
    return answer_of(rebuilding(caller).flip(rebuild_named(rebuild_id)))


@app.post("/v1/rebuilds/{rebuild_id}/rollback", scope="audit:rebuild", raises=ROLLBACK_ERRORS)
def post_rollback(caller: Caller, rebuild_id: str) -> RebuildAnswer:
    """Make the generation before the live one again, while it is kept."""
    return answer_of(rebuilding(caller).rollback(rebuild_named(rebuild_id)))


@app.post("/v1/rebuilds/{rebuild_id}/abandon", scope="audit:rebuild", raises=ABANDON_ERRORS)
def post_abandon(caller: Caller, rebuild_id: str) -> RebuildAnswer:
    """Give a rebuild up that was not swapped in."""
    return answer_of(rebuilding(caller).abandon(rebuild_named(rebuild_id)))


def rebuilding(caller: Caller) -> Rebuilding[Rebuild]:
    return Rebuilding(
        tenant=caller.tenant,
        rebuilds=adapters.rebuilds(),
        tell=lambda rebuild: announce_if_possible(rebuild_finished(rebuild)),
        now=adapters.database().clock.now,
    )


def rebuild_named(segment: str) -> str:
    """Read a rebuild's id; what is none names no rebuild, and need not be looked for."""
    try:
        return str(UUID(segment))
    except ValueError as error:
        raise NotFound("rebuild_not_found", "There is no such rebuild.") from error


def answer_of(progress: Progress[Rebuild]) -> RebuildAnswer:
    rebuild = progress.rebuild
    compared = {each.partition: ComparedItem.of(each) for each in rebuild.compared}
    return RebuildAnswer(
        rebuild_id=rebuild.rebuild_id,
        view=rebuild.view,
        version=rebuild.version,
        generation=rebuild.generation,
        state=rebuild.state,
        reason=rebuild.reason,
        actor=rebuild.actor,
        as_of=to_text(rebuild.known_at) if rebuild.known_at else None,
        auto_flip=rebuild.auto_flip,
        started_at=to_text(rebuild.started_at),
        finished_at=to_text(rebuild.finished_at) if rebuild.finished_at else None,
        rows=sum(checkpoint.tally.rows for checkpoint in progress.checkpoints),
        rate=progress.pace.rate,
        remaining_seconds=progress.pace.remaining_seconds,
        partitions=[
            partition_item(number, checkpoint, rebuild, compared.get(number))
            for number, checkpoint in enumerate(progress.checkpoints)
        ],
    )


def partition_item(
    number: int, checkpoint: Checkpoint, rebuild: Rebuild, compared: ComparedItem | None
) -> PartitionItem:
    return PartitionItem(
        partition=number,
        position=checkpoint.position,
        target=rebuild.targets[number],
        rows=checkpoint.tally.rows,
        digest=checkpoint.tally.digest.hex(),
        parked=checkpoint.parked,
        compared=compared,
    )
