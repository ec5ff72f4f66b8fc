"""Folds: merge patches and JSON patches by their RFCs' own examples, and what counts towards a state."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from holdfast.errors import Invalid
from holdfast.folds import (
    MERGE_PATCH,
    STATE_BYTES_MAX,
    Folded,
    FoldEvent,
    NotApplicable,
    Reducer,
    Reducers,
    Within,
    fold,
    merge,
)
from holdfast.streams import Commit, Instant

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

RFC_7396_APPENDIX_A = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]

RFC_6902_APPENDIX_A = [
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    (
        {"baz": "qux", "foo": "bar"},
        [{"op": "replace", "path": "/baz", "value": "boo"}],
        {"baz": "boo", "foo": "bar"},
    ),
    (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    ({"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}], NotApplicable),
    (
        {"foo": "bar"},
        [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
        {"foo": "bar", "child": {"grandchild": {}}},
    ),
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}], {"foo": "bar", "baz": "qux"}),
    ({"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}], NotApplicable),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": "10"}], NotApplicable),
    ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}], {"foo": ["bar", ["abc", "def"]]}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396_APPENDIX_A)
def test_merge_patches_give_what_rfc_7396_says(target, patch, result):
    assert merge(target, patch) == result


@pytest.mark.parametrize(("document", "operations", "result"), RFC_6902_APPENDIX_A)
def test_json_patches_give_what_rfc_6902_says(document, operations, result):
    event = FoldEvent("t", datacontenttype="application/json-patch+json", data=operations)
    before = msgspec.json.encode(document)
    if result is NotApplicable:
        with pytest.raises(NotApplicable):
            MERGE_PATCH.apply(document, event)
        assert msgspec.json.encode(document) == before
    else:
        assert MERGE_PATCH.apply(document, event) == result


@pytest.mark.parametrize(
    "operations", [None, 7, "x", {}, [7], [{}], [{"op": "no"}], [{"op": "add"}], [{"op": "add", "path": 7}]]
)
def test_operations_that_are_none_are_not_applicable(operations):
    event = FoldEvent("t", datacontenttype="application/json-patch+json; charset=utf-8", data=operations)
    with pytest.raises(NotApplicable):
        MERGE_PATCH.apply({"a": 1}, event)


@pytest.mark.parametrize(
    "event",
    [
        FoldEvent("t"),
        FoldEvent("t", datacontenttype="text/plain", data="hello"),
        FoldEvent("t", datacontenttype="application/xml", data="<a/>"),
    ],
)
def test_no_data_and_data_that_is_not_json_change_nothing(event):
    assert MERGE_PATCH.apply({"a": 1}, event) == {"a": 1}


def commit(first_version: int, *events: dict[str, Any], recorded_at: datetime = NOON) -> Commit[bytes]:
    stored = tuple(msgspec.json.encode({"type": "t", **event}) for event in events)
    return Commit("t", "s", first_version, stored, "c", b"", "ann", recorded_at, b"", b"", Instant(NOON, 0))


def at(hours: float, **data: Any) -> dict[str, Any]:
    return {"time": (NOON + hours * HOUR).isoformat(), "data": data}


HISTORY = [
    commit(1, at(0, a=1), at(1, a=2), recorded_at=NOON + HOUR),
    commit(3, at(0.5, late=True), recorded_at=NOON + 3 * HOUR),
    commit(4, at(4, a=None), at(4, b=3), recorded_at=NOON + 4 * HOUR),
]


def folded(**within: Any) -> Folded:
    return fold(HISTORY, MERGE_PATCH, Within(**within))


def test_all_events_count_unless_bounded():
    assert folded() == Folded({"late": True, "b": 3}, 5, 5, ())


@pytest.mark.parametrize(
    ("version", "state"),
    [
        (0, {}),
        (1, {"a": 1}),
        (2, {"a": 2}),
        (3, {"a": 2, "late": True}),
        (4, {"late": True}),
        (5, {"late": True, "b": 3}),
    ],
)
def test_a_state_at_a_version_ends_with_that_event(version, state):
    assert folded(version=version).state == state
    assert folded(version=version).version == version


def test_an_event_that_arrived_late_counts_for_its_own_time():
    assert folded(at=NOON + 0.7 * HOUR) == Folded({"a": 1, "late": True}, 3, 2, ())


def test_events_of_the_same_time_all_count():
    assert folded(at=NOON + 4 * HOUR).events_applied == 5


def test_before_the_first_event_the_state_is_empty_and_the_version_zero():
    assert folded(at=NOON - HOUR) == Folded({}, 0, 0, ())


def test_what_was_known_at_a_time_leaves_out_what_was_recorded_later():
    assert folded(known_at=NOON + 2 * HOUR).state == {"a": 2}
    assert folded(known_at=NOON + 2 * HOUR, at=NOON).state == {"a": 1}


def test_an_event_without_a_time_happened_when_it_was_recorded():
    history = [commit(1, {"data": {"a": 1}}, recorded_at=NOON)]

    assert fold(history, MERGE_PATCH, Within(at=NOON)).state == {"a": 1}
    assert fold(history, MERGE_PATCH, Within(at=NOON - HOUR)).state == {}


def test_a_patch_that_cannot_apply_changes_nothing_and_is_listed():
    bad = {
        "datacontenttype": "application/json-patch+json",
        "data": [{"op": "add", "path": "/x", "value": 1}, {"op": "remove", "path": "/none"}],
    }
    result = fold([commit(1, at(0, a=1), bad, at(0, b=2))], MERGE_PATCH, Within())

    assert result == Folded({"a": 1, "b": 2}, 3, 2, (2,))


def test_a_registered_reducer_folds_its_category():
    reducers = Reducers()

    @reducers.register("orders", version=2, initial=int)
    def count(state: Any, event: FoldEvent) -> Any:
        return state + event.data["a"]

    assert reducers.of("orders/42").label == "orders@2"
    assert reducers.of("orders").label == "orders@2"
    assert reducers.of("other/42").label == "merge-patch@1"
    assert fold([commit(1, at(0, a=1), at(1, a=2))], reducers.of("orders/42"), Within()).state == 3


def test_a_category_has_one_reducer():
    reducers = Reducers()
    reducers.register("orders", version=1)(lambda state, event: state)

    with pytest.raises(ValueError, match="orders"):
        reducers.register("orders", version=2)(lambda state, event: state)


def test_a_reducer_may_refuse_an_event():
    def refuse(state: Any, event: FoldEvent) -> Any:
        raise NotApplicable("no")

    assert fold(HISTORY, Reducer("r", 1, refuse), Within()).unapplied == (1, 2, 3, 4, 5)


# ----- events that would take a state away


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"datacontenttype": "application/json-patch+json", "data": list(operations)}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def test_a_patch_that_copies_its_copies_is_listed_and_the_state_goes_on():
    bomb = patch({"op": "add", "path": "/a", "value": [1]}, *[{"op": "copy", "from": "/a", "path": "/a/-"}] * 40)
    result = fold([commit(1, at(0, b=1), bomb, at(0, b=2))], MERGE_PATCH, Within())

    assert result == Folded({"b": 2}, 3, 2, (2,))


def test_patches_below_patches_end_at_the_depth_that_can_be_answered():
    deeper = [patch({"op": "add", "path": "/a" * (90 * number + 1), "value": nested(90)}) for number in range(14)]
    result = fold([commit(1, *deeper)], MERGE_PATCH, Within())

    assert result.events_applied == 1
    assert msgspec.json.encode(result.state) == msgspec.json.encode(nested(91))


def test_a_merge_that_is_nested_too_deep_is_listed():
    result = fold([commit(1, {"data": nested(100)}, {"data": nested(101)}, at(0, b=2))], MERGE_PATCH, Within())

    assert (result.events_applied, result.unapplied) == (2, (2,))
    assert result.state == {**nested(100), "b": 2}


def test_a_state_that_outgrows_every_answer_is_given_up_on_the_way():
    folded_so_far = 0

    def grow(state: Any, event: FoldEvent) -> Any:
        nonlocal folded_so_far
        folded_so_far += 1
        return MERGE_PATCH.apply(state, event)

    history = (commit(n, at(0, **{str(n): "x" * 250_000})) for n in range(1, 1_000))
    with pytest.raises(Invalid) as refused:
        fold(history, Reducer("grow", 1, grow), Within())

    assert (refused.value.code, refused.value.http_status) == ("state_too_large", 422)
    assert folded_so_far < 2.2 * STATE_BYTES_MAX / 250_000


def test_copies_make_a_state_outgrow_every_answer_too():
    copies = [patch({"op": "copy", "from": "/seed", "path": f"/{n}"}) for n in range(100)]

    with pytest.raises(Invalid) as refused:
        fold([commit(1, at(0, seed="x" * 200_000), *copies)], MERGE_PATCH, Within())
    assert refused.value.code == "state_too_large"


def test_a_state_that_is_replaced_again_and_again_never_grows():
    history = [commit(n, at(0, same="x" * 200_000)) for n in range(1, 200)]

    assert fold(history, MERGE_PATCH, Within()).events_applied == 199


def test_many_small_patches_of_a_large_state_cost_no_more_than_their_own_size():
    large = [at(0, **{f"k{part}": dict.fromkeys(map(str, range(6_000)), 0)}) for part in range(14)]
    small = [patch({"op": "add", "path": "/x", "value": number}) for number in range(1_000)]
    history = [commit(1, *large, *small)]
    started = time.process_time()

    assert fold(history, MERGE_PATCH, Within()).events_applied == 1_014
    assert time.process_time() - started < 1
