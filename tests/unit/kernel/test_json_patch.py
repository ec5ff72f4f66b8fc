"""JSON Patch where RFC 6902's examples are silent, and the bounds that a hostile patch meets."""

import time
from typing import Any

import msgspec
import pytest

from holdfast.json_patch import ELEMENTS_SHIFTED_PER_BYTE, WORK_MAX, PatchRefused, apply, equal, is_deeper
from holdfast.strict_json import DEPTH_MAX


def add(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def copy(source: str, path: str) -> dict[str, Any]:
    return {"op": "copy", "from": source, "path": path}


def move(source: str, path: str) -> dict[str, Any]:
    return {"op": "move", "from": source, "path": path}


def remove(path: str) -> dict[str, Any]:
    return {"op": "remove", "path": path}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("document", "operation"),
    [
        ({"a": [1, 2]}, add("/a/01", 0)),
        ({"a": [1, 2]}, remove("/a/-")),
        ({"a": [1, 2]}, {"op": "replace", "path": "/a/-", "value": 0}),
        ({"a": [1, 2]}, {"op": "test", "path": "/a/-", "value": 0}),
        ({"a": [1, 2]}, {"op": "replace", "path": "/a/2", "value": 0}),
        ({"a": [1, 2]}, add("/a/3", 0)),
        ({"a": [1, 2]}, add("/a/-1", 0)),
        ({"a": [1, 2]}, add("/a/1\n", 0)),
        ({"a": [1, 2]}, add("/a/٢", 0)),
        ({"a": [1, 2]}, add("/a/" + "9" * 5_000, 0)),
        ({"a": [1, 2]}, add("/a/-/b", 0)),
        ({"a": "text"}, add("/a/0", 0)),
        ({"a": 1}, add("b", 0)),
        ({"a": 1}, add("/~2", 0)),
        ({"a": 1}, add("/~", 0)),
        ({"a": 1}, add(None, 0)),  # type: ignore[arg-type]
        ({"a": 1}, remove("")),
        ({"a": {"b": 1}}, move("/a", "/a/b")),
        ({"a": {"b": 1}}, move("", "/a")),
        ({"a": 1}, move("/b", "/b")),
        ({"a": 1}, {"op": "replace", "path": "/b", "value": 1}),
        ({"a": 1}, {"op": "copy", "path": "/b"}),
        ({"a": 1}, {"op": ["add"], "path": "/b", "value": 1}),
        ({"a": 1}, {"op": "test", "path": "/a", "value": True}),
    ],
)
def test_an_operation_that_does_not_fit_is_refused_and_so_is_all_before_it(document, operation):
    before = msgspec.json.encode(document)
    earlier = [add("/new", {}), add("/new/list", [1]), move("/new/list", "/moved"), copy("/moved", "/new/list")]

    with pytest.raises(PatchRefused):
        apply(document, [*earlier, {"op": "replace", "path": "/a", "value": document["a"]}, operation])
    assert msgspec.json.encode(document) == before


@pytest.mark.parametrize(
    ("document", "operations", "result"),
    [
        ({"a": 1}, [add("", [1])], [1]),
        ({"a": {"b": 1}}, [move("/a", "")], {"b": 1}),
        ({"a": {"b": 1}}, [copy("", "/a/c")], {"a": {"b": 1, "c": {"a": {"b": 1}}}}),
        (7, [{"op": "test", "path": "", "value": 7.0}, {"op": "replace", "path": "", "value": None}], None),
        ({"": {"": 1}}, [move("//", "/x")], {"": {}, "x": 1}),
        ({"a": 1}, [move("/a", "/a")], {"a": 1}),
        ({"-": 1, "01": 2}, [remove("/-"), remove("/01")], {}),
        ({"a~/b": 1}, [remove("/a~0~1b")], {}),
        ([1, 2], [add("/2", 3), add("/-", 4), move("/0", "/3")], [2, 3, 4, 1]),
        ({"a": [{}]}, [copy("/a/0", "/a/-"), add("/a/0/x", 1)], {"a": [{"x": 1}, {}]}),
        ({}, [add("/a", {}), copy("/a", "/b"), add("/a/x", 1)], {"a": {"x": 1}, "b": {}}),
    ],
)
def test_the_root_odd_names_and_ends_of_arrays_are_places_like_any_other(document, operations, result):
    assert apply(document, operations) == result


@pytest.mark.parametrize(
    ("one", "other", "is_equal"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (0, False, False),
        (None, False, False),
        ([1, {"a": True}], [1.0, {"a": True}], True),
        ([1, {"a": True}], [1, {"a": 1}], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"b": 1}, False),
        ([], {}, False),
        ("1", 1, False),
    ],
)
def test_values_are_compared_as_json(one, other, is_equal):
    assert equal(one, other) is is_equal


def test_a_document_is_nested_to_the_bound_and_not_beyond():
    deepest = {"a": nested(DEPTH_MAX - 2)}

    assert is_deeper(apply({}, [add("/a", deepest)]), DEPTH_MAX - 1)
    for operations in (
        [add("/a", {"a": deepest})],
        [add("/a", deepest), copy("/a", "/b"), copy("/a", "/b" + "/a" * (DEPTH_MAX - 1))],
        [add("/x", {}), add("/a", deepest), move("/a", "/x/a")],
        [{"op": "replace", "path": "", "value": {"a": {"a": deepest}}}],
    ):
        with pytest.raises(PatchRefused, match="nested over 100 deep"):
            apply({}, operations)


def test_copies_of_copies_end_where_a_patch_that_spells_them_out_would():
    document: dict[str, Any] = {}

    with pytest.raises(PatchRefused, match="262,144 bytes"):
        apply(document, [add("/a", [1]), *[copy("/a", "/a/-")] * 40])
    assert document == {}


@pytest.mark.parametrize(
    "value", ["x" * 1_000, "\0" * 200, [[]] * 340, [1.234567890123456] * 55, {"k" * 500: "v" * 490}]
)
def test_what_is_copied_weighs_what_it_takes_as_json(value):
    fitting = WORK_MAX // len(msgspec.json.encode(value)) - 1

    assert len(apply({}, [add("/a", value), add("/b", []), *[copy("/a", "/b/-")] * (fitting - 1)])["b"]) == fitting - 1
    with pytest.raises(PatchRefused, match="bytes"):
        apply({}, [add("/a", value), add("/b", []), *[copy("/a", "/b/-")] * (fitting + 1)])


def test_a_large_value_may_move_anywhere_but_deeper():
    def document() -> dict[str, Any]:
        return {"a": {"large": ["x" * 1_000] * 300}, "b": {}}

    assert list(apply(document(), [move("/a/large", "/b/large"), move("/b/large", "/top")])) == ["a", "b", "top"]
    with pytest.raises(PatchRefused, match="moves deeper"):
        apply(document(), [move("/a", "/b/a")])


def test_shifting_a_long_array_is_paid_for():
    elements = 100_000
    too_many = WORK_MAX * ELEMENTS_SHIFTED_PER_BYTE // elements + 2

    for operation in (add("/0", 1), remove("/0")):
        with pytest.raises(PatchRefused, match="shifts"):
            apply([0] * elements, [operation] * too_many)
    assert len(apply([0] * elements, [add("/-", 1)] * too_many)) == elements + too_many


def test_a_refused_copy_of_a_large_document_costs_little():
    document = {str(name): dict.fromkeys(map(str, range(1_000)), 0) for name in range(500)}
    started = time.process_time()
    for _ in range(50):
        with pytest.raises(PatchRefused):
            apply(document, [copy("", "/again")])

    assert time.process_time() - started < 5
