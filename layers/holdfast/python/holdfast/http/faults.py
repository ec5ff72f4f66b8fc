"""Conversion to a route's types, and msgspec's sentences about what failed as machine words and JSON pointers."""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeGuard, TypeVar

import msgspec

from holdfast.errors import Invalid
from holdfast.strict_json import INTEGER_MAX

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,16}")
"""
How a path or a query writes one: no integer of I-JSON has more digits, and Python reads no more than 4,300.

`1e2` and `10.0` are numbers too, but then everything in between would have to know that.
"""

_SENTENCE: Final = re.compile(r"(?P<what>.*?)(?: - at (?:`[^`]*` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
_NAMED_FIELD: Final = re.compile(r"Object (?P<fault>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_STEP: Final = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]")


def to_body(content: Any, kind: type[T]) -> T:
    """
    Give parsed JSON the type *kind*.

    Raises:
        Invalid: `unknown_field` or `invalid_body`, with a pointer.
    """
    try:
        return msgspec.convert(content, kind, str_keys=True)
    except msgspec.ValidationError as error:
        raise _fault("invalid_body", error) from error


def to_query(query: Mapping[str, list[str]], kind: type[S]) -> S:
    """
    Give query parameters the type *kind*, a struct; each is given once, and none is unknown.

    Whole numbers are written in digits. A parameter without a value is left out: `null` is text.

    Raises:
        Invalid: `invalid_query`, with a pointer into the query as an object.
    """
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for name, values in query.items():
        if name not in known:
            detail = f"There is no such parameter; this route knows {', '.join(known) or 'none'}."
            raise Invalid("invalid_query", detail, pointer=_step(name))
        if len(values) != 1:
            raise Invalid("invalid_query", f"Give it once, not {len(values)} times.", pointer=_step(name))
        if not is_text(values[0]):
            raise Invalid("invalid_query", "This is no Unicode text.", pointer=_step(name))
    try:
        converted = msgspec.convert({name: values[0] for name, values in query.items()}, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _fault("invalid_query", error) from error
    for field in msgspec.structs.fields(kind):
        if field.encode_name in query:
            _check_written(getattr(converted, field.name), query[field.encode_name][0], _step(field.encode_name))
    return converted


def is_text(value: object) -> TypeGuard[str]:
    """Tell whether *value* is text that can be written as UTF-8: lone surrogates cannot."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def _check_written(value: object, written: str, pointer: str) -> None:
    """Refuse what msgspec reads kindly: `null` as no value, and numbers that need calculating to be whole."""
    if value is None:
        raise Invalid("invalid_query", "Leave it out, rather than saying null.", pointer=pointer)
    if not isinstance(value, int) or isinstance(value, bool):
        return
    if not WHOLE_NUMBER.fullmatch(written):
        raise Invalid("invalid_query", "Write a whole number in at most 16 digits.", pointer=pointer)
    if value > INTEGER_MAX:
        raise Invalid("invalid_query", "An integer is beyond 2^53-1.", pointer=pointer)


def _fault(code: str, error: msgspec.ValidationError) -> Invalid:
    """Translate msgspec's sentence; where it names a field, the pointer names the field and not its object."""
    sentence = _SENTENCE.fullmatch(str(error))
    if sentence is None:
        return Invalid(code, str(error), pointer="")
    pointer = _to_pointer(sentence["path"] or "")
    named = _NAMED_FIELD.fullmatch(sentence["what"])
    if named is None:
        return Invalid(code, f"{sentence['what']}.", pointer=pointer)
    if named["fault"] == "missing required":
        return Invalid(code, "This is required.", pointer=pointer + _step(named["name"]))
    code = "unknown_field" if code == "invalid_body" else code
    return Invalid(code, "There is no such field.", pointer=pointer + _step(named["name"]))


def _to_pointer(path: str) -> str:
    """Turn msgspec's path into a JSON pointer (RFC 6901), as far as it goes: of a dict's keys it says only `[...]`."""
    pointer, end = "", 0
    while step := _STEP.match(path, end):
        pointer += _step(step["name"] or step["index"])
        end = step.end()
    return pointer


def _step(name: str) -> str:
    """Write a name as a step of a JSON pointer (RFC 6901, section 3); a character that cannot travel becomes `?`."""
    return "/" + _SURROGATE.sub("?", name).replace("~", "~0").replace("/", "~1")
