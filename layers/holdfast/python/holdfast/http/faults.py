"""Conversion to a route's types, and msgspec's sentences about what failed as machine words and JSON pointers."""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from holdfast.errors import Invalid
from holdfast.strict_json import INTEGER_MAX

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

_SENTENCE: Final = re.compile(r"(?P<what>.*?)(?: - at (?:`[^`]*` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
_NAMED_FIELD: Final = re.compile(r"Object (?P<fault>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
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
    try:
        converted = msgspec.convert({name: values[0] for name, values in query.items()}, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _fault("invalid_query", error) from error
    for field in msgspec.structs.fields(kind):
        value = getattr(converted, field.name)
        if isinstance(value, int) and abs(value) > INTEGER_MAX:
            raise Invalid("invalid_query", "An integer is beyond ±(2^53-1).", pointer=_step(field.encode_name))
    return converted


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
    return "/" + name.replace("~", "~0").replace("/", "~1")
