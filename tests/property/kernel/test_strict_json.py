import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import Invalid
from holdfast.strict_json import INTEGER_MAX, parse

NONCHARACTERS = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)) + "".join(
    map(chr, range(0xFDD0, 0xFDF0))
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=NONCHARACTERS))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(SCALARS, lambda children: st.lists(children) | st.dictionaries(TEXT, children), max_leaves=40)

FRAGMENTS = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        '"a"',
        "1",
        "-0",
        "1e5",
        "1E400",
        "9007199254740993",
        "true",
        "null",
        "NaN",
        "\\ud800",
        '"\\ud83d\\ude00"',
        '"\\uffff"',
        "é",
        "\ufeff",
        " ",
        "\n",
        "\x00",
    ]
)


@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_every_i_json_value_comes_back_as_it_was(value: Any, ascii_only: bool, indent: int | None):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)

    assert parse(text.encode()) == value


@given(st.lists(FRAGMENTS, max_size=12).map("".join).map(str.encode) | st.binary(max_size=60))
def test_what_is_taken_is_taken_as_the_standard_library_takes_it(raw: bytes):
    with contextlib.suppress(Invalid):
        assert parse(raw) == json.loads(raw.decode())


@given(st.lists(FRAGMENTS, max_size=12).map("".join).map(str.encode))
def test_what_the_standard_library_cannot_read_is_never_taken(raw: bytes):
    try:
        json.loads(raw.decode())
    except ValueError:
        with pytest.raises(Invalid):
            parse(raw)


@given(
    st.integers(min_value=INTEGER_MAX + 1)
    | st.integers(max_value=-INTEGER_MAX - 1)
    | st.just(math.inf)
    | st.just(math.nan)
)
def test_a_number_that_a_double_cannot_hold_is_refused_wherever_it_stands(number: float):
    for value in (number, [number], {"a": [{"b": number}]}):
        with pytest.raises(Invalid) as caught:
            parse(json.dumps(value).encode())
        assert caught.value.code == "not_i_json"
