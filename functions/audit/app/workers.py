"""
What runs without being asked: the log grows, read models follow, heads are signed, old commits leave, rebuilds go on.

Every trigger is a hint. A function looks for itself what there is to do, does it as far as its time goes, and raises
if there is more: then it is called again.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from functions.audit import adapters, domain
from functions.audit.app.door import app
from holdfast import telemetry, triggers
from holdfast.archive import Stuck
from holdfast.log import Broken, heads
from holdfast.log.values import Head
from holdfast.projections import Generation
from holdfast.queues import each_message
from holdfast.retry import deadline
from holdfast.snapshots import EVENTS_MIN


class RebuildStep(msgspec.Struct, frozen=True):
    """One message of the rebuild queue."""

    tenant: str
    rebuild_id: str
    partition: int


@app.lambda_function(name="Indexer")
def indexer(event: Any, context: Any) -> None:
    """Move the commits that were announced into the log."""
    with deadline(triggers.seconds_for(context), adapters.database().clock):
        commits = adapters.indexer(on_broken).index(triggers.commit_hints(event))
    telemetry.logger().info("indexed", commits=commits)


@app.lambda_function(name="Repair")
def repair(event: Any, context: Any) -> None:  # noqa: ARG001 - a schedule tells nothing
    """Find commits that nothing announced."""
    with deadline(triggers.seconds_for(context), adapters.database().clock):
        found = adapters.repair(on_broken).walk()
    telemetry.logger().info("repaired", commits=found.commits, indexed=found.indexed)


@app.lambda_function(name="Projector")
def projector(event: Any, context: Any) -> None:
    """Move the read models along the log: where it has grown, or, by schedule, wherever one stands behind."""
    with deadline(triggers.seconds_for(context), adapters.database().clock):
        grown = triggers.grown_partitions(event) if "Records" in event else {_place(head) for head in _all_heads()}
        for tenant, partition in sorted(grown):
            adapters.projector().project(tenant, partition)
        _push(grown)
        if "Records" not in event:
            adapters.retirement().walk(_due({tenant for tenant, _ in grown}))
        for tenant, stream in sorted(set(_grown_far(event))):
            adapters.snapshots_of(tenant).keep(stream, domain.reducers.of(stream))
    telemetry.logger().info("projected", partitions=len(grown))


@app.lambda_function(name="Anchor")
def anchor(event: Any, context: Any) -> None:  # noqa: ARG001 - a schedule tells nothing
    """Sign what all logs come to."""
    with deadline(triggers.seconds_for(context), adapters.database().clock):
        signed = adapters.anchors().sign()
    telemetry.logger().info("anchored", seq=signed.said.seq if signed else None)


@app.lambda_function(name="Archiver")
def archiver(event: Any, context: Any) -> None:  # noqa: ARG001 - a schedule tells nothing
    """Move old commits out of the table."""
    done = adapters.archiver(on_stuck).run(triggers.seconds_for(context))
    telemetry.logger().info("archived", **msgspec.structs.asdict(done))


@app.lambda_function(name="Rebuilder")
def rebuilder(event: Any, context: Any) -> dict[str, Any]:
    """Carry rebuilds on, a partition at a time."""

    def step(body: bytes) -> None:
        asked = msgspec.json.decode(body, type=RebuildStep)
        with deadline(triggers.seconds_for(context), adapters.database().clock):
            adapters.rebuilds().step(asked.tenant, asked.rebuild_id, asked.partition)

    return each_message(event, step)


def on_broken(broken: Broken) -> None:
    """Tell of a stream whose history does not hold together; it stays out of the log from there on."""
    telemetry.logger().error("A stream is broken.", **msgspec.structs.asdict(broken))
    telemetry.metrics().add_metric("BrokenStreams", "Count", 1)
    telemetry.flush_metrics()


def on_stuck(stuck: Stuck) -> None:
    """Tell of a partition that cannot be archived; nothing of it is removed until somebody has looked."""
    telemetry.logger().error("A partition cannot be archived.", **msgspec.structs.asdict(stuck))
    telemetry.metrics().add_metric("StuckPartitions", "Count", 1)
    telemetry.flush_metrics()


def _due(tenants: set[str]) -> Iterator[Generation]:
    """Name the generations that no tenant comes back to any more."""
    for tenant in sorted(tenants):
        yield from adapters.retirement().due(tenant, (view.name for view in domain.VIEWS))


def _push(grown: set[tuple[str, int]]) -> None:
    """Tell those who follow the log that it has grown. Who is not reached asks again within seconds."""
    for tenant, partition in sorted(grown):
        try:
            adapters.tailing().push(tenant, partition)
        except Exception:  # noqa: BLE001 - whatever keeps a message from a listener must not hold up a read model
            telemetry.logger().exception("A tail was not told.", tenant=tenant, partition=partition)


def _grown_far(event: Any) -> Iterator[tuple[str, str]]:
    """Name the streams that have passed another multiple of so many events: it may be time for a snapshot."""
    for tenant, partition, position in triggers.segments(event):
        for entry in adapters.log_of(tenant).segment(partition, position):
            reference = entry.reference
            before, after = reference.first_version - 1, reference.first_version + reference.events - 1
            if before // EVENTS_MIN != after // EVENTS_MIN:
                yield tenant, reference.stream


def _all_heads() -> Iterator[Head]:
    return heads(adapters.database(), adapters.tables())


def _place(head: Head) -> tuple[str, int]:
    return head.tenant, head.partition
