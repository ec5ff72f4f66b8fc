"""What is refused, and how it is told."""

import os

import pytest

from holdfast.errors import Invalid
from holdfast.streams import EVENTS_MAX, Append, AtLeast, Check, CompanionRefused, Is, Missing, Put, StaleStream, Update
from tests.promises.events import event


class Bounds:
    """See `EventStorePromises`."""

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
