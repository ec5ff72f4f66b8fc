"""Several streams at once, and rows that change with a commit."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.errors import Invalid
from holdfast.streams import ANY, Append, AtLeast, Check, CompanionRefused, Is, Missing, Put, StaleStream, Update
from tests.promises.events import event


class Together:
    """See `EventStorePromises`."""

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
