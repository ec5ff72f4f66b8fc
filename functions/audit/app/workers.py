"""
What runs without being asked: the log grows, read models follow, heads are signed, old commits leave, rebuilds go on.

Every trigger is a hint. A function looks for itself what there is to do, and does it as far as its time goes. If there
is more, the indexer raises, and is given its hints again; what all others have left, their next call finds by itself.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from functions.audit import adapters, domain
from functions.audit.app.announcing import (
    EFFECTS,
    announce_anchors,
    announce_if_over,
    count,
    on_broken,
    on_parked,
    on_stuck,
    tell_of_damage,
    telling_of_damage,
)
from functions.audit.app.door import app, snapshots
from holdfast import telemetry, triggers
from holdfast.log import Head, Reference, heads
from holdfast.projections import Generation
from holdfast.projections.batches import Parked
from holdfast.queues import each_message
from holdfast.retry import deadline
from holdfast.snapshots import EVENTS_MIN
from holdfast.subscriptions import Subscription

LONG_STREAMS_MAX: Final = 20
"""Of those that one call of Repair passes, the streams whose snapshots it looks after."""


class RebuildStep(msgspec.Struct, frozen=True):
    """One message of the rebuild queue."""

    tenant: str
    rebuild_id: str
    partition: int


@app.lambda_function(name="Indexer")
def indexer(event: Any, context: Any) -> None:
    """Move the commits that were announced into the log."""
    with deadline(triggers.seconds_for(context), adapters.database().clock):
        commits = adapters.indexer(on_broken, on_growth).index(triggers.commit_hints(event))
    telemetry.logger().info("indexed", commits=commits)


@app.lambda_function(name="Repair")
def repair(event: Any, context: Any) -> dict[str, Any]:  # noqa: ARG001 - a schedule tells nothing
    """
    Find commits that nothing announced, and snapshots that are due: for a new reducer, a lost hint, or want of time.

    Whoever calls it by hand is told how many commits were looked at and were missed, and whether the table ended there.
    """
    with deadline(triggers.seconds_for(context), adapters.database().clock):
        found = adapters.repair(on_broken, on_growth).walk()
        long = [(hint.tenant, hint.stream) for hint in found.met if hint.first_version > EVENTS_MIN]
        for tenant, stream in random.sample(long, min(len(long), LONG_STREAMS_MAX)):
            _keep(tenant, stream)
    telemetry.logger().info("repaired", commits=found.commits, indexed=found.indexed)
    return {"commits": found.commits, "indexed": found.indexed, "is_last": found.is_last}


@app.lambda_function(name="Projector")
def projector(event: Any, context: Any) -> None:
    """
    Move the read models along the log: where it has grown, or, by schedule, wherever one stands behind.

    What keeps one from moving holds up no other, and no record behind these: within a minute the sweep tries again.
    """
    with deadline(triggers.seconds_for(context), adapters.database().clock):
        found = triggers.grown_partitions(event) if "Records" in event else _sweep()
        # Where there is more to do than time, everybody comes first at some time.
        grown = random.sample(sorted(found), len(found))
        held_up = sum(not _moved(tenant, partition) for tenant, partition in grown)
        _push(grown)
        unkept = sum(not _keep(tenant, stream) for tenant, stream in sorted(set(_grown_far(event))))
    if held_up:
        count("ViewsHeldUp", held_up)
    telemetry.logger().info("projected", partitions=len(grown), held_up=held_up, unkept=unkept)


@app.lambda_function(name="Anchor")
def anchor(event: Any, context: Any) -> None:  # noqa: ARG001 - a schedule tells nothing
    """Sign what all logs come to."""
    with deadline(triggers.seconds_for(context), adapters.database().clock):
        with telling_of_damage("anchors"):
            signed = adapters.anchors().sign()
        announce_anchors()
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
        place = (asked.tenant, asked.rebuild_id, asked.partition)
        with (
            deadline(triggers.seconds_for(context), adapters.database().clock),
            telling_of_damage(f"log/{asked.partition}"),
        ):
            is_unfinished = adapters.rebuilds().step(*place)
        # Before the message is done with: whoever is cut off here is asked again, and tells again.
        if is_unfinished:
            adapters.send_step(*place)
        else:
            announce_if_over(asked.tenant, asked.rebuild_id)

    return each_message(event, step)


@app.lambda_function(name="Subscriber")
def subscriber(event: Any, context: Any) -> None:
    """Send subscribers what the log has: where it has grown, or, by schedule, wherever one stands behind."""
    with deadline(triggers.seconds_for(context), adapters.database().clock):
        follower = adapters.follower(on_parked, on_unsent)
        followed = follower.follow(triggers.grown_partitions(event)) if "Records" in event else follower.sweep()
    if followed.failed:
        count("SubscriptionsHeldUp", followed.failed)
    if followed.parked is not None:
        count("ParkedStreams", followed.parked)
    telemetry.logger().info("followed", **msgspec.structs.asdict(followed))


@app.lambda_function(name="Intake")
def intake(event: Any, context: Any) -> dict[str, Any]:
    """Write down what other services tell."""

    def take(body: bytes) -> None:
        with deadline(triggers.seconds_for(context), adapters.database().clock), telling_of_damage("intake"):
            taken = adapters.intake().take(body)
        telemetry.logger().info("taken in", stream=taken.stream, version=taken.version, is_replay=taken.is_replay)

    return each_message(event, take)


def on_growth(head: Head) -> None:
    """Measure how long the newest commit waited for its place in the log."""
    if head.recorded_at:
        waited = adapters.database().clock.now() - head.recorded_at
        telemetry.metrics().add_metric("LogLagSeconds", "Seconds", max(0.0, waited.total_seconds()))
        telemetry.flush_metrics()


def on_parked_view(generation: Generation, parked: Parked) -> None:
    """Tell of a stream that stands still in a read model; once that is mended, it is redriven."""
    telemetry.logger().error("A view cannot take an event.", view=generation.view, tenant=generation.tenant,
                             stream=parked.stream, version=parked.version, reason=parked.reason)  # fmt: skip


def on_outdated_view(generation: Generation, version: int) -> None:
    """Tell of a read model that stands still, since the code that made it is gone, until it is rebuilt."""
    telemetry.logger().error("A view has to be rebuilt.", view=generation.view, tenant=generation.tenant,
                             generation=generation.number, version=version)  # fmt: skip


def on_unsent(error: Exception, subscription: Subscription) -> None:
    """Tell of damage that keeps a subscription's events from being sent."""
    tell_of_damage(error, f"subscriptions/{subscription.name}", subscription.tenant)


def _sweep() -> set[tuple[str, int]]:
    """
    Find the partitions that a read model stands behind, and count what stands still in one.

    Look after rebuilds, and generations that nobody needs.
    """
    every = list(heads(adapters.database(), adapters.tables()))
    pointers, retirement = adapters.pointers_of({head.tenant for head in every}), adapters.retirement()
    retirement.walk(retirement.due(pointers))
    _ask_again((tenant, pointer.rebuild_id) for (tenant, _), pointer in pointers.items() if pointer.rebuild_id)
    found = adapters.projector().survey(every)
    count("ParkedStreams", found.parked)
    count("OutdatedViews", found.outdated)
    return found.behind


def _ask_again(running: Iterable[tuple[str, str]]) -> None:
    """Look whether rebuilds move; who cannot be asked now is asked by a later sweep, and no read model waits for it."""
    try:
        adapters.rebuilds().ask_again(running)
    except Exception:  # noqa: BLE001 - as above
        telemetry.logger().exception("Rebuilds could not be looked after.")


def _moved(tenant: str, partition: int) -> bool:
    """Move the read models along a partition; tell whether they have come to its end."""
    try:
        with telling_of_damage("views"):
            adapters.projector(EFFECTS, on_parked_view, on_outdated_view).project(tenant, partition)
    except Exception:  # noqa: BLE001 - whatever it is, it is this tenant's, and the sweep tries again
        telemetry.logger().exception("A read model could not be moved.", tenant=tenant, partition=partition)
        return False
    return True


def _keep(tenant: str, stream: str) -> bool:
    """Make the snapshots that are due; tell whether that was all. They are shortcuts: a failure holds up nothing."""
    try:
        with telling_of_damage("snapshots"):
            return snapshots(tenant).keep(stream, domain.reducers.of(stream)).is_done
    except Exception:  # noqa: BLE001 - a state that is too large, a key that cannot be had: they are looked for again
        telemetry.logger().exception("A snapshot was not made.", tenant=tenant, stream=stream)
        return True


def _push(grown: Sequence[tuple[str, int]]) -> None:
    """Tell those who follow the log that it has grown. Who is not reached asks again within seconds."""
    for tenant, partition in grown:
        try:
            with telling_of_damage("tail"):
                adapters.tailing().push(tenant, partition)
        except Exception:  # noqa: BLE001 - whatever keeps a message from a listener must not hold up a read model
            telemetry.logger().exception("A tail was not told.", tenant=tenant, partition=partition)


def _grown_far(event: Any) -> Iterator[tuple[str, str]]:
    """Name the streams that have passed another multiple of so many events: it may be time for a snapshot."""
    for tenant, partition, position in triggers.segments(event):
        for reference in _references(tenant, partition, position):
            before, after = reference.first_version - 1, reference.first_version + reference.events - 1
            if before // EVENTS_MIN != after // EVENTS_MIN:
                yield tenant, reference.stream


def _references(tenant: str, partition: int, position: int) -> list[Reference]:
    """Read which commits a segment holds; none if it cannot be read, since `Repair` looks after snapshots as well."""
    try:
        return [entry.reference for entry in adapters.log_of(tenant).segment(partition, position)]
    except Exception:  # noqa: BLE001 - as above
        telemetry.logger().exception("A segment could not be read.", tenant=tenant, partition=partition)
        return []
