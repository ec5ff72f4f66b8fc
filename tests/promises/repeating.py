"""Asking again: the first answer, however late, and another request under the same id is refused."""

import pytest

from holdfast.errors import Invalid
from holdfast.streams import ANY, Append, Put, transact
from tests.promises.events import event, events_of


class Repeating:
    """See `EventStorePromises`."""

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
