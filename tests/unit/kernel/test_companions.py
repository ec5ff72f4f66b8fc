"""What makes a request with companions the same request, for ever."""

from types import MappingProxyType

import pytest

from holdfast.streams import AtLeast, Check, Companion, Is, Missing, Put, Update
from holdfast.streams.companions import canonical

KEY = {"pk": "b#1", "sk": 0}


def test_the_form_of_today_is_written_for_ever():
    """Commits that are stored have its digest in them: in another form, none of their repeats would be known again."""
    put = Put("balances", KEY, {"n": 2**70, "é": [b"\0x", "x", True, None, {"b": 1, "a": 2}]})
    update = Update("b", KEY, (Is("v", 1), Missing("x"), AtLeast("n", 2)), add={"n": -1})

    assert canonical(put).decode() == (
        "{'key': {'pk': 'b#1', 'sk': 0}, 'row': {'n': 1180591620717411303424, "
        "'\\xe9': [b'\\x00x', 'x', True, None, {'a': 2, 'b': 1}]}, 'table': 'balances', 'type': 'Put'}"
    )
    assert canonical(update).decode() == (
        "{'add': {'n': -1}, 'key': {'pk': 'b#1', 'sk': 0}, 'table': 'b', 'type': 'Update', 'when': ["
        "{'attribute': 'v', 'type': 'Is', 'value': 1}, {'attribute': 'x', 'type': 'Missing'}, "
        "{'attribute': 'n', 'type': 'AtLeast', 'value': 2}]}"
    )


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (Put("b", KEY, {"a": 1, "b": 2}), Put("b", {"sk": 0, "pk": "b#1"}, {"b": 2, "a": 1})),
        (Put("b", KEY, {"a": [1, {"c": 3, "d": 4}]}), Put("b", KEY, {"a": (1, {"d": 4, "c": 3})})),
        (Put("b", KEY, {"a": {"c": 3}}), Put("b", MappingProxyType(KEY), {"a": MappingProxyType({"c": 3})})),
    ],
)
def test_what_says_the_same_is_written_the_same(one: Companion, same: Companion):
    assert canonical(one) == canonical(same)


def test_a_field_that_is_added_one_day_changes_nothing_where_it_is_not_used():
    class Wider(Update, frozen=True, tag="Update", omit_defaults=True):
        expires_at: int | None = None

    update = Update("b", KEY, (Missing("x"),), {"a": 1})

    assert canonical(Wider("b", KEY, (Missing("x"),), {"a": 1})) == canonical(update)
    assert canonical(Wider("b", KEY, (Missing("x"),), {"a": 1}, expires_at=5)) != canonical(update)


def test_what_says_something_else_is_written_otherwise():
    others: list[Companion] = [
        Put("b", KEY, {"a": 1}),
        Put("b", KEY, {"a": "1"}),
        Put("b", KEY, {"a": True}),
        Put("b", KEY, {"a": None}),
        Put("b", KEY, {"a": b"1"}),
        Put("b", KEY, {}),
        Put("c", KEY, {"a": 1}),
        Put("b", {**KEY, "sk": 1}, {"a": 1}),
        Check("b", KEY, (Is("a", 1),)),
        Check("b", KEY, (AtLeast("a", 1),)),
        Check("b", KEY, (Missing("a"),)),
        Update("b", KEY, (Is("a", 1),), set={"b": 1}),
        Update("b", KEY, (Is("a", 1),), add={"b": 1}),
    ]

    assert len(set(map(canonical, others))) == len(others)
