"""
What an expression means on an item.

Nothing is skipped: every part of a condition is looked at, since DynamoDB refuses what cannot be meant even where it
would not matter. What only the item makes wrong is `Unfit`: it fails one action, and of a transaction one reason.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from holdfast.dynamodb.transport import Rejected
from tests.memory_dynamodb import expressions as ex
from tests.memory_dynamodb.values import (
    ORDERED_KINDS,
    Attribute,
    Attributes,
    added,
    are_equal,
    comparable,
    invalid,
    kept,
    kind_of,
)

Steps = tuple[str | int, ...]


class Unfit(Exception):
    """An update does not fit the item it met."""


class Scope:
    """The names and values of one request; every one of them must be used by one of its expressions."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._names: Mapping[str, str] = request.get("ExpressionAttributeNames", {})
        given = request.get("ExpressionAttributeValues", {})
        self._values = {name: kept(value)[0] for name, value in given.items()}
        self._unused = {*self._names, *self._values}
        if ("ExpressionAttributeNames" in request and not self._names) or (
            "ExpressionAttributeValues" in request and not given
        ):
            invalid("ExpressionAttributeNames and ExpressionAttributeValues must not be empty")

    def use(self, uses: ex.Uses) -> None:
        for name in uses.names:
            if name not in self._names:
                invalid(f"An expression attribute name used is not defined; attribute name: {name}")
        for value in uses.values:
            if value not in self._values:
                invalid(f"An expression attribute value used in expression is not defined; attribute value: {value}")
        self._unused -= uses.names | uses.values

    def finish(self) -> None:
        if self._unused:
            invalid(f"Value provided unused in expressions: keys: {sorted(self._unused)}")

    def condition(self, text: str) -> ex.Condition:
        tree, uses = ex.parse_condition(text)
        self.use(uses)
        return tree

    def update(self, text: str) -> ex.Update:
        tree, uses = ex.parse_update(text)
        self.use(uses)
        self._check_apart("UpdateExpression", tree.paths)
        return tree

    def projection(self, text: str) -> list[Steps]:
        paths, uses = ex.parse_projection(text)
        self.use(uses)
        self._check_apart("ProjectionExpression", paths)
        return [self.steps(path) for path in paths]

    def _check_apart(self, kind: str, paths: Sequence[ex.Path]) -> None:
        if len(paths) > 1 and self._names:
            resolved = [self.steps(path) for path in paths]
            for index, one in enumerate(resolved):
                for other in resolved[:index]:
                    ex.check_two(kind, one, other)

    def steps(self, path: ex.Path) -> Steps:
        return tuple(self._names[step] if isinstance(step, str) and step[0] == "#" else step for step in path.steps)

    def value(self, value: ex.Value) -> Attribute:
        return self._values[value.name]


# ----- conditions


def holds(condition: ex.Condition, item: Attributes, scope: Scope) -> bool:
    match condition:
        case ex.Exists(path):
            return found(item, scope.steps(path)) is not None
        case ex.All(parts):
            return all(_each(parts, item, scope))
        case ex.AnyOf(parts):
            return any(_each(parts, item, scope))
        case ex.Not(part):
            return not holds(part, item, scope)
        case ex.Compare(operator, left, right):
            return _compares(operator, _literal(left, item, scope), _literal(right, item, scope))
        case ex.Between(value, low, high):
            middle = _literal(value, item, scope)
            bounds = _literal(low, item, scope), _literal(high, item, scope)
            if isinstance(low, ex.Value) and isinstance(high, ex.Value):
                check_between(scope.value(low), scope.value(high))
            return all([_compares(">=", middle, bounds[0]), _compares("<=", middle, bounds[1])])
        case ex.BeginsWith(value, prefix):
            return _begins_with(_literal(value, item, scope), _literal(prefix, item, scope))


def _each(parts: Sequence[ex.Condition], item: Attributes, scope: Scope) -> list[bool]:
    """Look at every part, also behind one that decides."""
    return [holds(part, item, scope) for part in parts]


class _Literal:
    """An operand's value, None if there is none, and whether the request itself gave it."""

    __slots__ = ("attribute", "is_given")

    def __init__(self, attribute: Attribute | None, *, is_given: bool) -> None:
        self.attribute = attribute
        self.is_given = is_given

    def check(self, operator: str, kinds: frozenset[str]) -> None:
        if self.is_given and self.attribute and kind_of(self.attribute) not in kinds:
            kind = kind_of(self.attribute)
            invalid(f"Incorrect operand type for operator or function; operator: {operator}, operand type: {kind}")


def _literal(operand: ex.Operand, item: Attributes, scope: Scope) -> _Literal:
    if isinstance(operand, ex.Value):
        return _Literal(scope.value(operand), is_given=True)
    assert isinstance(operand, ex.Path)
    return _Literal(found(item, scope.steps(operand)), is_given=False)


def _compares(operator: str, left: _Literal, right: _Literal) -> bool:
    if operator in {"=", "<>"}:
        both = left.attribute is not None and right.attribute is not None
        is_equal = both and are_equal(left.attribute, right.attribute)  # type: ignore[arg-type]
        return is_equal == (operator == "=")
    left.check(operator, ORDERED_KINDS)
    right.check(operator, ORDERED_KINDS)
    if left.attribute is None or right.attribute is None:
        return False
    kind = kind_of(left.attribute)
    if kind != kind_of(right.attribute) or kind not in ORDERED_KINDS:
        return False
    return ORDERS[operator](comparable(left.attribute), comparable(right.attribute))


ORDERS: Final[Mapping[str, Any]] = {
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}
_TEXT_KINDS: Final = frozenset({"S", "B"})


def _begins_with(value: _Literal, prefix: _Literal) -> bool:
    value.check("begins_with", _TEXT_KINDS)
    prefix.check("begins_with", _TEXT_KINDS)
    if value.attribute is None or prefix.attribute is None:
        return False
    kind = kind_of(value.attribute)
    if kind != kind_of(prefix.attribute) or kind not in _TEXT_KINDS:
        return False
    return bool(value.attribute[kind].startswith(prefix.attribute[kind]))


def check_between(low: Attribute, high: Attribute) -> None:
    kind = kind_of(low)
    if kind not in ORDERED_KINDS:
        invalid(f"Incorrect operand type for operator or function; operator: BETWEEN, operand type: {kind}")
    if kind != kind_of(high):
        invalid("The BETWEEN operator requires same data type for lower and upper bounds")
    if ORDERS[">"](comparable(low), comparable(high)):
        invalid("The BETWEEN operator requires upper bound to be greater than or equal to lower bound")


# ----- paths


def found(item: Attributes, steps: Steps) -> Attribute | None:
    """Follow a path; None where it leads nowhere."""
    attribute = item.get(steps[0])  # type: ignore[arg-type]
    for step in steps[1:]:
        if attribute is None:
            return None
        if isinstance(step, str):
            attribute = attribute["M"].get(step) if "M" in attribute else None
        else:
            members = attribute.get("L", ())
            attribute = members[step] if step < len(members) else None
    return attribute


def projected(item: Attributes, paths: Sequence[Steps]) -> Attributes:
    """Leave of an item what the paths lead to; of a list, the members named, without gaps."""
    wanted: dict[str | int, list[Steps]] = {}
    for steps in paths:
        if found(item, steps) is not None:
            wanted.setdefault(steps[0], []).append(steps[1:])
    return {str(name): _pruned(item[str(name)], rest) for name, rest in wanted.items()}


def _pruned(attribute: Attribute, paths: Sequence[Steps]) -> Attribute:
    if not paths[0]:
        return attribute
    if "M" in attribute:
        return {"M": projected(attribute["M"], paths)}
    wanted: dict[int, list[Steps]] = {}
    for steps in paths:
        wanted.setdefault(int(steps[0]), []).append(steps[1:])
    return {"L": [_pruned(attribute["L"][index], wanted[index]) for index in sorted(wanted)]}


# ----- updates


def updated(update: ex.Update, before: Attributes, scope: Scope) -> Attributes:
    """
    Give the item as it is after an update; every right side sees the item as it was.

    Raises:
        Unfit: a path or a value of the item is not what the update needs.
    """
    writes: list[tuple[Steps, Attribute]] = []
    for path, operand in update.sets:
        writes.append((scope.steps(path), _operand(operand, before, scope)))
    for path, value in update.adds:
        steps = scope.steps(path)
        writes.append((steps, _addition(found(before, steps), scope.value(value))))
    after: Any = {"M": before}
    for steps, attribute in writes:
        after = _with(after, steps, attribute)
    # From the back, so that an index still means the member that it meant.
    for steps in sorted(map(scope.steps, update.removes), key=_removal_order, reverse=True):
        after = _without(after, steps)
    return after["M"]


def _removal_order(steps: Steps) -> tuple[int, int]:
    return (len(steps), steps[-1] if isinstance(steps[-1], int) else -1)


def _operand(operand: ex.Operand, item: Attributes, scope: Scope) -> Attribute:
    match operand:
        case ex.Value():
            return scope.value(operand)
        case ex.Path():
            attribute = found(item, scope.steps(operand))
            if attribute is None:
                raise Unfit("The provided expression refers to an attribute that does not exist in the item")
            return attribute
        case ex.IfNotExists(path, otherwise):
            standing = found(item, scope.steps(path))
            return _operand(otherwise, item, scope) if standing is None else standing
        case ex.ListAppend(first, second):
            lists = [_of_kind(part, item, scope, "list_append", "L") for part in (first, second)]
            return {"L": [*lists[0]["L"], *lists[1]["L"]]}
        case ex.Sum(first, sign, second):
            one, other = (_of_kind(part, item, scope, "+" if sign > 0 else "-", "N") for part in (first, second))
            return _sum(one, other, sign)


def _sum(one: Attribute, other: Attribute, sign: int = 1) -> Attribute:
    try:
        return added(one, other, sign)
    except Rejected as rejected:
        raise Unfit(rejected.message) from rejected


def _of_kind(operand: ex.Operand, item: Attributes, scope: Scope, operator: str, kind: str) -> Attribute:
    attribute = _operand(operand, item, scope)
    if kind_of(attribute) != kind:
        if isinstance(operand, ex.Value):
            invalid(
                f"Invalid UpdateExpression: Incorrect operand type for operator or function; "
                f"operator or function: {operator}, operand type: {kind_of(attribute)}"
            )
        raise Unfit("An operand in the update expression has an incorrect data type")
    return attribute


def _addition(standing: Attribute | None, value: Attribute) -> Attribute:
    kind = kind_of(value)
    if kind not in {"N", "SS", "NS", "BS"}:
        invalid(f"Incorrect operand type for operator or function; operator: ADD, operand type: {kind}")
    if standing is None:
        return value
    if kind_of(standing) != kind:
        raise Unfit("An operand in the update expression has an incorrect data type")
    if kind == "N":
        return _sum(standing, value)
    return {kind: list(dict.fromkeys([*standing[kind], *value[kind]]))}


def _no_such_path() -> NoReturn:
    raise Unfit("The document path provided in the update expression is invalid for update")


def _with(holder: Attribute, steps: Steps, attribute: Attribute) -> Attribute:
    """Give *holder* with *attribute* at the end of the path; what lies along it is made anew."""
    if not steps:
        return attribute
    step, rest = steps[0], steps[1:]
    if isinstance(step, str) and "M" in holder:
        members = holder["M"]
        if rest and step not in members:
            _no_such_path()
        return {"M": {**members, step: _with(members[step], rest, attribute) if rest else attribute}}
    if isinstance(step, int) and "L" in holder:
        listed = list(holder["L"])
        if step < len(listed):
            listed[step] = _with(listed[step], rest, attribute)
        elif rest:
            _no_such_path()
        else:
            listed.append(attribute)
        return {"L": listed}
    _no_such_path()


def _without(holder: Attribute, steps: Steps) -> Attribute:
    """Give *holder* without what lies at the end of the path; where nothing lies, nothing changes."""
    step, rest = steps[0], steps[1:]
    if isinstance(step, str) and "M" in holder:
        members = dict(holder["M"])
        if rest and step not in members:
            _no_such_path()
        if rest:
            members[step] = _without(members[step], rest)
        else:
            members.pop(step, None)
        return {"M": members}
    if isinstance(step, int) and "L" in holder:
        listed = list(holder["L"])
        if step < len(listed):
            listed[step : step + 1] = [_without(listed[step], rest)] if rest else []
        elif rest:
            _no_such_path()
        return {"L": listed}
    _no_such_path()
