"""The promises of an event store, on the running engine: also what happens at the same time."""

import itertools
import os

import pytest

from holdfast.clock import ManualClock
from holdfast.testing import Fuse
from tests.dynamo_tables import row_reader
from tests.promises import EventStorePromises

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def database(engine):
    return engine.make_tables()


@pytest.fixture
def tenant() -> str:
    return f"t{os.getpid()}-{next(_NUMBERS)}"


class TestOnTheEngine(EventStorePromises):
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


def test_the_engines_own_clock_is_read_from_its_answers(database, engine):
    stores = database.stores(transport=engine.dated)
    stores.of("t", "ann").last("orders/1")

    assert stores._database.skew is not None
    assert abs(stores._database.skew.total_seconds()) < 60
