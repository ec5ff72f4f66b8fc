"""The running local engine, with tables and a bucket of the bench's own that are gone when it is over."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from holdfast import aws
from holdfast.archive import ArchiveReader
from holdfast.clock import Clock, ManualClock
from holdfast.dynamodb import BotocoreTransport, Database, DynamoEventStore, DynamoEventStores, Tables, Transport
from holdfast.folds import MERGE_PATCH, Folded, Within
from holdfast.log import Indexer
from holdfast.log.bodies import Bodies
from holdfast.objects import Objects, S3Objects
from holdfast.snapshots import Snapshots
from holdfast.streams import RawCodec
from holdfast_client.local import find_home
from stacks.local import clients
from stacks.local.engine import ACCESS_KEY, REGION, SECRET_KEY
from stacks.local.running import Home, load
from tests.bench.audit.figures import Wrong
from tests.dynamo_tables import UndatedTransport, create_tables, delete_tables
from tests.log_lab import memory_sealer

CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
DELETED_AT_ONCE: Final = 1_000
"""Objects that one request to S3 deletes."""


@dataclass(frozen=True)
class Place:
    """Where one group of measurements keeps what it writes; whoever is told its fields can reach it too."""

    endpoint_url: str
    dynamodb_url: str
    tables: Tables
    bucket: str

    def transport(self) -> Transport:
        return UndatedTransport(BotocoreTransport(REGION, self.dynamodb_url))


@dataclass(frozen=True)
class Trail:
    """One tenant's streams and what is made of them, on a clock that is moved by hand through the years."""

    place: Place
    tenant: str = field(default_factory=lambda: f"bench-{uuid.uuid4().hex[:8]}")
    clock: Clock = field(default_factory=ManualClock)
    counted: Transport | None = None
    """What all calls go through, if somebody wants to count them."""

    @cached_property
    def database(self) -> Database:
        return Database.connect(self.counted or self.place.transport(), self.clock)

    @property
    def tables(self) -> Tables:
        return self.place.tables

    @property
    def objects(self) -> Objects:
        return S3Objects(self.place.bucket, self.clock, region=REGION, endpoint_url=self.place.endpoint_url)

    @cached_property
    def archive(self) -> ArchiveReader:
        """Read what has left the table; as in a function, what it read last is kept."""
        return ArchiveReader(self.database, self.tables, self.objects)

    def store(self) -> DynamoEventStore[bytes]:
        return DynamoEventStores(self.database, RawCodec(), self.tables, self.archive).of(self.tenant, "bench")

    def bodies(self) -> Bodies:
        return Bodies(self.database, self.tables, self.archive)

    def indexer(self) -> Indexer:
        return Indexer(self.database, self.tables, refuse)

    def snapshots(self, store: DynamoEventStore[bytes] | None = None) -> Snapshots:
        sealer = memory_sealer(self.database, self.tables, self.tenant)
        return Snapshots(self.database, self.tables, self.tenant, store or self.store(), self.objects, sealer)

    def state(self, stream: str, within: Within) -> Folded:
        """Answer a state as the service does."""
        return self.snapshots().state(stream, MERGE_PATCH, within).folded

    def move_to(self, moment: datetime) -> None:
        if isinstance(self.clock, ManualClock):
            self.clock.advance(moment - self.clock.now())


def refuse(fault: object) -> None:
    """Stand where a function would raise an alarm: here nothing may go wrong."""
    raise Wrong(repr(fault))


@contextmanager
def engine() -> Iterator[Place]:
    """Make tables and a bucket on the engine of the stack that runs; delete them at the end, whatever happens."""
    home = find_home()
    running = load(Home(home))
    if running is None:
        raise Wrong(f"No local stack runs in {home}. Start one with: ./holdfast up --detach")
    aws_client = clients.factory(running.engine.endpoint_url)
    name = f"bench-{uuid.uuid4().hex[:8]}"
    before = {variable: os.environ.get(variable) for variable in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    aws.client.cache_clear()
    tables = create_tables(aws_client("dynamodb"), name)
    aws_client("s3").create_bucket(Bucket=name)
    try:
        yield Place(running.engine.endpoint_url, running.engine.dynamodb_endpoint_url, tables, name)
    finally:
        delete_tables(aws_client("dynamodb"), name)
        _delete_bucket(aws_client("s3"), name)
        aws.client.cache_clear()
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value


def _delete_bucket(s3: Any, name: str) -> None:
    while found := s3.list_objects_v2(Bucket=name, MaxKeys=DELETED_AT_ONCE).get("Contents"):
        s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": each["Key"]} for each in found], "Quiet": True})
    s3.delete_bucket(Bucket=name)
