"""
Companions: other rows that must change with a commit, in the same transaction, or not at all.

They are plain values, so that the decision to change them can be pure and every store can carry them
out. A companion names a table by its role (`views`, `balances`); the store knows the table behind it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.errors import Conflict, Invalid

Row = Mapping[str, Any]
"""Strings, integers, bytes, booleans, None, and lists and mappings of these."""


class Is(msgspec.Struct, frozen=True, tag=True):
    attribute: str
    value: Any


class Missing(msgspec.Struct, frozen=True, tag=True):
    attribute: str


class AtLeast(msgspec.Struct, frozen=True, tag=True):
    attribute: str
    value: int


Condition = Is | Missing | AtLeast


class Change(msgspec.Struct, frozen=True):
    """What is set and added in the row at *key* if every condition in *when* holds; its writer knows the table."""

    key: Row
    when: tuple[Condition, ...]
    set: Row = {}
    add: Mapping[str, int] = {}


class Put(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Put *row* where *key* is free."""

    table: str
    key: Row
    row: Row


class Update(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Set and add attributes of the row at *key* if every condition in *when* holds."""

    table: str
    key: Row
    when: tuple[Condition, ...]
    set: Row = {}
    add: Mapping[str, int] = {}


class Check(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Change nothing, and insist that every condition in *when* holds."""

    table: str
    key: Row
    when: tuple[Condition, ...]


Companion = Put | Update | Check


class CompanionRefused(Conflict):
    """A companion's condition does not hold, so nothing was written. *index* says which, *row* what stands there."""

    def __init__(self, index: int, row: Row | None) -> None:
        super().__init__("companion_refused", f"The condition of companion {index} does not hold.")
        self.index = index
        self.row = row


def canonical(companion: Companion) -> bytes:
    """
    Write a companion as the same bytes whenever it says the same, so that a repeat is known again years later.

    Neither the order in which attributes are named plays a part, nor a field that is left at its default.
    """
    return ascii(_in_order(msgspec.to_builtins(companion, builtin_types=(bytes,), enc_hook=dict))).encode()


def _in_order(value: Any) -> Any:
    match value:
        case dict():
            return {name: _in_order(value[name]) for name in sorted(value)}
        case list() | tuple():
            return [_in_order(member) for member in value]
        case _:
            return value


def check_companions(companions: Sequence[Companion]) -> None:
    """
    Refuse what a table would refuse, or carry out without the guard that it needs.

    Raises:
        Invalid: `invalid_companion`.
    """
    places = {(companion.table, tuple(sorted(companion.key.items()))) for companion in companions}
    if len(places) < len(companions):
        raise Invalid("invalid_companion", "Two companions are at the same row; make them one.")
    for index, companion in enumerate(companions):
        fault = _fault_of(companion)
        if fault:
            raise Invalid("invalid_companion", f"Companion {index}: {fault}.")


def _fault_of(companion: Companion) -> str | None:
    when: tuple[Condition, ...] = ()
    match companion:
        case Put(_, key, row):
            written, guards = [row], [True]
        case Update(_, key, when, changes, additions):
            written, guards = [changes, additions], [bool(when), bool(changes or additions)]
        case Check(_, key, when):
            written, guards = [], [bool(when)]
    names = [name for part in (key, *written) for name in part]
    if not all(guards):
        return "it changes nothing, or changes under no condition"
    if len(set(names)) < len(names):
        return "it names an attribute twice"
    if not all(_is_kept(value) for part in (key, *written) for value in part.values()):
        return "rows hold text, whole numbers, bytes, booleans, None, and lists and mappings of these"
    if not all(map(_is_comparable, when)):
        return "its condition compares with what no row holds"
    return None


def _is_comparable(condition: Condition) -> bool:
    match condition:
        case Is(_, value):
            return _is_kept(value)
        case AtLeast(_, value):
            return type(value) is int
        case Missing():
            return True


def _is_kept(value: Any) -> bool:
    match value:
        case str() | bool() | int() | bytes() | None:
            return True
        case Mapping():
            return all(isinstance(name, str) and _is_kept(member) for name, member in value.items())
        case list() | tuple():
            return all(map(_is_kept, value))
        case _:
            return False


def holds(condition: Condition, row: Row | None) -> bool:
    """Tell whether *condition* holds on a row, or on the absence of one."""
    found = row or {}
    match condition:
        case Is(attribute, value):
            # In a table, true is not 1, and nothing equals what is not there.
            return attribute in found and type(found[attribute]) is type(value) and bool(found[attribute] == value)
        case Missing(attribute):
            return attribute not in found
        case AtLeast(attribute, value):
            return type(found.get(attribute)) is int and bool(found[attribute] >= value)


def applied(companion: Companion, row: Row | None) -> Row | None:
    """Say what stands at the companion's key afterwards. Conditions are the caller's to check."""
    match companion:
        case Put(_, key, new):
            return {**key, **new}
        case Update(_, key, _, changes, additions):
            found = row or {}
            return {**key, **found, **changes, **{name: found.get(name, 0) + by for name, by in additions.items()}}
        case Check():
            return row


def is_refused(companion: Companion, row: Row | None) -> bool:
    if isinstance(companion, Put):
        return row is not None
    return not all(holds(condition, row) for condition in companion.when)
