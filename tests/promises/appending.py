"""What is appended, and read back: in order, to the byte, chained, and only at the end of a stream."""

from datetime import UTC, datetime, timedelta

import pytest

from holdfast.clock import MICROSECOND, ManualClock
from holdfast.streams import ANY, StaleStream
from holdfast.testing import Fuse
from tests.promises.events import event, events_of


class Appending:
    """See `EventStorePromises`."""

    def test_a_stream_begins_empty(self, store):
        assert list(store.read("orders/1")) == []
        assert list(store.read_back("orders/1")) == []
        assert store.last("orders/1") is None

    def test_what_was_appended_is_read_back_in_order_and_to_the_byte(self, store):
        first = store.append("orders/1", 0, [event(1), event(2, text="Zoë ☃")], commit_id="a")
        second = store.append("orders/1", 2, [event(3)], commit_id="b")

        assert (first.first_version, first.version, second.first_version, second.version) == (1, 2, 3, 3)
        commits = list(store.read("orders/1"))
        assert events_of(commits) == [event(1), event(2, text="Zoë ☃"), event(3)]
        assert [commit.commit_id for commit in commits] == ["a", "b"]
        assert {commit.actor for commit in commits} == {"ann"}

    @pytest.mark.parametrize("after", range(7))
    def test_reading_after_a_version_begins_with_the_commit_that_holds_the_next(self, store, after):
        for first, size in ((1, 2), (3, 3), (6, 1)):
            store.append("orders/1", first - 1, [event(first + n) for n in range(size)], commit_id=f"c{first}")

        found = [commit.first_version for commit in store.read("orders/1", after)]

        assert found == {0: [1, 3, 6], 1: [1, 3, 6], 2: [3, 6], 3: [3, 6], 4: [3, 6], 5: [6], 6: []}[after]

    def test_reading_until_a_version_ends_with_the_commit_that_holds_it(self, store):
        for first in (1, 3, 5):
            store.append("orders/1", first - 1, [event(first), event(first + 1)], commit_id=f"c{first}")

        assert [commit.first_version for commit in store.read("orders/1", until=3)] == [1, 3]

    def test_reading_by_a_time_leaves_out_the_commits_of_which_all_happened_later(self, store):
        days = {1: (1, 5), 3: (9, 8), 5: (2, 9), 7: (8, 8)}
        for first, times in days.items():
            events = [event(first + n, time=f"2020-01-{day:02}T00:00:00Z") for n, day in enumerate(times)]
            store.append("orders/1", first - 1, events, commit_id=f"c{first}")
        undated = store.append("orders/1", 8, [event(9)], commit_id="c9")

        def read(at: datetime, after: int = 0, until: int | None = None) -> list[int]:
            return [commit.first_version for commit in store.read("orders/1", after, until=until, at=at)]

        assert read(datetime(2019, 12, 31, tzinfo=UTC)) == []
        assert read(datetime(2020, 1, 1, tzinfo=UTC)) == [1]
        assert read(datetime(2020, 1, 7, tzinfo=UTC)) == [1, 5]
        assert read(datetime(2020, 1, 7, tzinfo=UTC), 2) == [5]
        assert read(datetime(2020, 1, 8, tzinfo=UTC), until=4) == [1, 3]
        assert read(undated.recorded_at - MICROSECOND) == [1, 3, 5, 7]
        assert read(undated.recorded_at) == [1, 3, 5, 7, 9]

    def test_reading_back_yields_the_newest_first(self, store):
        for version in range(1, 4):
            store.append("orders/1", version - 1, [event(version)], commit_id=str(version))

        assert [commit.first_version for commit in store.read_back("orders/1")] == [3, 2, 1]
        assert [commit.first_version for commit in store.read_back("orders/1", before=3)] == [2, 1]

    def test_an_answer_can_be_built_on_without_reading(self, store, asked: Fuse):
        first = store.append("orders/1", 0, [event(1)], commit_id="a")
        asked.calls.clear()
        second = store.append("orders/1", first.boundary, [event(2)], commit_id="b")

        assert second.version == 2
        assert asked.calls in ([], ["call PutItem"])

    def test_tenants_do_not_see_each_other(self, stores, store, tenant):
        store.append("orders/1", 0, [event(1)], commit_id="a")
        other = stores.of(f"{tenant}-other"[:40], "bob")

        assert list(other.read("orders/1")) == []
        assert other.append("orders/1", 0, [event(9)], commit_id="a").version == 1

    def test_streams_whose_names_begin_alike_are_apart(self, store):
        store.append("orders/1", 0, [event(1)], commit_id="a")
        store.append("orders/10", 0, [event(10)], commit_id="b")

        assert events_of(list(store.read("orders/1"))) == [event(1)]

    def test_each_commit_names_the_hash_of_the_one_before(self, store):
        for version in range(1, 4):
            store.append("orders/1", version - 1, [event(version)], commit_id=str(version))
        commits = list(store.read("orders/1"))

        assert [commit.previous_hash for commit in commits] == [b"", commits[0].hash, commits[1].hash]
        assert len({commit.hash for commit in commits}) == 3

    def test_recorded_time_rises_even_when_the_clock_goes_back(self, stores, store, clock: ManualClock):
        first = store.append("orders/1", 0, [event(1)], commit_id="a")
        clock.jump(-timedelta(minutes=15))
        second = store.append("orders/1", 1, [event(2)], commit_id="b")

        assert second.recorded_at == first.recorded_at + MICROSECOND
        assert store.last("orders/1").recorded_at == second.recorded_at

    @pytest.mark.parametrize("expected", [0, 1, 3, 4, 6, 1000])
    def test_only_the_end_of_the_newest_commit_may_be_expected(self, store, expected):
        store.append("orders/1", 0, [event(1), event(2)], commit_id="a")
        store.append("orders/1", 2, [event(3), event(4), event(5)], commit_id="b")

        with pytest.raises(StaleStream) as refused:
            store.append("orders/1", expected, [event(9)], commit_id="c")

        assert refused.value.last_version == 5
        assert len(events_of(list(store.read("orders/1")))) == 5

    def test_the_loser_is_handed_the_winners_events(self, store):
        store.append("orders/1", 0, [event(1)], commit_id="a")
        store.append("orders/1", 1, [event(2), event(3)], commit_id="winner")

        with pytest.raises(StaleStream) as refused:
            store.append("orders/1", 1, [event(9)], commit_id="loser")

        assert refused.value.winner is not None
        assert refused.value.winner.commit_id == "winner"
        assert refused.value.winner.events == (event(2), event(3))

    def test_a_held_boundary_loses_to_a_commit_made_meanwhile(self, store):
        held = store.append("orders/1", 0, [event(1)], commit_id="a").boundary
        store.append("orders/1", 1, [event(2)], commit_id="b")

        with pytest.raises(StaleStream) as refused:
            store.append("orders/1", held, [event(9)], commit_id="c")

        assert refused.value.winner is not None
        assert refused.value.winner.commit_id == "b"

    def test_any_appends_at_the_end(self, store):
        store.append("orders/1", ANY, [event(1)], commit_id="a")
        answer = store.append("orders/1", ANY, [event(2)], commit_id="b")

        assert (answer.first_version, answer.is_replay) == (2, False)
