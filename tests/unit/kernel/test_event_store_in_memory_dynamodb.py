"""The promises of an event store, on DynamoDB in memory: also what happens at the same time."""

import pytest

from holdfast.clock import ManualClock
from holdfast.testing import Fuse
from tests.dynamo_tables import TestTables, memory_stores, row_reader
from tests.promises import EventStorePromises


class TestOnDynamoDBInMemory(EventStorePromises):
    @pytest.fixture
    def database(self) -> TestTables:
        return memory_stores()

    @pytest.fixture
    def tenant(self) -> str:
        return "t"

    @pytest.fixture
    def clock(self):
        return ManualClock()

    @pytest.fixture
    def asked(self) -> Fuse:
        return Fuse()

    @pytest.fixture
    def stores(self, database, clock, asked):
        return database.stores(clock, asked.wrap(database.transport))

    @pytest.fixture
    def row(self, database):
        return row_reader(database)
