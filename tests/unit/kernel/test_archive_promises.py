"""The promises of an event store, whose commits leave the table as soon as they may, or cannot leave it at all."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast.clock import ManualClock
from holdfast.dynamodb import DynamoEventStores, Transport
from holdfast.log import Hint
from holdfast.streams import Append, EventStore, MemoryEventStores, RawCodec
from holdfast.testing import Fuse
from tests.archive_lab import AGED, ArchiveLab, archive_lab
from tests.dynamo_tables import row_reader
from tests.promises import ArchivedStreamPromises, EventStorePromises

_NUMBERS = itertools.count()


@pytest.fixture
def tenant() -> str:
    return f"t{next(_NUMBERS)}"


class TestInMemory(ArchivedStreamPromises):
    """It has no archive: what others promise is what it does anyhow."""

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
    def grow_old(self, clock):
        return lambda: clock.advance(AGED)


@pytest.fixture
def lab() -> ArchiveLab:
    return archive_lab()


def archive(lab: ArchiveLab) -> None:
    places = [(*row["pk"].split("#", 2)[1:], row["sk"]) for row in lab.rows("commits")]
    lab.indexer().index(Hint(tenant, stream, first_version) for tenant, stream, first_version in places)
    lab.age()
    lab.archiver().run()
    assert lab.stuck == []


def stores_of(lab: ArchiveLab, transport: Transport | None = None) -> DynamoEventStores[bytes]:
    return DynamoEventStores(lab.database(transport), RawCodec(), lab.tables, lab.reader(transport))


class TestArchived(ArchivedStreamPromises):
    @pytest.fixture
    def clock(self, lab):
        return lab.clock

    @pytest.fixture
    def asked(self) -> Fuse:
        return Fuse()

    @pytest.fixture
    def stores(self, lab, asked):
        return stores_of(lab, asked.wrap(lab.transport))

    @pytest.fixture
    def grow_old(self, lab):
        return lambda: archive(lab)

    def test_most_of_it_has_left_the_table(self, lab, old, tenant):
        assert [row["sk"] for row in lab.rows("commits")] == [4]


class EagerStore:
    """A store under which everything is archived that may be, after every append."""

    def __init__(self, inner: EventStore[bytes], lab: ArchiveLab) -> None:
        self._inner = inner
        self._lab = lab

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def append(self, *args: Any, **more: Any) -> Any:
        answer = self._inner.append(*args, **more)
        archive(self._lab)
        return answer

    def append_many(self, appends: Sequence[Append[bytes]], **more: Any) -> Any:
        answers = self._inner.append_many(appends, **more)
        archive(self._lab)
        return answers


class EagerStores:
    def __init__(self, lab: ArchiveLab) -> None:
        self._lab = lab

    def of(self, tenant: str, actor: str) -> Any:
        return EagerStore(stores_of(self._lab).of(tenant, actor), self._lab)


class TestArchivedAtOnce(EventStorePromises):
    # While one thread is between its look at the clock and its write, the others' appends let years pass here; a
    # request that is on its way lives for minutes, and a key is free after days.
    test_of_many_writers_at_one_boundary_one_wins = None  # type: ignore[assignment]
    test_any_appends_of_many_writers_all_stand_once = None  # type: ignore[assignment]
    # Between two appends 100 days pass here, which no boundary is held for.
    test_an_answer_can_be_built_on_without_reading = None  # type: ignore[assignment]
    test_recorded_time_rises_even_when_the_clock_goes_back = None  # type: ignore[assignment]

    @pytest.fixture
    def clock(self, lab):
        return lab.clock

    @pytest.fixture
    def stores(self, lab):
        return EagerStores(lab)

    @pytest.fixture
    def row(self, lab):
        return row_reader(lab)
