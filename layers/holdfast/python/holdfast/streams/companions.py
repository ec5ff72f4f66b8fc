"""
Companions: other rows that must change with a commit, in the same transaction, or not at all.

They are plain values, so that the decision to change them can be pure and every store can carry them
out. A companion names a table by its role (`views`, `balances`); the store knows the table behind it.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.errors import Conflict

Row = Mapping[str, Any]
"""Strings, integers, bytes, booleans, None, and lists and mappings of these."""


class Is(msgspec.Struct, frozen=True):
    attribute: str
    value: Any


class Missing(msgspec.Struct, frozen=True):
    attribute: str


class AtLeast(msgspec.Struct, frozen=True):
    attribute: str
    value: int


Condition = Is | Missing | AtLeast


class Put(msgspec.Struct, frozen=True):
    """Put *row* where *key* is free."""

    table: str
    key: Row
    row: Row


class Update(msgspec.Struct, frozen=True):
    """Set and add attributes of the row at *key* if every condition in *when* holds."""

    table: str
    key: Row
    when: tuple[Condition, ...]
    set: Row = {}
    add: Mapping[str, int] = {}


class Check(msgspec.Struct, frozen=True):
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


def holds(condition: Condition, row: Row | None) -> bool:
    """Tell whether *condition* holds on a row, or on the absence of one."""
    found = row or {}
    match condition:
        case Is(attribute, value):
            return attribute in found and bool(found[attribute] == value)
        case Missing(attribute):
            return attribute not in found
        case AtLeast(attribute, value):
            return attribute in found and bool(found[attribute] >= value)


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
