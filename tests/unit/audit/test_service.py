"""The audit trail's shell, while others append."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from functions.audit.service import AuditTrail
from holdfast.clock import ManualClock
from holdfast.dynamodb import Database
from holdfast.envelope import MemoryKeyRing
from holdfast.sealing import Sealer
from holdfast.snapshots import Snapshots
from holdfast.streams import Commit, EventStore, MemoryEventStores, RawCodec
from holdfast.subjects import KeyCache, SubjectKeys
from tests.log_lab import memory_tables
from tests.memory_dynamodb import MemoryTransport


def event(number: int) -> bytes:
    attributes = {"specversion": "1.0", "id": str(number), "source": "urn:test", "type": "t", "data": {"n": number}}
    return msgspec.json.encode(attributes)


class Overtaken:
    """A store to which somebody appends whenever it has said where a stream ends."""

    def __init__(self, store: EventStore[bytes]) -> None:
        self._store = store

    def last(self, stream: str) -> Commit[bytes] | None:
        newest = self._store.last(stream)
        assert newest is not None
        following = newest.version + 1
        self._store.append(stream, newest.version, [event(following)], commit_id=f"c{following}")
        return newest

    def read(
        self, stream: str, after: int = 0, *, until: int | None = None, at: datetime | None = None
    ) -> Iterator[Commit[bytes]]:
        return self._store.read(stream, after, until=until, at=at)

    def read_back(self, stream: str, before: int | None = None) -> Iterator[Commit[bytes]]:
        return self._store.read_back(stream, before)


@pytest.fixture
def trail():
    store = MemoryEventStores(RawCodec(), ManualClock(datetime(2026, 1, 1, tzinfo=UTC))).of("acme", "ann")
    store.append("s", 0, [event(1), event(2)], commit_id="c1")
    # It is only read through the trail, so it has no way to append.
    overtaken: Any = Overtaken(store)
    transport = MemoryTransport()
    tables, database = memory_tables(transport), Database.connect(transport)
    keys = SubjectKeys(database, tables, MemoryKeyRing(), "acme", KeyCache(database.clock))
    sealer = Sealer(keys, "acme")
    return AuditTrail(overtaken, sealer, Snapshots(database, tables, "acme", overtaken, None, sealer))


def test_a_state_is_of_the_version_that_it_says_is_the_last(trail):
    answer = trail.state("s")

    assert (answer.folded.version, answer.folded.state, answer.last_version) == (2, {"n": 2}, 2)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(("after", "versions"), [(0, {1, 2}), (3, set()), (9, set())])
def test_a_page_ends_where_it_says_the_stream_does(trail, newest_first, after, versions):
    answer = trail.events("s", after=after, limit=100, newest_first=newest_first)
    found = {msgspec.json.decode(each)["streamversion"] for each in answer.page.events}

    assert answer.last_version == 2
    assert answer.page.next_after is None
    assert found == ({1, 2} if newest_first else versions)
