"""Routes of rebuilds: a read model made again from the log, compared with the live one, and swapped in."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from functions.audit import adapters, domain
from functions.audit.app.announcing import announce_if_possible, rebuild_finished
from functions.audit.app.door import STORE_ERRORS, app, moment
from holdfast.clock import to_text
from holdfast.errors import Invalid, NotFound, once_done
from holdfast.http import Caller, IdempotencyKey
from holdfast.ids import derived
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
CHANGE_ERRORS = {503: ["store_unavailable", "contended", "outcome_unknown"]}
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
    known_at = moment(body.as_of, "as_of")
    rebuild = adapters.rebuilds().start(
        caller.tenant,
        body.view,
        rebuild_id=derived("rebuild", caller.tenant, key),
        actor=caller.subject,
        reason=body.reason,
        known_at=known_at,
        auto_flip=body.auto_flip,
    )
    check_same(body, known_at, rebuild)
    return StartedAnswer(rebuild.rebuild_id, rebuild.view, rebuild.generation, rebuild.state)


@app.get("/v1/rebuilds/{rebuild_id}", scope="audit:rebuild", raises=REBUILD_ERRORS)
def get_rebuild(caller: Caller, rebuild_id: str) -> RebuildAnswer:
    """Say how far a rebuild has come, and what its comparison shows."""
    return answer_of(adapters.rebuilds().get(caller.tenant, rebuild_named(rebuild_id)))


@app.post("/v1/rebuilds/{rebuild_id}/flip", scope="audit:rebuild", raises=FLIP_ERRORS)
def post_flip(caller: Caller, rebuild_id: str) -> RebuildAnswer:
    """Make what was rebuilt the live generation."""
    return told_of(adapters.rebuilds().flip(caller.tenant, rebuild_named(rebuild_id)))


@app.post("/v1/rebuilds/{rebuild_id}/rollback", scope="audit:rebuild", raises=ROLLBACK_ERRORS)
def post_rollback(caller: Caller, rebuild_id: str) -> RebuildAnswer:
    """Make the generation before the live one again, while it is kept."""
    return told_of(adapters.rebuilds().rollback(caller.tenant, rebuild_named(rebuild_id)))


@app.post("/v1/rebuilds/{rebuild_id}/abandon", scope="audit:rebuild", raises=ABANDON_ERRORS)
def post_abandon(caller: Caller, rebuild_id: str) -> RebuildAnswer:
    """Give a rebuild up that was not swapped in."""
    return told_of(adapters.rebuilds().abandon(caller.tenant, rebuild_named(rebuild_id)))


def check_same(body: RebuildBody, known_at: datetime | None, rebuild: Rebuild) -> None:
    """Tell whether *rebuild* is what was asked for: the key may have been used before."""
    asked = (body.view, body.reason, known_at, body.auto_flip and known_at is None)
    if asked != (rebuild.view, rebuild.reason, rebuild.known_at, rebuild.auto_flip):
        raise Invalid(
            "idempotency_mismatch", "This idempotency key has been used for another request; use a new one.", status=422
        )


def rebuild_named(segment: str) -> str:
    """Read a rebuild's id; what is none names no rebuild, and need not be looked for."""
    try:
        return str(UUID(segment))
    except ValueError as error:
        raise NotFound("rebuild_not_found", "There is no such rebuild.") from error


def told_of(rebuild: Rebuild) -> RebuildAnswer:
    announce_if_possible(rebuild_finished(rebuild))
    with once_done():
        return answer_of(rebuild)


def answer_of(rebuild: Rebuild) -> RebuildAnswer:
    rebuilds = adapters.rebuilds()
    progress = rebuilds.progress(rebuild)
    compared = {each.partition: ComparedItem.of(each) for each in rebuild.compared}
    pace = domain.pace_of(
        [checkpoint.position for checkpoint in progress],
        rebuild.targets,
        started_at=rebuild.started_at,
        finished_at=rebuild.finished_at,
        now=rebuilds.database.clock.now(),
    )
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
        rows=sum(checkpoint.tally.rows for checkpoint in progress),
        rate=pace.rate,
        remaining_seconds=pace.remaining_seconds,
        partitions=[
            partition_item(number, checkpoint, rebuild, compared.get(number))
            for number, checkpoint in enumerate(progress)
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
