"""
JSON Patch, compared with a library that knows nothing of ours (`jsonpatch`), on small documents and any patches.

Both are asked for everything that RFC 6902 speaks about, within the bounds. The pinned version deviates from it
nowhere, so nothing is left out.
"""

import copy
import json
from typing import Any

import jsonpatch
import jsonpointer
from hypothesis import event, given, settings
from hypothesis import strategies as st

from holdfast.folds import merge
from holdfast.json_patch import PatchRefused, apply, is_deeper
from holdfast.strict_json import DEPTH_MAX
from tests.soak import examples

NAMES = st.sampled_from(["", "a", "b", "0", "-", "/", "~1"])
SCALARS = st.sampled_from([None, True, False, 0, 1, 1.0, "", "a", "1"])
VALUES = st.recursive(
    SCALARS, lambda children: st.lists(children, max_size=3) | st.dictionaries(NAMES, children, max_size=3)
)
DOCUMENTS = st.fixed_dictionaries(
    {"a": st.fixed_dictionaries({"a": VALUES, "b": st.lists(VALUES, min_size=1, max_size=3)}), "b": st.lists(VALUES)}
)
PLACES = st.sampled_from(["/a", "/b", "/a/a", "/a/b", "/a/b/0", "/a/b/-", "/b/0", "/b/-", "/b/1", "/new", "/a/new", ""])
TOKENS = st.sampled_from(
    [
        "a",
        "b",
        "0",
        "1",
        "",
        "2",
        "-",
        "00",
        "01",
        "-1",
        "+1",
        "1e0",
        "~0",
        "~1",
        "~01",
        "~",
        "~2",
        "٣",
        "1\n",
        "9" * 40,
    ]
)
ODD_PLACES = st.lists(TOKENS, max_size=3).map(lambda tokens: "".join(f"/{token}" for token in tokens)) | st.just("a")
OPERATIONS = st.one_of(
    st.fixed_dictionaries({"op": st.just("add"), "path": PLACES, "value": VALUES}),
    st.fixed_dictionaries({"op": st.sampled_from(["move", "copy"]), "from": PLACES, "path": PLACES}),
    st.fixed_dictionaries({"op": st.sampled_from(["replace", "remove", "test"]), "path": PLACES, "value": VALUES}),
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": PLACES | ODD_PLACES},
        optional={"from": PLACES | ODD_PLACES, "value": VALUES},
    ),
)
REFUSED = object()


def ours(document: Any, operations: Any) -> Any:
    try:
        return apply(copy.deepcopy(document), copy.deepcopy(operations))
    except PatchRefused:
        return REFUSED


def theirs(document: Any, operations: Any) -> Any:
    try:
        return jsonpatch.JsonPatch(operations).apply(document)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, ValueError):
        return REFUSED


def exact(value: Any) -> str:
    """As text, in which true is not 1."""
    return "refused" if value is REFUSED else json.dumps(value, sort_keys=True)


@settings(max_examples=examples(200, soak=5_000), deadline=None)
@given(DOCUMENTS, st.lists(OPERATIONS, min_size=1, max_size=3))
def test_ours_and_the_library_give_the_same_document_or_both_refuse(document: Any, operations: list[Any]):
    patched = ours(document, operations)
    event("refused" if patched is REFUSED else "applied")

    assert exact(patched) == exact(theirs(document, operations))


@settings(max_examples=examples(80, soak=2_000), deadline=None)
@given(DOCUMENTS, st.lists(OPERATIONS, max_size=4))
def test_a_patch_that_is_refused_at_its_end_has_changed_nothing(document: Any, operations: list[Any]):
    before = exact(document)
    try:
        apply(document, [*operations, {"op": "remove", "path": ""}])
    except PatchRefused:
        assert exact(document) == before
    else:
        raise AssertionError("the whole document was removed")


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = {"a": value} if level % 2 else {"a": [value]} if level % 3 else {"a": value, "b": []}
    return value


@settings(max_examples=examples(30, soak=1_000), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "copy", "move"]), st.integers(0, 99), st.integers(0, 99)), max_size=8)
)
def test_no_history_of_patches_nests_a_document_too_deep(steps: list[tuple[str, int, int]]):
    document: Any = {}
    for number, (op, source, place) in enumerate(steps):
        to = "/a" * place + f"/x{number}"
        operation = {"op": op, "path": to, "from": "/a" * source, "value": nested(source)}
        after = ours(document, [{"op": "add", "path": "/a", "value": nested(40)}, operation])
        document = document if after is REFUSED else after

        assert not is_deeper(document, DEPTH_MAX)


@settings(max_examples=examples(50, soak=1_000), deadline=None)
@given(VALUES, VALUES)
def test_a_merge_nests_nothing_deeper_than_its_patch_or_what_was_there(target: Any, patch: Any):
    levels = next(
        levels for levels in range(DEPTH_MAX) if not is_deeper(target, levels) and not is_deeper(patch, levels)
    )

    assert not is_deeper(merge(target, patch), levels)
