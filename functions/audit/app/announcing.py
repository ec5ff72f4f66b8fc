"""
What the audit trail tells the other services: CloudEvents on the bus, each with an id derived from what it tells.

    event                    told
    anchor.signed            at least once: which anchors were told of is kept beside them
    rebuild.finished         at least once by its workers; best effort where somebody flips, rolls back or abandons it
    subscription.parked      at least once: where the stream stands says whether it was told of
    subject.erased           at least once: from the log, before the read model `activity` goes on beyond it
    integrity.failed         best effort, and again each time the damage is met

What concerns all tenants, an anchor or a fault that is nobody's alone, names none.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from functions.audit import adapters, domain
from holdfast import telemetry
from holdfast.anchors import Anchor, Inconsistent
from holdfast.archive import Stuck
from holdfast.clock import from_micros, to_text
from holdfast.cloudevents import Attributes
from holdfast.envelope import Forged
from holdfast.errors import NotFound, ServiceError
from holdfast.log import Broken
from holdfast.log.bodies import Lost
from holdfast.objects import Damaged
from holdfast.outbox import announcement
from holdfast.projections import Effect, Recorded
from holdfast.projections.rebuilds import Rebuild
from holdfast.sealing import KeyLost
from holdfast.subscriptions import Stand, Subscription

DAMAGE: Final = (Inconsistent, Damaged, Forged, KeyLost, Lost)
"""What should be impossible, as long as nobody tampers with what is stored."""


class _Final(msgspec.Struct):
    final_at: str | None = None


class _Erasure(msgspec.Struct):
    """An event that tells of an erasure, as far as it is told of."""

    subject: str
    data: _Final


_ERASURE: Final = msgspec.json.Decoder(_Erasure)


def anchor_signed(anchor: Anchor) -> Attributes:
    said = anchor.said
    return announcement(
        adapters.SERVICE,
        "anchor.signed",
        identity=[str(said.seq), anchor.digest],
        time=from_micros(said.time),
        subject=f"anchors/{said.seq}",
        tenant=None,
        data={
            "seq": said.seq,
            "leaves": said.leaves,
            "super_root": said.super_root,
            "statement_sha256": anchor.digest,
            "key_id": anchor.key_id,
        },
    )


def rebuild_finished(rebuild: Rebuild) -> Attributes:
    """Tell of a rebuild that is over, for now: `ready` and `needs_review` may still become something else."""
    return announcement(
        adapters.SERVICE,
        "rebuild.finished",
        identity=[rebuild.rebuild_id, rebuild.state],
        time=rebuild.finished_at or adapters.database().clock.now(),
        subject=f"rebuilds/{rebuild.rebuild_id}",
        tenant=rebuild.tenant,
        data={
            "rebuild_id": rebuild.rebuild_id,
            "view": rebuild.view,
            "generation": rebuild.generation,
            "state": rebuild.state,
            "reason": rebuild.reason,
            "actor": rebuild.actor,
        },
    )


def subject_erased(recorded: Recorded) -> Attributes:
    """Tell of an erasure as the log has recorded it."""
    erasure = _ERASURE.decode(recorded.stored)
    return announcement(
        adapters.SERVICE,
        "subject.erased",
        identity=[erasure.subject],
        time=recorded.recorded_at,
        subject=recorded.stream,
        tenant=recorded.tenant,
        data={"subject": erasure.subject, "final_at": erasure.data.final_at},
    )


def subscription_parked(subscription: Subscription, stand: Stand) -> Attributes:
    """Tell of a stream that is parked; one that is parked again after a redrive is told of again."""
    return announcement(
        adapters.SERVICE,
        "subscription.parked",
        identity=[subscription.id, stand.stream, str(stand.version), to_text(stand.due_at)],
        time=adapters.database().clock.now(),
        subject=f"subscriptions/{subscription.name}",
        tenant=subscription.tenant,
        data={
            "subscription": subscription.name,
            "target": subscription.settings.target,
            "stream": stand.stream,
            "version": stand.version,
            "partition": stand.partition,
            "attempts": stand.attempts,
            "reason": stand.reason,
        },
    )


def integrity_failed(kind: str, where: str, reason: str, *, tenant: str | None = None, **facts: Any) -> Attributes:
    """Tell of damage; it is met again and again until somebody mends it, and has the same id each time."""
    return announcement(
        adapters.SERVICE,
        "integrity.failed",
        identity=[kind, where, reason, *map(str, facts.values())],
        time=adapters.database().clock.now(),
        subject=where,
        tenant=tenant,
        data={"kind": kind, "where": where, "reason": reason, **facts},
    )


# ----- telling


def announce(*events: Attributes) -> None:
    """
    Put events on the bus.

    Raises:
        Unavailable: `bus_unavailable`, `out_of_time`.
    """
    adapters.outbox().publish(events)


def announce_if_possible(*events: Attributes) -> None:
    """Put events on the bus, for somebody whose work is done whether or not that can be told."""
    try:
        announce(*events)
    except ServiceError:
        telemetry.logger().exception("Nobody could be told.", events=[event["type"] for event in events])
        count("UntoldEvents", len(events))


def announce_anchors() -> None:
    """Tell of the anchors that were signed and not yet told of, a crash before this included."""
    anchors, told = adapters.anchors(), adapters.told_anchors()
    latest = anchors.latest()
    for seq in told.untold(latest.said.seq if latest else 0):
        announce(anchor_signed(anchors.get(seq)))
        told.tell(seq)


def announce_if_over(tenant: str, rebuild_id: str) -> None:
    """Tell of a rebuild whose step has just been made, if it was the last one."""
    try:
        rebuild = adapters.rebuilds().get(tenant, rebuild_id)
    except NotFound:
        return
    if rebuild.is_over:
        announce(rebuild_finished(rebuild))


def on_recorded(recorded: Recorded) -> None:
    """
    Tell of what the log has recorded, if the others should know of it.

    Raises:
        Unavailable: it could not be told, and will be asked for again.
    """
    if domain.tells_of_erasure(recorded.stream, recorded.stored):
        announce(subject_erased(recorded))


EFFECTS: Final[Mapping[str, Effect]] = {domain.ACTIVITY.name: on_recorded}
"""By read model. It is the last one to move: while the bus does not answer, no other one waits."""


@contextmanager
def telling_of_damage(where: str) -> Iterator[None]:
    """Tell of damage that is met inside, and let it travel on."""
    try:
        yield
    except DAMAGE as error:
        tell_of_damage(error, where)
        raise


def tell_of_damage(error: Exception, where: str, tenant: str | None = None) -> None:
    """Tell of *error* if it is damage."""
    if isinstance(error, DAMAGE):
        count("IntegrityFailures")
        announce_if_possible(integrity_failed(type(error).__name__, where, str(error), tenant=tenant))


def on_bug(error: Exception, where: str, tenant: str | None = None) -> None:
    """Count what nobody foresaw, for which somebody who asked is answered 500; tell of it if it is damage."""
    count("UnexpectedErrors")
    tell_of_damage(error, where, tenant)


def on_broken(broken: Broken) -> None:
    """Tell of a stream whose history does not hold together; it stays out of the log from there on."""
    telemetry.logger().error("A stream is broken.", **msgspec.structs.asdict(broken))
    count("IntegrityFailures")
    announce_if_possible(
        integrity_failed(
            "Broken", f"streams/{broken.stream}", broken.reason, tenant=broken.tenant, version=broken.version
        )
    )


def on_stuck(stuck: Stuck) -> None:
    """Tell of a partition that cannot be archived; nothing of it is removed until somebody has looked."""
    telemetry.logger().error("A partition cannot be archived.", **msgspec.structs.asdict(stuck))
    count("IntegrityFailures")
    announce_if_possible(integrity_failed("Stuck", f"log/{stuck.partition}", stuck.reason, tenant=stuck.tenant))


def on_parked(subscription: Subscription, stand: Stand) -> None:
    """
    Tell of a stream that is parked in a subscription.

    Raises:
        Unavailable: it could not be told, and will be asked for again.
    """
    telemetry.logger().error("A stream is parked.", subscription=subscription.name, stream=stand.stream)
    announce(subscription_parked(subscription, stand))


def count(name: str, by: int = 1) -> None:
    telemetry.metrics().add_metric(name, "Count", by)
    telemetry.flush_metrics()
