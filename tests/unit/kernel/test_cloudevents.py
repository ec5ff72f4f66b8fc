"""What an event must say before it is stored: the type system of CloudEvents 1.0, in text and numbers."""

from typing import Any

import pytest

from holdfast.cloudevents import check
from holdfast.errors import Invalid


def event(**more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "source": "urn:test", "type": "test.happened", **more}


@pytest.mark.parametrize(
    "name", ["id", "source", "type", "subject", "actor", "datacontenttype", "dataschema", "reason"]
)
@pytest.mark.parametrize(
    "character", ["\0", "\n", "\t", "\x1f", "\x7f", "\x85", "\x9f", "\ud800", "\ufdd0", "\U0010ffff"]
)
def test_text_holds_no_control_characters_surrogates_or_noncharacters(name, character):
    with pytest.raises(Invalid) as refused:
        check(event(**{name: f"a{character}b"}), "/events/3")

    assert (refused.value.code, refused.value.pointer) == ("invalid_event", f"/events/3/{name}")


@pytest.mark.parametrize("text", ["a b", "~", "\xa0", "é", "\ufdf0", "\ufffd", "😀"])
def test_all_other_text_is_taken(text):
    assert check(event(subject=text, reason=text), "")["reason"] == text


def test_data_is_free():
    data = {"a\nb": ["\0", 2**53 - 1]}

    assert check(event(data=data), "")["data"] == data


@pytest.mark.parametrize("number", [-(2**31) - 1, 2**31, 2**53 - 1])
def test_an_integer_of_an_attribute_has_32_bits(number):
    with pytest.raises(Invalid) as refused:
        check(event(count=number), "/events/0")

    assert (refused.value.code, refused.value.pointer) == ("invalid_event", "/events/0/count")


@pytest.mark.parametrize("value", [-(2**31), 2**31 - 1, 0, True, False])
def test_integers_within_them_and_truth_are_taken(value):
    assert check(event(count=value), "")["count"] is value
