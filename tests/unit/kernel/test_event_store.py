"""The promises of an event store, on memory and on DynamoDB as moto has it."""

import itertools

import pytest

from holdfast.clock import ManualClock
from holdfast.streams import MemoryEventStores, RawCodec
from holdfast.testing import Fuse
from tests.dynamo_tables import moto_stores, row_reader
from tests.promises import EventStorePromises

_NUMBERS = itertools.count()


@pytest.fixture
def tenant() -> str:
    return f"t{next(_NUMBERS)}"


@pytest.fixture(scope="module")
def database():
    with moto_stores() as database:
        yield database


class TestInMemory(EventStorePromises):
    @pytest.fixture
    def clock(self):
        return ManualClock()

    @pytest.fixture
    def asked(self) -> Fuse:
        return Fuse()

    @pytest.fixture
    def stores(self, clock):
        return MemoryEventStores(RawCodec(), clock)

    @pytest.fixture
    def row(self, stores):
        return stores.row


class TestOnMoto(EventStorePromises):
    # moto loses writes between threads, so what happens at the same time is shown on the running engine (tests/local).
    test_of_many_writers_at_one_boundary_one_wins = None  # type: ignore[assignment]
    test_any_appends_of_many_writers_all_stand_once = None  # type: ignore[assignment]
    test_of_many_copies_of_a_call_one_decides_and_all_have_its_state = None  # type: ignore[assignment]
    # moto fails by itself where DynamoDB compares values of two kinds.
    test_text_is_never_at_least_a_number_and_true_is_not_one = None  # type: ignore[assignment]

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
