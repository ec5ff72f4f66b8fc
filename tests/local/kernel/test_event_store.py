"""The promises of an event store, on the running engine: also what happens at the same time."""

import itertools
import os
import uuid

import pytest

from holdfast.aws import client
from holdfast.clock import ManualClock
from holdfast.dynamodb import BotocoreTransport
from tests.dynamo_tables import REGION, TestTables, UndatedTransport, create_tables, delete_tables, row_reader
from tests.promises import EventStorePromises

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def database(stack):
    endpoint_url = stack.running.engine.dynamodb_endpoint_url
    dynamodb = stack.client("dynamodb")
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    tables = create_tables(dynamodb, prefix)
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client.cache_clear()
    yield TestTables(UndatedTransport(BotocoreTransport(REGION, endpoint_url)), tables)
    client.cache_clear()
    patch.undo()
    delete_tables(dynamodb, prefix)


@pytest.fixture
def tenant() -> str:
    return f"t{os.getpid()}-{next(_NUMBERS)}"


class TestOnTheEngine(EventStorePromises):
    @pytest.fixture
    def clock(self):
        return ManualClock()

    @pytest.fixture
    def stores(self, database, clock):
        return database.stores(clock)

    @pytest.fixture
    def row(self, database):
        return row_reader(database)


def test_the_engines_own_clock_is_read_from_its_answers(database):
    stores = database.stores(transport=BotocoreTransport(REGION, database.transport._inner._endpoint_url))
    stores.of("t", "ann").last("orders/1")

    assert stores._database.skew is not None
    assert abs(stores._database.skew.total_seconds()) < 60
