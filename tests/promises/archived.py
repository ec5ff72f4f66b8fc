"""What a stream promises whose commits have grown old."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from holdfast.errors import Invalid
from holdfast.streams import ANY, EventStore, EventStores, StaleStream, transact
from holdfast.testing import Fuse
from tests.promises.events import event, events_of


class ArchivedStreamPromises:
    """
    What a stream promises whose commits have grown old, wherever they are by then.

    Subclasses provide `stores`, `tenant`, `asked`, `clock` and `grow_old`: let 100 days pass, and archive what may be
    archived.
    """

    @pytest.fixture
    def store(self, stores: EventStores[bytes], tenant: str) -> EventStore[bytes]:
        return stores.of(tenant, "ann")

    @pytest.fixture
    def old(self, store, grow_old: Callable[[], None]) -> EventStore[bytes]:
        """Commits at 1-2, 3, 4-6 that have grown old; the newest among them."""
        self._fill(store, 0, [2, 1, 3])
        grow_old()
        return store

    def _fill(self, store: EventStore[bytes], version: int, sizes: Sequence[int]) -> None:
        for size in sizes:
            events = [event(version + number) for number in range(1, size + 1)]
            store.append("orders/1", version, events, commit_id=f"c{version + 1}")
            version += size

    def test_every_read_gives_the_same_bytes_before_and_after(self, store, grow_old):
        self._fill(store, 0, [2, 1, 3, 1])
        before = self._every_read(store)
        grow_old()
        assert self._every_read(store) == before

    def test_old_and_new_are_one_stream(self, old, grow_old):
        self._fill(old, 6, [2, 2])
        mixed = self._every_read(old)
        grow_old()
        self._fill(old, 10, [1])

        assert events_of(list(old.read("orders/1"))) == [event(number) for number in range(1, 12)]
        assert [commit.first_version for commit in old.read("orders/1")] == [1, 3, 4, 7, 9, 11]
        assert mixed == self._every_read(old, before=11)

    def _every_read(self, store: EventStore[bytes], before: int = 10_000) -> list[Any]:
        def told(commits: Any) -> list[Any]:
            return [
                (one.first_version, one.events, one.hash, one.previous_hash, one.fingerprint, one.recorded_at)
                for one in commits
                if one.first_version < before
            ]

        spans = [told(store.read("orders/1", after, until=until)) for after in range(13) for until in range(9)]
        whole = [told(store.read("orders/1", after)) for after in range(13)]
        return [spans, whole, *[told(store.read_back("orders/1", number)) for number in range(1, 11)]]

    @pytest.mark.parametrize(("expected", "events"), [(0, [1, 2]), (2, [3]), (3, [4, 5, 6]), (ANY, [7])])
    def test_asking_again_years_later_gives_the_first_answer(self, old, grow_old, expected, events):
        old.append("orders/1", ANY, [event(7)], commit_id="c-any")
        self._fill(old, 7, [1, 1])
        grow_old()
        commit_id = "c-any" if expected == ANY else f"c{expected + 1}"

        answer = old.append("orders/1", expected, [event(number) for number in events], commit_id=commit_id)

        assert answer.is_replay
        assert (answer.first_version, answer.version) == (events[0], events[-1])
        assert old.last("orders/1").version == 9

    @pytest.mark.parametrize("expected", [0, 2, 3])
    def test_another_request_under_an_old_id_is_refused(self, old, expected):
        with pytest.raises(Invalid) as refused:
            old.append("orders/1", expected, [event(99)], commit_id=f"c{expected + 1}")

        assert refused.value.code == "idempotency_mismatch"
        assert old.last("orders/1").version == 6

    @pytest.mark.parametrize(("expected", "winner"), [(0, "c1"), (1, None), (2, "c3"), (3, "c4"), (5, None), (7, None)])
    def test_the_winner_of_long_ago_is_handed_to_who_comes_too_late(self, old, expected, winner):
        with pytest.raises(StaleStream) as refused:
            old.append("orders/1", expected, [event(99)], commit_id="late")

        assert refused.value.last_version == 6
        assert (refused.value.winner and refused.value.winner.commit_id) == winner

    def test_the_newest_commit_is_built_on_however_old_it_is(self, old, grow_old):
        for version in (6, 7, 8):
            assert old.append("orders/1", version, [event(version + 1)], commit_id=f"n{version}").version == version + 1
            grow_old()

        assert events_of(list(old.read("orders/1"))) == [event(number) for number in range(1, 10)]

    def test_nothing_is_appended_behind_a_commit_that_was_not_the_end(self, old):
        """A reader may stop anywhere; what stands behind where it stopped can have left the table."""
        met = [*old.read("orders/1"), *old.read("orders/1", until=3), *old.read_back("orders/1")]
        met += [next(iter(old.read("orders/1", after))) for after in range(6)]
        for commit in met:
            if commit.version < 6:
                with pytest.raises(StaleStream):
                    old.append("orders/1", commit.boundary, [event(99)], commit_id="fork")

        assert events_of(list(old.read("orders/1"))) == [event(number) for number in range(1, 7)]

    def test_the_end_that_was_read_is_built_on_without_reading_again(self, old, asked: Fuse):
        newest = list(old.read("orders/1"))[-1]
        asked.calls.clear()

        assert old.append("orders/1", newest.boundary, [event(7)], commit_id="next").version == 7
        assert asked.calls in ([], ["call PutItem"])

    def test_a_decision_sees_all_that_was_ever_written(self, old):
        found = transact(old, "orders/1", list, lambda events: [event(len(events) + 1)])

        assert found == [event(number) for number in range(1, 8)]
