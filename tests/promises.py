"""The promises of an event store: one set of tests, run against memory, moto and the running engine."""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from holdfast.clock import MICROSECOND, ManualClock
from holdfast.errors import Invalid, ServiceError, Unavailable
from holdfast.streams import (
    ANY,
    EVENTS_MAX,
    Append,
    AtLeast,
    Check,
    Commit,
    CompanionRefused,
    EventStore,
    EventStores,
    Is,
    Missing,
    Put,
    StaleStream,
    Update,
    transact,
)
from holdfast.testing import Fuse

THREADS = 8


def event(number: int, **more: Any) -> bytes:
    return msgspec.json.encode({"type": "test.happened", "id": str(number), **more}, order="sorted")


def events_of(commits: Sequence[Commit[bytes]]) -> list[bytes]:
    return [stored for commit in commits for stored in commit.events]


class EventStorePromises:
    """
    Subclasses provide `stores`, `tenant` (fresh for each test), `row` (to look at a companion's row) and `asked`: a
    fuse that sees each call that the stores make on a database, or none where there is no database.
    """

    @pytest.fixture
    def store(self, stores: EventStores[bytes], tenant: str) -> EventStore[bytes]:
        return stores.of(tenant, "ann")

    # ----- appending and reading

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

    # ----- the chain

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

    # ----- expectations

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

    # ----- asking again

    @pytest.mark.parametrize("expected", [1, ANY])
    def test_asking_again_gives_the_first_answer_however_far_the_stream_has_gone(self, store, expected):
        store.append("orders/1", 0, [event(1)], commit_id="a")
        first = store.append("orders/1", expected, [event(2), event(3)], commit_id="mine")
        for version in range(4, 8):
            store.append("orders/1", version - 1, [event(version)], commit_id=str(version))

        again = store.append("orders/1", expected, [event(2), event(3)], commit_id="mine")

        assert again.is_replay
        assert (again.first_version, again.version, again.recorded_at) == (2, 3, first.recorded_at)
        assert len(events_of(list(store.read("orders/1")))) == 7

    @pytest.mark.parametrize("expected", [0, ANY])
    def test_asking_again_at_once_gives_the_first_answer(self, store, expected):
        first = store.append("orders/1", expected, [event(1)], commit_id="mine")
        again = store.append("orders/1", expected, [event(1)], commit_id="mine")

        assert (again.version, again.recorded_at, again.is_replay) == (1, first.recorded_at, True)

    @pytest.mark.parametrize("expected", [0, ANY])
    def test_another_request_under_the_same_id_is_refused(self, store, expected):
        store.append("orders/1", expected, [event(1)], commit_id="mine")

        with pytest.raises(Invalid) as refused:
            store.append("orders/1", expected, [event(2)], commit_id="mine")

        assert refused.value.code == "idempotency_mismatch"
        assert events_of(list(store.read("orders/1"))) == [event(1)]

    def test_a_fingerprint_given_decides_what_the_same_request_is(self, store):
        store.append("orders/1", 0, [event(1)], commit_id="mine", fingerprint=b"asked")

        assert store.append("orders/1", 0, [event(2)], commit_id="mine", fingerprint=b"asked").is_replay

    def test_one_id_stands_once_at_the_end_whatever_is_expected(self, store):
        for expected in (0, 1, ANY):
            answer = store.append("orders/1", expected, [event(1)], commit_id="mine")
            assert (answer.first_version, answer.version) == (1, 1)

    def test_the_id_of_a_part_is_not_the_id_of_the_whole(self, store):
        store.append("a", 0, [event(1)], commit_id="mine")

        for expected in (0, ANY):
            with pytest.raises(Invalid) as refused:
                store.append_many([Append("a", 0, [event(1)]), Append("b", expected, [event(2)])], commit_id="mine")
            assert refused.value.code == "idempotency_mismatch"
        assert store.last("b") is None

    def test_one_id_names_one_any_append_of_one_stream(self, store):
        store.append("a", ANY, [event(1)], commit_id="mine")

        with pytest.raises(Invalid) as refused:
            store.append("b", ANY, [event(1)], commit_id="mine")

        assert refused.value.code == "idempotency_mismatch"
        assert store.last("b") is None

    def test_an_append_of_any_version_is_recalled_by_its_id_alone(self, stores, store, tenant):
        assert store.recall("mine") == ()
        first = store.append_many(
            [Append("a", ANY, [event(1)]), Append("b", 0, [event(2), event(3)])], commit_id="mine"
        )
        store.append("a", 1, [event(4)], commit_id="other")

        recalled = store.recall("mine")

        assert [(each.stream, each.first_version, each.version) for each in recalled] == [("a", 1, 1), ("b", 1, 2)]
        assert [each.recorded_at for each in recalled] == [each.recorded_at for each in first]
        assert {(each.commit_id, each.is_replay, each.boundary) for each in recalled} == {("mine", True, None)}
        assert store.recall("other") == ()
        assert stores.of(f"{tenant}-other"[:40], "ann").recall("mine") == ()

    def test_with_other_companions_it_is_another_request(self, store, row, tenant):
        key = {"pk": f"late#{tenant}", "sk": 0}
        store.append("a", 0, [event(1)], commit_id="mine")

        with pytest.raises(Invalid) as refused:
            store.append("a", 0, [event(1)], commit_id="mine", companions=[Put("balances", key, {"n": 1})])

        assert refused.value.code == "idempotency_mismatch"
        assert row("balances", key) is None

    def test_a_fingerprint_given_speaks_for_companions_too(self, store, row, tenant):
        keys = [{"pk": f"{number}#{tenant}", "sk": 0} for number in range(2)]
        answers = [
            store.append(
                "a",
                ANY,
                [event(number)],
                commit_id="mine",
                fingerprint=b"asked",
                companions=[Put("balances", key, {"n": number})],
            )
            for number, key in enumerate(keys)
        ]

        assert [(each.version, each.is_replay) for each in answers] == [(1, False), (1, True)]
        assert row("balances", keys[0]) is not None
        assert row("balances", keys[1]) is None

    def test_the_order_in_which_a_companion_names_its_attributes_makes_no_other_request(self, store, row, tenant):
        key = {"pk": f"order#{tenant}", "sk": 0}
        rows = {"a": 1, "b": {"c": b"2", "d": [3, "é"]}}, {"b": {"d": [3, "é"], "c": b"2"}, "a": 1}
        for number in range(2):
            answer = store.append(
                "a", ANY, [event(1)], commit_id="mine", companions=[Put("balances", key, rows[number])]
            )

        assert (answer.version, answer.is_replay) == (1, True)
        assert row("balances", key) == {**key, **rows[0]}

    def test_of_two_copies_of_a_call_one_decides_and_both_have_its_state(self, store):
        def decide(events: list[bytes]) -> list[bytes]:
            # The other copy is faster, and has another clock.
            transact(store, "account/1", list, lambda _: [event(1, now="earlier")], commit_id="mine")
            return [event(1, now="later")]

        assert transact(store, "account/1", list, decide, commit_id="mine") == [event(1, now="earlier")]
        assert events_of(list(store.read("account/1"))) == [event(1, now="earlier")]

    def test_a_decision_with_an_id_of_its_own_is_made_once(self, store):
        def deposit(total: int) -> list[bytes]:
            return [event(10)]

        transact(store, "account/1", lambda events: len(list(events)), deposit, commit_id="mine")
        store.append("account/1", 1, [event(11)], commit_id="later")
        total = transact(store, "account/1", lambda events: len(list(events)), deposit, commit_id="mine")

        assert total == 2
        assert store.last("account/1").version == 2

    def test_deciding_again_sees_what_the_winner_wrote(self, store):
        seen = []

        def decide(events: list[bytes]) -> list[bytes]:
            seen.append(len(events))
            if len(seen) < 3:  # somebody gets ahead, twice
                store.append("account/1", len(events), [event(len(seen))], commit_id=f"winner {len(seen)}")
            return [event(9)]

        assert transact(store, "account/1", list, decide) == [event(1), event(2), event(9)]
        assert seen == [0, 1, 2]

    # ----- bounds

    @pytest.mark.parametrize("expected", [None, True, 1.0, -1, "1", "Any", "ANY"])
    def test_what_is_no_expectation_is_refused(self, store, expected):
        for _ in range(2):
            with pytest.raises(Invalid) as refused:
                store.append("orders/1", expected, [event(1)], commit_id="mine")
            assert refused.value.code == "invalid_expected_version"
        assert store.last("orders/1") is None

    def test_a_boundary_is_good_for_its_own_stream_and_tenant_only(self, stores, store, tenant):
        boundary = store.append("a", 0, [event(1)], commit_id="x").boundary

        for stranger, stream in ((store, "b"), (stores.of(f"{tenant}-other"[:40], "ann"), "a")):
            with pytest.raises(Invalid) as refused:
                stranger.append(stream, boundary, [event(2)], commit_id="y")
            assert refused.value.code == "foreign_boundary"
            assert stranger.last(stream) is None or stranger.last(stream).version == 1

    def test_the_last_version_is_told_however_far_the_stream_has_gone(self, store):
        held = store.append("a", 0, [event(1)], commit_id="x").boundary
        for version in (1, 2, 3):
            store.append("a", version, [event(version)], commit_id=str(version))

        with pytest.raises(StaleStream) as refused:
            store.append("a", held, [event(9)], commit_id="y")

        assert refused.value.last_version == 4
        assert refused.value.winner is not None
        assert refused.value.winner.version == 2

    def test_nothing_lies_between_a_version_and_an_earlier_one(self, store):
        store.append("a", 0, [event(n) for n in range(6)], commit_id="x")

        assert list(store.read("a", 4, until=0)) == []

    @pytest.mark.parametrize(
        "make",
        [
            lambda at: [Update("balances", at, (), add={"n": 1})],
            lambda at: [Update("balances", at, (Missing("x"),))],
            lambda at: [Check("balances", at, ())],
            lambda at: [Check("balances", at, (Is("n", 1.5),))],
            lambda at: [Check("balances", at, (AtLeast("n", 1.5),))],  # type: ignore[arg-type]
            lambda at: [Update("balances", at, (AtLeast("n", "1"),), add={"n": 1})],  # type: ignore[arg-type]
            lambda at: [Put("balances", at, {"n": 0.5})],
            lambda at: [Put("balances", at, {"sk": 1})],
            lambda at: [Update("balances", at, (Missing("x"),), set={"n": 1}, add={"n": 1})],
            lambda at: [Update("balances", at, (Missing("x"),), set={"pk": "other"})],
            lambda at: [Check("balances", at, (Missing("x"),)), Update("balances", at, (Missing("x"),), add={"n": 1})],
        ],
    )
    def test_companions_that_no_table_would_take_are_refused(self, store, row, tenant, make):
        at = {"pk": f"bad#{tenant}", "sk": 0}

        with pytest.raises(Invalid) as refused:
            store.append("a", 0, [event(1)], commit_id="x", companions=make(at))

        assert refused.value.code == "invalid_companion"
        assert store.last("a") is None
        assert row("balances", at) is None

    def test_text_is_never_at_least_a_number_and_true_is_not_one(self, store, tenant):
        at = {"pk": f"kinds#{tenant}", "sk": 0}
        store.append("a", 0, [event(1)], commit_id="x", companions=[Put("balances", at, {"n": "9", "b": True})])

        for condition in (AtLeast("n", 1), Is("b", 1), Is("n", 9), Is("none", None)):
            with pytest.raises(CompanionRefused):
                store.append("b", 0, [event(1)], commit_id="y", companions=[Check("balances", at, (condition,))])

    def test_more_than_a_transaction_holds_is_refused(self, store):
        noise = [os.urandom(80_000).hex() for _ in range(4)]
        wishes = [Append(f"s{n}", 0, [event(i, x=text) for i, text in enumerate(noise)]) for n in range(14)]

        with pytest.raises(Invalid) as refused:
            store.append_many(wishes, commit_id="x")

        assert refused.value.code == "transaction_too_large"

    def test_no_events_and_too_many_are_refused(self, store):
        for events in ([], [event(n) for n in range(EVENTS_MAX + 1)]):
            with pytest.raises(Invalid):
                store.append("orders/1", 0, events, commit_id="a")
        assert store.append("orders/1", 0, [event(n) for n in range(EVENTS_MAX)], commit_id="a").version == EVENTS_MAX

    @pytest.mark.parametrize(
        "name", ["", "a" * 201, "..", "a/../b", "a//b", "/a", "a/", "a#b", "a b", "a~b", "é", "a\0"]
    )
    def test_names_that_are_no_streams_are_refused(self, store, name):
        for call in (
            lambda: store.append(name, 0, [event(1)], commit_id="a"),
            lambda: list(store.read(name)),
            lambda: list(store.read_back(name)),
            lambda: store.last(name),
        ):
            with pytest.raises(Invalid) as refused:
                call()
            assert refused.value.code == "invalid_stream"

    # ----- several streams, and companions

    def test_several_streams_are_appended_to_together(self, store):
        store.append("a", 0, [event(1)], commit_id="before")

        answers = store.append_many([Append("a", 1, [event(2)]), Append("b", 0, [event(3), event(4)])], commit_id="c")

        assert [(answer.stream, answer.first_version, answer.version) for answer in answers] == [
            ("a", 2, 2),
            ("b", 1, 2),
        ]

    def test_if_one_stream_is_stale_none_is_appended_to(self, store):
        store.append("b", 0, [event(1)], commit_id="before")

        with pytest.raises(StaleStream):
            store.append_many([Append("a", 0, [event(2)]), Append("b", 0, [event(3)])], commit_id="c")

        assert store.last("a") is None

    @pytest.mark.parametrize("expected", [(0, 0), (ANY, ANY), (0, ANY), (ANY, 0)])
    def test_asking_for_several_again_gives_the_first_answers(self, store, expected):
        wishes = [Append("a", expected[0], [event(1)]), Append("b", expected[1], [event(2), event(3)])]
        first = store.append_many(wishes, commit_id="mine")
        store.append("a", 1, [event(9)], commit_id="later")

        again = store.append_many(wishes, commit_id="mine")

        assert [(a.stream, a.first_version, a.version, a.recorded_at) for a in again] == [
            (a.stream, a.first_version, a.version, a.recorded_at) for a in first
        ]
        assert all(answer.is_replay for answer in again)
        assert store.last("b").version == 2

    def test_one_stream_may_not_be_named_twice(self, store):
        with pytest.raises(Invalid):
            store.append_many([Append("a", 0, [event(1)]), Append("a", 1, [event(2)])], commit_id="c")

    def test_companions_are_written_with_the_commit(self, store, row: Callable[[str, Any], Any], tenant):
        key = {"pk": f"balance#{tenant}", "sk": 0}

        store.append("a", 0, [event(1)], commit_id="c1", companions=[Put("balances", key, {"amount": 10, "v": 1})])
        store.append(
            "a",
            1,
            [event(2)],
            commit_id="c2",
            companions=[Update("balances", key, (Is("v", 1), AtLeast("amount", 4)), set={"v": 2}, add={"amount": -4})],
        )

        assert row("balances", key) == {**key, "amount": 6, "v": 2}

    def test_a_refused_companion_says_which_and_nothing_is_written(self, store, row, tenant):
        key, other = ({"pk": f"{name}#{tenant}", "sk": 0} for name in ("balance", "other"))
        store.append("a", 0, [event(1)], commit_id="c1", companions=[Put("balances", key, {"amount": 3})])

        with pytest.raises(CompanionRefused) as refused:
            store.append(
                "a",
                1,
                [event(2)],
                commit_id="c2",
                companions=[
                    Put("balances", other, {"amount": 1}),
                    Update("balances", key, (AtLeast("amount", 4),), add={"amount": -4}),
                ],
            )

        assert refused.value.index == 1
        assert refused.value.row is not None
        assert refused.value.row["amount"] == 3
        assert store.last("a").version == 1
        assert row("balances", other) is None

    def test_a_check_insists_without_changing(self, store, row, tenant):
        key = {"pk": f"flag#{tenant}", "sk": 0}
        with pytest.raises(CompanionRefused):
            store.append(
                "a", 0, [event(1)], commit_id="c", companions=[Check("balances", key, (Is("open", value=True),))]
            )

        store.append("a", 0, [event(1)], commit_id="c", companions=[Check("balances", key, (Missing("closed"),))])

        assert row("balances", key) is None

    def test_companions_are_applied_once_when_asked_again(self, store, row, tenant):
        key = {"pk": f"balance#{tenant}", "sk": 0}
        for _ in range(3):
            store.append(
                "a",
                ANY,
                [event(1)],
                commit_id="c",
                companions=[Update("balances", key, (Missing("gone"),), add={"n": 1})],
            )

        assert row("balances", key)["n"] == 1

    # ----- at the same time

    def test_of_many_writers_at_one_boundary_one_wins(self, store):
        outcomes = self._race(lambda n: store.append("hot", 0, [event(n)], commit_id=f"w{n}"))

        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Appended"] + ["StaleStream"] * (THREADS - 1)
        winner = store.last("hot")
        losers = [outcome for outcome in outcomes if isinstance(outcome, StaleStream)]
        assert {loser.winner.commit_id for loser in losers if loser.winner} == {winner.commit_id}

    def test_any_appends_of_many_writers_all_stand_once(self, store):
        def append(n: int) -> Any:
            for _ in range(20):
                with contextlib.suppress(Unavailable):
                    return store.append("hot", ANY, [event(n)], commit_id=f"w{n}")
            raise AssertionError("no end of contention")

        outcomes = self._race(append)

        assert sorted(outcome.version for outcome in outcomes) == list(range(1, THREADS + 1))
        assert sorted(events_of(list(store.read("hot")))) == sorted(event(n) for n in range(THREADS))

    def test_of_many_copies_of_a_call_one_decides_and_all_have_its_state(self, store):
        states = self._race(lambda n: transact(store, "hot", list, lambda _: [event(n)], commit_id="mine"))

        assert states == [events_of(list(store.read("hot")))] * THREADS
        assert len(states[0]) == 1

    def _race(self, call: Callable[[int], Any]) -> list[Any]:
        outcomes: list[Any] = [None] * THREADS
        barrier = threading.Barrier(THREADS, timeout=30)

        def run(number: int) -> None:
            barrier.wait()
            try:
                outcomes[number] = call(number)
            except ServiceError as error:
                outcomes[number] = error

        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        return outcomes


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
