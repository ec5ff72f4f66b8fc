"""Filter patterns: the part of EventBridge's language that streams need, and a loud no to the rest."""

import json
from typing import Any

import pytest

from stacks.local.patterns import PATTERN_CHARACTERS_MAX, UnknownPattern, compiled

RECORD = {
    "eventName": "INSERT",
    "dynamodb": {
        "Keys": {"pk": {"S": "S#local#orders/1"}, "sk": {"N": "7"}},
        "NewImage": {"tags": {"SS": ["red", "blue"]}, "open": {"BOOL": True}},
        "SizeBytes": 120,
    },
}


def matches(*patterns: Any) -> bool:
    return compiled(tuple(json.dumps(pattern) for pattern in patterns))(RECORD)


def at(leaf: Any) -> dict[str, Any]:
    return {"dynamodb": {"Keys": {"pk": {"S": [leaf]}}}}


def test_no_pattern_wants_every_record():
    assert matches()


@pytest.mark.parametrize(
    "pattern",
    [
        {"eventName": ["INSERT"]},
        {"eventName": ["REMOVE", "INSERT"]},
        {"eventName": ["INSERT"], "dynamodb": {"Keys": {"sk": {"N": ["7"]}}}},
        at({"prefix": "S#"}),
        at({"anything-but": "other"}),
        at({"anything-but": ["a", "b"]}),
        at({"anything-but": {"prefix": "V#"}}),
        at({"exists": True}),
        {"dynamodb": {"OldImage": [{"exists": False}]}},
        {"dynamodb": {"SizeBytes": [{"numeric": [">", 100, "<=", 120]}]}},
        {"dynamodb": {"NewImage": {"tags": {"SS": ["blue"]}}}},
        {"dynamodb": {"NewImage": {"open": {"BOOL": [True]}}}},
    ],
)
def test_a_record_that_fits_is_wanted(pattern: Any):
    assert matches(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        {"eventName": ["REMOVE"]},
        {"eventName": ["INSERT"], "dynamodb": {"Keys": {"sk": {"N": ["8"]}}}},
        {"dynamodb": {"Keys": {"sk": {"N": [7]}}}},  # numbers of DynamoDB are strings
        at({"prefix": "V#"}),
        at({"anything-but": "S#local#orders/1"}),
        at({"anything-but": {"prefix": "S#"}}),
        at({"exists": False}),
        {"dynamodb": {"OldImage": {"pk": {"S": [{"anything-but": "x"}]}}}},
        {"dynamodb": {"SizeBytes": [{"numeric": [">", 120]}]}},
        {"dynamodb": {"NewImage": {"open": {"BOOL": [1]}}}},
        {"dynamodb": {"Keys": ["S#"]}},
        {"eventName": {"deeper": ["INSERT"]}},
    ],
)
def test_a_record_that_does_not_fit_is_not_wanted(pattern: Any):
    assert not matches(pattern)


def test_one_pattern_of_several_is_enough():
    assert matches({"eventName": ["REMOVE"]}, {"eventName": ["INSERT"]})


@pytest.mark.parametrize(
    "pattern",
    [
        at({"suffix": "x"}),
        at({"prefix": "a", "exists": True}),
        at({"prefix": 1}),
        at({"exists": "yes"}),
        at({"numeric": [">"]}),
        at({"numeric": ["~", 1]}),
        at({"numeric": [">", "1"]}),
        at({"anything-but": {"suffix": "x"}}),
        {"eventName": "INSERT"},
        {"eventName": []},
        {},
        {"$or": [{"eventName": ["INSERT"]}]},
    ],
)
def test_what_is_not_supported_is_refused_when_it_is_read(pattern: Any):
    with pytest.raises(UnknownPattern):
        compiled((json.dumps(pattern),))


@pytest.mark.parametrize("text", ["{", "", "[" * (PATTERN_CHARACTERS_MAX + 1)])
def test_a_damaged_or_oversized_pattern_is_refused(text: str):
    with pytest.raises(UnknownPattern):
        compiled((text,))
