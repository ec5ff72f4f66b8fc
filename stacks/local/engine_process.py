"""
The engine's process: MiniStack, with two shortcuts that change no answer. It has nothing of ours but this file.

MiniStack answers a query by asking each item of the partition whether the key condition holds, and reads the condition
anew for each: some 60 µs an item, so that any page of a stream of 4,000 commits took a quarter of a second. What is
read depends on the text alone, and is remembered; and key conditions as our kernel writes them are compared directly,
which takes less than 5 µs an item.
"""

import importlib
import operator
import re
import runpy
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

EXPRESSIONS_MAX: Final = 4_096
"""Remembered; a service has a few dozen, as values and names are told apart from them."""
READ_FROM_TEXT_ALONE: Final = ("_tokenize", "_condition_syntax_error")
EVALUATE: Final = "_evaluate_condition"
KEY_CONDITION: Final = "KeyConditionExpression"

_WRITTEN: Final = re.compile(
    r"(\w+) = (:\w+)(?: AND (\w+) (?:(?P<operator>[<>]=?) (?P<bound>:\w+)|BETWEEN (?P<low>:\w+) AND (?P<high>:\w+)))?"
)
_COMPARISONS: Final = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

Item = Mapping[str, Any]
Holds = Callable[[Item], bool]
Comparable = Callable[[Any], tuple[str, Any]]


def hurry(dynamodb: Any) -> None:
    """Put the shortcuts into the engine's module of DynamoDB."""
    for name in READ_FROM_TEXT_ALONE:
        setattr(dynamodb, name, lru_cache(EXPRESSIONS_MAX)(getattr(dynamodb, name)))
    evaluate, comparable = (getattr(dynamodb, name) for name in (EVALUATE, "_ddb_comparable"))
    setattr(dynamodb, EVALUATE, compared_directly(evaluate, comparable))


def compared_directly(evaluate: Callable[..., bool], comparable: Comparable) -> Callable[..., bool]:
    """Answer key conditions as *evaluate* does, which is asked for a request's first item, and for other conditions."""
    last: tuple[Any, Any, Any, Holds | None] = (None, None, None, None)

    def evaluated(expression: str, item: Item, values: Item, names: Item, slot: str = "ConditionExpression") -> bool:
        nonlocal last
        if slot != KEY_CONDITION:
            return evaluate(expression, item, values, names, slot=slot)
        known = last  # a request's own objects, held here so that no other request can have them
        if known[0] is not expression or known[1] is not values or known[2] is not names:
            is_true = evaluate(expression, item, values, names, slot=slot)
            last = (expression, values, names, read(expression, values, comparable))
            return is_true
        holds = known[3]
        return evaluate(expression, item, values, names, slot=slot) if holds is None else holds(item)

    return evaluated


def read(expression: str, values: Item, comparable: Comparable) -> Holds | None:
    """Read a key condition that is written as our kernel writes it; None for any other."""
    written = _WRITTEN.fullmatch(expression)
    if written is None:
        return None
    partition, key, sort = written[1], values[written[2]], written[3]
    if sort is None:
        return lambda item: bool(item.get(partition) == key)
    compared = [("<=", "high"), (">=", "low")] if written["low"] else [(written["operator"], "bound")]
    bounds = [(_COMPARISONS[sign], *comparable(values[written[name]])) for sign, name in compared]

    def holds(item: Item) -> bool:
        if item.get(partition) != key or sort not in item:
            return False
        kind, value = comparable(item[sort])
        return all(kind == bound_kind and compare(value, bound) for compare, bound_kind, bound in bounds)

    return holds


if __name__ == "__main__":
    hurry(importlib.import_module("ministack.services.dynamodb"))
    runpy.run_module("ministack", run_name="__main__")
