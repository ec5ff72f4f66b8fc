"""
Which stream records a function wants: the part of EventBridge's pattern language that DynamoDB streams need.

A pattern mirrors the record; every member it names must match, and a list holds alternatives. Leaves may be a
literal, or one of `prefix`, `anything-but`, `exists` and `numeric` (AWS Lambda Developer Guide, "Control which
events Lambda sends to your function"). Anything else is refused when the pattern is read, because a filter
that is half understood drops records silently. Attribute values of DynamoDB are strings, numbers too
(`{"N": ["7"]}`), as on AWS.
"""

import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

from stacks import StackError

PATTERN_CHARACTERS_MAX = 4_096
"""What AWS allows for one filter pattern."""

Test = Callable[[Any], bool]

_ABSENT = object()

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class UnknownPattern(StackError):
    """A filter pattern that is damaged, or uses an operator that is not supported here."""

    def __init__(self, what: str) -> None:
        super().__init__(what, "Change the FilterCriteria of the event source; docs: stacks/local/patterns.py")


def compiled(patterns: tuple[str, ...]) -> Test:
    """
    Read filter patterns into one test of a record: any pattern that matches is enough, and none at all wants all.

    Raises:
        UnknownPattern: a pattern is damaged or uses what is not supported.
    """
    tests = [_pattern(text) for text in patterns]
    return lambda record: not tests or any(test(record) for test in tests)


def _pattern(text: str) -> Test:
    if len(text) > PATTERN_CHARACTERS_MAX:
        raise UnknownPattern(f"The filter pattern is longer than {PATTERN_CHARACTERS_MAX} characters.")
    try:
        pattern = json.loads(text)
    except ValueError as error:
        raise UnknownPattern(f"The filter pattern is not JSON: {text}") from error
    return _node(pattern, "")


def _node(pattern: Any, path: str) -> Test:
    match pattern:
        case dict() if pattern:
            members = {name: _node(value, f"{path}/{name}") for name, value in pattern.items()}
            return lambda value: all(test(_member(value, name)) for name, test in members.items())
        case list() if pattern:
            leaves = [_leaf(alternative, path) for alternative in pattern]
            return lambda value: any(leaf(value) for leaf in leaves)
        case _:
            raise UnknownPattern(f"The filter pattern needs an object or a list with something in it at {path or '/'}.")


def _member(value: Any, name: str) -> Any:
    return value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT


def _leaf(pattern: Any, path: str) -> Test:
    match pattern:
        case str() | int() | float() | None:
            return _is_any_of([pattern])
        case {"prefix": str(prefix), **rest} if not rest:
            return _each(lambda value: isinstance(value, str) and value.startswith(prefix))
        case {"anything-but": unwanted, **rest} if not rest:
            matches_unwanted = _unwanted(unwanted, path)
            return lambda value: value is not _ABSENT and not matches_unwanted(value)
        case {"exists": bool(wanted), **rest} if not rest:
            return lambda value: (value is not _ABSENT) == wanted
        case {"numeric": list(terms), **rest} if not rest:
            return _each(_numeric(terms, path))
        case _:
            raise UnknownPattern(f"The filter pattern uses what is not supported here at {path}: {json.dumps(pattern)}")


def _unwanted(unwanted: Any, path: str) -> Test:
    match unwanted:
        case str() | int() | float():
            return _is_any_of([unwanted])
        case list() if unwanted and all(isinstance(each, str | int | float) for each in unwanted):
            return _is_any_of(unwanted)
        case {"prefix": str()}:
            return _leaf(unwanted, path)
        case _:
            raise UnknownPattern(f"`anything-but` takes a literal, a list of them or a prefix, at {path}.")


def _is_any_of(literals: list[Any]) -> Test:
    # JSON knows booleans from numbers, Python does not: True == 1.
    wanted = {(type(literal) is bool, literal) for literal in literals}
    return _each(lambda value: value is not _ABSENT and (type(value) is bool, value) in wanted)


def _each(test: Test) -> Test:
    """A list in the record matches when any of its members does; an object never equals a leaf."""

    def check(value: Any) -> bool:
        if isinstance(value, list):
            return any(check(member) for member in value)
        return not isinstance(value, dict) and test(value)

    return check


def _numeric(terms: list[Any], path: str) -> Test:
    pairs = list(zip(terms[::2], terms[1::2], strict=False))
    if not pairs or len(terms) % 2 or not all(_is_comparison(sign, bound) for sign, bound in pairs):
        raise UnknownPattern(f"`numeric` takes pairs of a comparison and a number, at {path}: {json.dumps(terms)}")
    bounds = [(_COMPARISONS[sign], bound) for sign, bound in pairs]
    return lambda value: _is_number(value) and all(compare(value, bound) for compare, bound in bounds)


def _is_comparison(sign: Any, bound: Any) -> bool:
    return isinstance(sign, str) and sign in _COMPARISONS and _is_number(bound)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
