"""The archive on the running engine: its tables, its buckets, several removals at once."""

import itertools
import os
import uuid
from datetime import timedelta

import pytest

from holdfast.archive import Archiver, ArchiveReader
from holdfast.aws import client
from holdfast.clock import ManualClock, SystemClock
from holdfast.dynamodb import BotocoreTransport, Database, DynamoEventStores
from holdfast.log import PARTITIONS, Hint, Indexer
from holdfast.objects import S3Objects
from holdfast.streams import RawCodec
from holdfast.testing import Fuse
from tests.dynamo_tables import REGION, TestTables, UndatedTransport, create_tables, delete_tables
from tests.promises import ArchivedStreamPromises

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def database(stack):
    endpoint_url = stack.running.engine.dynamodb_endpoint_url
    dynamodb = stack.client("dynamodb")
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    tables = create_tables(dynamodb, prefix)
    stack.client("s3").create_bucket(Bucket=prefix)
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client.cache_clear()
    made = TestTables(UndatedTransport(BotocoreTransport(REGION, endpoint_url)), tables)
    objects = S3Objects(prefix, SystemClock(), region=REGION, endpoint_url=stack.running.engine.endpoint_url)
    yield made, objects
    client.cache_clear()
    patch.undo()
    delete_tables(dynamodb, prefix)
    s3 = stack.client("s3")
    for found in s3.list_objects_v2(Bucket=prefix).get("Contents", ()):
        s3.delete_object(Bucket=prefix, Key=found["Key"])
    s3.delete_bucket(Bucket=prefix)


@pytest.fixture
def tenant() -> str:
    return f"t{os.getpid()}-{next(_NUMBERS)}"


class TestOnTheEngine(ArchivedStreamPromises):
    @pytest.fixture
    def clock(self):
        return ManualClock()

    @pytest.fixture
    def asked(self) -> Fuse:
        return Fuse()

    @pytest.fixture
    def connection(self, database, clock, asked):
        return Database.connect(asked.wrap(database[0].transport), clock)

    @pytest.fixture
    def stores(self, database, connection):
        made, objects = database
        return DynamoEventStores(connection, RawCodec(), made.tables, ArchiveReader(connection, made.tables, objects))

    @pytest.fixture
    def grow_old(self, database, connection, clock, stores, tenant):
        made, objects = database

        def grow_old():
            newest = stores.of(tenant, "x").last("orders/1")
            Indexer(connection, made.tables, print).index([Hint(tenant, "orders/1", newest.first_version)])
            clock.advance(timedelta(days=100))
            stuck: list[object] = []
            archiver = Archiver(connection, made.tables, objects, stuck.append)
            for partition in range(PARTITIONS):
                while archiver.partition(tenant, partition).archive():
                    pass
            assert stuck == []

        return grow_old
