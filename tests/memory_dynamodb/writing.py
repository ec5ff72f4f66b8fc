"""
What a write would do, told before it is done: the same for a write alone and for an action of a transaction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.dynamodb.transport import Reason
from tests.memory_dynamodb.evaluation import Scope, Steps, Unfit, holds, updated
from tests.memory_dynamodb.requests import choice
from tests.memory_dynamodb.tables import Key, Table
from tests.memory_dynamodb.values import ITEM_BYTES_MAX, Attributes, Row, check_size, invalid, kept_row, malformed


@dataclass(frozen=True, slots=True)
class Prepared:
    """One write, and what stands in its way."""

    table: Table
    key: Key
    before: Row | None
    after: Row | None
    is_granted: bool
    shows_old: bool
    """Whether a refusal shows the item that stands there."""
    fault: str | None = None
    """Why the item does not take the update, its condition aside."""
    is_check: bool = False
    paths: tuple[Steps, ...] = ()
    """What an update names."""

    @property
    def place(self) -> tuple[str, Key]:
        return self.table.name, self.key

    @property
    def size(self) -> int:
        return max(row.size if row else 0 for row in (self.before, self.after))

    def reason(self) -> Reason:
        if not self.is_granted:
            shown = self.before.item if self.shows_old and self.before else None
            return Reason("ConditionalCheckFailed", shown)
        return Reason("ValidationError" if self.fault else "None", None)


def prepare_put(table: Table, request: Mapping[str, Any]) -> Prepared:
    row = kept_row(request["Item"])
    check_size(row)
    key = table.key_in(row.item)
    before = table.get(key)
    return Prepared(table, key, before, row, _is_granted(request, before), _shows_old(request))


def prepare_delete(table: Table, request: Mapping[str, Any]) -> Prepared:
    key = table.key(request["Key"])
    before = table.get(key)
    return Prepared(table, key, before, None, _is_granted(request, before), _shows_old(request))


def prepare_check(table: Table, request: Mapping[str, Any]) -> Prepared:
    key = table.key(request["Key"])
    row = table.get(key)
    return Prepared(table, key, row, row, _is_granted(request, row), _shows_old(request), is_check=True)


def prepare_update(table: Table, request: Mapping[str, Any]) -> Prepared:
    key = table.key(request["Key"])
    before = table.get(key)
    scope = Scope(request)
    is_granted = _condition_holds(request, before, scope)
    start: Attributes = before.item if before else kept_row(request["Key"]).item
    after, fault = start, None
    paths: tuple[Steps, ...] = ()
    if "UpdateExpression" in request:
        update = scope.update(request["UpdateExpression"])
        scope.finish()
        paths = tuple(scope.steps(path) for path in update.paths)
        for steps in paths:
            if steps[0] in table.kinds:
                invalid(f"Cannot update attribute {steps[0]}. This attribute is part of the key")
        try:
            after = updated(update, start, scope)
        except Unfit as unfit:
            fault = str(unfit)
    scope.finish()
    row = kept_row(after)
    if row.size > ITEM_BYTES_MAX:
        fault = "Item size to update has exceeded the maximum allowed size"
    return Prepared(table, key, before, row, is_granted, _shows_old(request), fault, paths=paths)


PREPARE: Final[Mapping[str, Callable[[Table, Mapping[str, Any]], Prepared]]] = {
    "Put": prepare_put,
    "Update": prepare_update,
    "Delete": prepare_delete,
    "ConditionCheck": prepare_check,
}


def _is_granted(request: Mapping[str, Any], row: Row | None) -> bool:
    if request.keys().isdisjoint(_EXPRESSION):
        return True
    scope = Scope(request)
    is_granted = _condition_holds(request, row, scope)
    scope.finish()
    return is_granted


_EXPRESSION: Final = frozenset({"ConditionExpression", "ExpressionAttributeNames", "ExpressionAttributeValues"})


def _condition_holds(request: Mapping[str, Any], row: Row | None, scope: Scope) -> bool:
    if "ConditionExpression" not in request:
        return True
    return holds(scope.condition(request["ConditionExpression"]), row.item if row else {}, scope)


def _shows_old(request: Mapping[str, Any]) -> bool:
    return choice(request, "ReturnValuesOnConditionCheckFailure", "NONE", "ALL_OLD") == "ALL_OLD"


def check_one_action(action: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Give the kind and content of an action of a transaction."""
    if len(action) != 1 or not action.keys() <= PREPARE.keys():
        invalid("TransactItems can only contain one of Check, Put, Update or Delete")
    ((kind, content),) = action.items()
    if not isinstance(content, Mapping):
        malformed(f"{kind} is a structure")
    return kind, content
