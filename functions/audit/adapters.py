"""Where the audit trail is kept: streams, log and read models in DynamoDB, and the queue of its rebuilds."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import msgspec

from functions.audit import domain
from functions.audit.service import Intake
from holdfast.anchors import Anchors, KmsSigner, Signer
from holdfast.archive import Archiver, ArchiveReader, Stuck
from holdfast.auth import RevocationList, revocations_from
from holdfast.aws import Garbled, client
from holdfast.broadcast import ApiGatewayPost, Broadcast, Door, Tickets
from holdfast.clock import to_micros
from holdfast.cloudevents import rendered
from holdfast.cursor_keys import CursorKey, cursor_key_from
from holdfast.cursors import Cursors
from holdfast.dynamodb import BotocoreTransport, Database, DynamoEventStores, Tables
from holdfast.dynamodb.stream_reader import SUPERSEDED
from holdfast.envelope_kms import KmsKeyRing
from holdfast.errors import Unavailable
from holdfast.exporting import Bookmark, Exporter, Page
from holdfast.log import Entry, Indexer, LogReader, Reference
from holdfast.log.bodies import Bodies, Stored
from holdfast.log.indexer import OnBroken, OnGrowth
from holdfast.log.missing import Missing
from holdfast.log.repair import Repair
from holdfast.log.values import SOLE
from holdfast.objects import Objects, S3Objects
from holdfast.outbox import Announced, AwsOutbox, Outbox
from holdfast.projections import Effect, Pointer, Projector
from holdfast.projections.pointers import read_pointers
from holdfast.projections.projector import OnOutdated, OnViewParked
from holdfast.projections.reader import ViewReader
from holdfast.projections.rebuilds import Rebuilds
from holdfast.projections.redrive import Redrive
from holdfast.projections.retirement import Retirement
from holdfast.retry import Budget, repeat
from holdfast.sealing import Sealer
from holdfast.snapshots import Snapshots
from holdfast.streams import Commit, EventStores, RawCodec
from holdfast.streams.packing import unpack
from holdfast.subjects import ROLE as SUBJECTS_ROLE
from holdfast.subjects import KeyCache, SubjectKeys
from holdfast.subscriptions import AllowList, Deliverer, Follower, Subscriptions
from holdfast.subscriptions.delivering import OnBug, OnParked
from holdfast.switches import ROLE as SWITCHES_ROLE
from holdfast.switches import Switches
from holdfast.tailing import OnSubscribe, Tailing
from holdfast.tailing_log import IndexedLog

SERVICE: Final = "audit"

SENDING: Final = Budget(attempts_max=4, seconds_max=6.0)
"""How often and how long one message is tried to be sent."""


@cache
def database() -> Database:
    """Reach DynamoDB; made by the first request that needs it."""
    return Database.connect(BotocoreTransport())


@cache
def tables() -> Tables:
    """Take the names that the stack's template gives the function; switches and data subjects are operations' rows."""
    named = Tables.from_environment()
    return replace(named, companions=dict.fromkeys((SWITCHES_ROLE, SUBJECTS_ROLE), named.operations))


@cache
def event_stores() -> EventStores[bytes]:
    return DynamoEventStores(database(), RawCodec(), tables(), archive())


@cache
def archive() -> ArchiveReader:
    """Read what has left the table; it keeps what it read last, for the whole process."""
    return ArchiveReader(database(), tables(), archive_objects())


def archiver(on_stuck: Callable[[Stuck], None]) -> Archiver:
    return Archiver(database(), tables(), archive_objects(), on_stuck)


def log_of(tenant: str) -> LogReader:
    return LogReader(database(), tables(), tenant)


def views_of(tenant: str) -> ViewReader:
    return ViewReader(database(), tables(), tenant)


def projector(
    effects: Mapping[str, Effect] = MappingProxyType({}),
    on_parked: OnViewParked = lambda _generation, _parked: None,
    on_outdated: OnOutdated = lambda _generation, _version: None,
) -> Projector:
    return Projector(database(), tables(), bodies(), domain.VIEWS, effects, on_parked, on_outdated)


def pointers_of(tenants: Iterable[str]) -> Mapping[tuple[str, str], Pointer]:
    """Read which generations of the read models are live, by tenant and view."""
    return read_pointers(database(), tables(), tenants, [view.name for view in domain.VIEWS])


def indexer(on_broken: OnBroken, on_growth: OnGrowth) -> Indexer:
    return Indexer(database(), tables(), on_broken, on_growth)


def missing_of(tenant: str) -> Missing:
    return Missing(database(), tables(), tenant)


def repair(on_broken: OnBroken, on_growth: OnGrowth) -> Repair:
    return Repair(database(), tables(), indexer(on_broken, on_growth))


@cache
def signer() -> Signer:
    return KmsSigner(os.environ["HOLDFAST_ANCHOR_KEY_ID"], database().clock)


def anchors() -> Anchors:
    return Anchors(database(), tables(), SERVICE, anchor_objects(), signer())


def told_anchors() -> Announced:
    return Announced(database(), tables().log, "AN#told", SOLE)


def anchor_objects() -> Objects:
    return S3Objects(os.environ["HOLDFAST_ANCHOR_BUCKET"], database().clock)


def archive_objects() -> Objects:
    return S3Objects(os.environ["HOLDFAST_ARCHIVE_BUCKET"], database().clock)


def tickets() -> Tickets:
    return Tickets(database(), tables())


def websocket_url() -> str:
    return os.environ["HOLDFAST_WEBSOCKET_URL"]


def broadcast() -> Broadcast:
    post = ApiGatewayPost(os.environ["HOLDFAST_WEBSOCKET_ENDPOINT"], database().clock)
    return Broadcast(database(), tables(), post, is_revoked=_revocations().is_revoked)


@cache
def _revocations() -> RevocationList:
    return revocations_from(os.environ, database().clock)


def tailing() -> Tailing:
    return Tailing(broadcast(), IndexedLog(bodies(), rendered_for), "audit:read")


def websocket_door(on_subscribe: OnSubscribe, on_bug: Callable[[Exception], None]) -> Door:
    return Door(tickets(), broadcast(), replace(tailing(), on_subscribe=on_subscribe), on_bug)


def rendered_for(tenant: str, stored: Stored) -> list[bytes]:
    """Write a commit's events as a reader of their stream sees them."""
    commit = _shown_commit(tenant, stored, stored.first_version, stored.events)
    return [msgspec.json.encode(event) for event in rendered(sealer_of(tenant).shown(commit))]


def _shown_commit(tenant: str, stored: Stored, first_version: int, events: tuple[bytes, ...]) -> Commit[bytes]:
    """Put events, all of a stored commit or some, into one with its facts: to be shown, and not to be built on."""
    return Commit(
        tenant=tenant,
        stream=stored.stream,
        first_version=first_version,
        events=events,
        commit_id=stored.commit_id,
        fingerprint=b"",
        actor=stored.actor,
        recorded_at=stored.recorded,
        previous_hash=stored.previous_hash,
        hash=stored.hash,
        read_at=SUPERSEDED,
    )


def lines_of(tenant: str, on_damaged: Callable[[Exception], None]) -> "ExportLines":
    return ExportLines(Exporter(log_of(tenant), bodies(), on_damaged))


@dataclass(frozen=True)
class ExportLines:
    """The lines of one tenant's log, going on at what a cursor has kept of a bookmark."""

    exporter: Exporter

    def page(self, partition: int, from_leaf: int, following: Any) -> Page:
        bookmark = None if following is None else msgspec.convert(following, Bookmark)
        return self.exporter.page(partition, from_leaf, bookmark)


def snapshots_of(tenant: str, on_damaged: Callable[[Exception], None] = lambda _error: None) -> Snapshots:
    """Keep and use snapshots as the function itself, whoever asked."""
    store = event_stores().of(tenant, f"holdfast:{SERVICE}")
    return Snapshots(database(), tables(), tenant, store, archive_objects(), sealer_of(tenant), on_damaged)


def rebuilds() -> Rebuilds:
    return Rebuilds(database(), tables(), projector(), send_step)


def redrive(projector: Projector) -> Redrive:
    return Redrive(projector)


def retirement() -> Retirement:
    return Retirement(database(), tables())


@cache
def switches() -> Switches:
    return Switches(database(), tables())


def intake() -> Intake:
    return Intake(event_stores(), sealer_of)


def outbox() -> Outbox:
    return AwsOutbox(os.environ["HOLDFAST_EVENT_BUS"], database().clock)


def allowed_targets() -> AllowList:
    return AllowList.of(os.environ["HOLDFAST_SUBSCRIPTION_TARGETS"])


def subscriptions_of(tenant: str) -> Subscriptions:
    return Subscriptions(database(), tables(), tenant, allowed_targets())


def follower(on_parked: OnParked, on_bug: OnBug) -> Follower:
    deliverer = Deliverer(
        database=database(),
        tables=tables(),
        bodies=bodies(),
        outbox=outbox(),
        render=rendered_for,
        allowed=allowed_targets(),
        on_parked=on_parked,
        on_bug=on_bug,
    )
    return Follower(deliverer)


def bodies() -> Bodies:
    return Bodies(database(), tables(), archive())


def bodies_of(tenant: str) -> "EventBodies":
    return EventBodies(bodies(), tenant, sealer_of(tenant))


@cache
def _subject_keys() -> KeyCache:
    return KeyCache(database().clock)


def subject_keys(tenant: str) -> SubjectKeys:
    ring = KmsKeyRing(os.environ["HOLDFAST_SUBJECTS_KEY_ID"], database().clock)
    return SubjectKeys(database(), tables(), ring, tenant, _subject_keys())


def sealer_of(tenant: str) -> Sealer:
    return Sealer(subject_keys(tenant), tenant)


@dataclass(frozen=True)
class EventBodies:
    """The events behind rows of the view `events`, of one tenant."""

    bodies: Bodies
    tenant: str
    sealer: Sealer

    def __call__(self, rows: Iterable[domain.EventRow]) -> Iterator[Commit[bytes]]:
        wanted = list(rows)
        unpacked: tuple[bytes, tuple[bytes, ...]] = (b"", ())
        for each, (_, stored) in zip(wanted, self.bodies.of(self.tenant, map(_entry_of, wanted)), strict=True):
            # Neighbours are often of one commit, which holds up to 1,000 events.
            if unpacked[0] != stored.hash:
                unpacked = (stored.hash, unpack(stored.packed))
            event = unpacked[1][each.version - stored.first_version]
            yield self.sealer.shown(_shown_commit(self.tenant, stored, each.version, (event,)))


def _entry_of(row: domain.EventRow) -> Entry:
    """Name the commit that holds an event as the log does, as far as fetching it needs."""
    position = row.position - (row.version - row.first_version)
    reference = Reference(row.stream, row.first_version, 0, "", b"", to_micros(row.recorded_at))
    return Entry(row.partition, position, 0, reference)


@cache
def _cursor_key() -> CursorKey:
    return cursor_key_from(os.environ, database().clock)


def cursors() -> Cursors:
    return _cursor_key().cursors()


def send_step(tenant: str, rebuild_id: str, partition: int) -> None:
    """
    Ask a worker for the next step of a rebuild.

    Raises:
        Unavailable: `queue_unavailable`.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - only rebuilds need it

    step = msgspec.json.encode({"tenant": tenant, "rebuild_id": rebuild_id, "partition": partition}).decode()
    try:
        repeat(
            lambda: client("sqs").send_message(QueueUrl=os.environ["HOLDFAST_REBUILD_QUEUE_URL"], MessageBody=step),
            on=(BotoCoreError, ClientError, Garbled),
            budget=SENDING,
            clock=database().clock,
        )
    except (BotoCoreError, ClientError, Garbled) as error:
        raise Unavailable(
            "queue_unavailable", "The rebuild could not be handed to a worker. Repeat with the same key."
        ) from error
