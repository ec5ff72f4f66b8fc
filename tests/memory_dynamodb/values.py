"""
Attribute values as DynamoDB takes, orders and measures them.

What is kept has gone through `kept`: checked, in DynamoDB's own form, and apart from the caller's objects. Kept values
are never changed, only replaced, so that rows may be shared between a store and its copies.

Sizes follow "DynamoDB item sizes and formats" in the developer guide.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation
from typing import Any, Final, NamedTuple, NoReturn

from holdfast.dynamodb.transport import Rejected

Attribute = dict[str, Any]
Attributes = dict[str, Attribute]
Comparable = str | bytes | int | Decimal

ITEM_BYTES_MAX: Final = 400 * 1024
"""One item, the names of its attributes included."""
DIGITS_MAX: Final = 38
MAGNITUDE_MAX: Final = 125
MAGNITUDE_MIN: Final = -130
"""A number lies between 1E-130 and 9.9…9E+125."""
DEPTH_MAX: Final = 32
CONTAINER_BYTES: Final = 3
"""What a list or map takes by itself; each member takes one more."""
ORDERED_KINDS: Final = frozenset({"S", "N", "B"})

_CONTEXT: Final = Context(prec=DIGITS_MAX, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation])
_PLAIN: Final = re.compile(r"-?[1-9][0-9]{0,37}\Z|0\Z")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")


class Row(NamedTuple):
    """One item as it is kept, and its size."""

    item: Attributes
    size: int


def invalid(message: str) -> NoReturn:
    raise Rejected("ValidationException", message)


def malformed(message: str) -> NoReturn:
    """Refuse what botocore would not even send."""
    raise Rejected("ParamValidationError", message)


def kept_row(item: Mapping[str, Mapping[str, Any]]) -> Row:
    """Give an item as it is kept; whether it is too large is told by `check_size`."""
    attributes, size = {}, 0
    for name, attribute in item.items():
        attributes[name], bytes_of = kept(attribute)
        size += bytes_of + text_bytes(name)
    return Row(attributes, size)


def check_size(row: Row) -> None:
    if row.size > ITEM_BYTES_MAX:
        invalid("Item size has exceeded the maximum allowed size")


def kept(attribute: Mapping[str, Any], depth: int = 0) -> tuple[Attribute, int]:
    """Give a value as it is kept, and how many bytes it takes."""
    try:
        ((kind, value),) = attribute.items()
        keep = _KEEP[kind]
    except (AttributeError, ValueError, KeyError):
        malformed("an attribute value has exactly one kind, and one that there is")
    return keep(value, depth)


def _keep_text(value: Any, _: int) -> tuple[Attribute, int]:
    return {"S": value}, text_bytes(value)


def _keep_number(value: Any, _: int) -> tuple[Attribute, int]:
    text = number_text(value)
    return {"N": text}, number_bytes(text)


def _keep_binary(value: Any, _: int) -> tuple[Attribute, int]:
    if not isinstance(value, bytes | bytearray):
        malformed("a binary value is bytes")
    return {"B": bytes(value)}, len(value)


def _keep_boolean(value: Any, _: int) -> tuple[Attribute, int]:
    if not isinstance(value, bool):
        malformed("a Boolean is True or False")
    return {"BOOL": value}, 1


def _keep_null(value: Any, _: int) -> tuple[Attribute, int]:
    if value is not True:
        invalid("One or more parameter values were invalid: Null attribute value types must have the value of true")
    return {"NULL": True}, 1


def _keep_map(members: Mapping[str, Mapping[str, Any]], depth: int) -> tuple[Attribute, int]:
    attributes, size = {}, CONTAINER_BYTES
    for name, member in members.items():
        attributes[name], bytes_of = kept(member, _deeper(depth))
        size += bytes_of + text_bytes(name) + 1
    return {"M": attributes}, size


def _keep_list(members: Sequence[Mapping[str, Any]], depth: int) -> tuple[Attribute, int]:
    found = [kept(member, _deeper(depth)) for member in members]
    return {"L": [member for member, _ in found]}, CONTAINER_BYTES + sum(size + 1 for _, size in found)


def _deeper(depth: int) -> int:
    if depth + 1 > DEPTH_MAX:
        invalid("Nesting Levels have exceeded supported limits")
    return depth + 1


def _keeper_of_sets(kind: str, member_kind: str) -> Callable[[Any, int], tuple[Attribute, int]]:
    def keep(members: Any, _: int) -> tuple[Attribute, int]:
        if not members:
            invalid("One or more parameter values were invalid: A set may not be empty")
        values = [kept({member_kind: member}) for member in members]
        distinct = {value[member_kind]: None for value, _ in values}
        if len(distinct) != len(values):
            invalid("One or more parameter values were invalid: Input collection contains duplicates.")
        return {kind: list(distinct)}, sum(size for _, size in values)

    return keep


_KEEP: Final[Mapping[str, Callable[[Any, int], tuple[Attribute, int]]]] = {
    "S": _keep_text,
    "N": _keep_number,
    "B": _keep_binary,
    "BOOL": _keep_boolean,
    "NULL": _keep_null,
    "M": _keep_map,
    "L": _keep_list,
    "SS": _keeper_of_sets("SS", "S"),
    "NS": _keeper_of_sets("NS", "N"),
    "BS": _keeper_of_sets("BS", "B"),
}


def text_bytes(text: Any) -> int:
    if not isinstance(text, str):
        malformed("text is a str")
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise Rejected("UnicodeEncodeError", str(error)) from error


# ----- numbers


def number_text(text: Any) -> str:
    """Write a number as DynamoDB gives it back: plain, without needless zeros."""
    if not isinstance(text, str):
        malformed("a number is sent as text")
    if _PLAIN.match(text):
        return text
    if not _NUMBER.match(text):
        invalid("The parameter cannot be converted to a numeric value")
    return decimal_text(Decimal(text))


def decimal_text(number: Decimal | int) -> str:
    """Write the outcome of a calculation, if DynamoDB can hold it."""
    if isinstance(number, int):
        if abs(number) < 10**DIGITS_MAX:
            return str(number)
        number = Decimal(number)
    if not number:
        return "0"
    try:
        exact = number.normalize(_CONTEXT)
    except (Inexact, InvalidOperation):
        invalid("Attempting to store more than 38 significant digits in a Number")
    if exact.adjusted() > MAGNITUDE_MAX:
        invalid("Number overflow. Attempting to store a number with magnitude larger than supported range")
    if exact.adjusted() < MAGNITUDE_MIN:
        invalid("Number underflow. Attempting to store a number with magnitude smaller than supported range")
    return format(exact, "f")


def number_bytes(text: str) -> int:
    """One byte for two significant digits, one more, and one for a minus."""
    digits = text.lstrip("-").replace(".", "").strip("0")
    return (len(digits) + 1) // 2 + 1 + (text[0] == "-")


def number_of(text: str) -> int | Decimal:
    return Decimal(text) if "." in text else int(text)


def added(one: Attribute, other: Attribute, sign: int = 1) -> Attribute:
    """Add two numbers, or take the second from the first, without losing a digit."""
    left, right = number_of(one["N"]), number_of(other["N"])
    if isinstance(left, int) and isinstance(right, int):
        return {"N": decimal_text(left + sign * right)}
    wide = Context(prec=2 * (MAGNITUDE_MAX - MAGNITUDE_MIN), Emax=MAX_EMAX, Emin=MIN_EMIN)
    return {"N": decimal_text(wide.add(Decimal(left), wide.multiply(Decimal(sign), Decimal(right))))}


# ----- order and equality


def kind_of(attribute: Attribute) -> str:
    return next(iter(attribute))


def comparable(attribute: Attribute) -> Comparable:
    """
    Give what orders a value among those of its kind: numbers by magnitude, text and binary by their bytes.

    Text orders by its UTF-8 bytes as it does by its code points.
    """
    ((kind, value),) = attribute.items()
    return number_of(value) if kind == "N" else value


def are_equal(one: Attribute, other: Attribute) -> bool:
    """Compare two kept values; numbers have one form, and the order of a set's members says nothing."""
    kind = kind_of(one)
    if kind != kind_of(other):
        return False
    match kind:
        case "SS" | "NS" | "BS":
            return set(one[kind]) == set(other[kind])
        case "L":
            return len(one["L"]) == len(other["L"]) and all(map(are_equal, one["L"], other["L"]))
        case "M":
            return are_same(one["M"], other["M"])
        case _:
            return bool(one[kind] == other[kind])


def are_same(one: Attributes, other: Attributes) -> bool:
    return one.keys() == other.keys() and all(are_equal(value, other[name]) for name, value in one.items())
