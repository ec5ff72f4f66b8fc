"""Pages of a query or a scan: what a request means, and where an answer ends."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from tests.memory_dynamodb import expressions as ex
from tests.memory_dynamodb.evaluation import Scope, Steps, check_between, holds, projected
from tests.memory_dynamodb.requests import whole
from tests.memory_dynamodb.tables import HASHES, PK, SK, Place, Range, Table, hash_of
from tests.memory_dynamodb.units import read_units
from tests.memory_dynamodb.values import ORDERED_KINDS, Attributes, Row, invalid, kind_of

PAGE_BYTES_MAX: Final = 1024 * 1024
"""What one answer reads, before anything is filtered or left out."""
SEGMENTS_MAX: Final = 1_000_000


@dataclass(frozen=True)
class Page:
    body: dict[str, Any]
    units: float


@dataclass(frozen=True)
class _View:
    """How a page shows what it reads."""

    filter: ex.Condition | None
    projection: Sequence[Steps] | None
    scope: Scope

    @classmethod
    def of(cls, table: Table, request: Mapping[str, Any], scope: Scope, *, is_query: bool) -> "_View":
        condition = scope.condition(request["FilterExpression"]) if "FilterExpression" in request else None
        if condition and is_query:
            for path in paths_in(condition):
                if scope.steps(path)[0] in table.kinds:
                    invalid("Filter Expression can only contain non-primary key attributes")
        paths = scope.projection(request["ProjectionExpression"]) if "ProjectionExpression" in request else None
        scope.finish()
        if condition:
            holds(condition, {}, scope)  # what cannot be meant is refused also where there is nothing to filter
        return cls(condition, paths, scope)

    def page(self, table: Table, request: Mapping[str, Any], rows: Iterable[Row]) -> Page:
        limit = whole(request, "Limit", 1)
        read: list[Row] = []
        size, is_cut = 0, False
        for row in rows if limit is None else islice(rows, limit):
            if read and size + row.size > PAGE_BYTES_MAX:
                is_cut = True
                break
            read.append(row)
            size += row.size
        items = [self.show(row) for row in read if not self.filter or holds(self.filter, row.item, self.scope)]
        body: dict[str, Any] = {"Items": items, "Count": len(items), "ScannedCount": len(read)}
        # A page that ends at its limit says so, whether anything comes behind it or not.
        if is_cut or len(read) == limit:
            body["LastEvaluatedKey"] = shown(table.key_attributes(read[-1].item))
        return Page(body, read_units(size, is_consistent=bool(request.get("ConsistentRead"))))

    def show(self, row: Row) -> Attributes:
        return shown(row.item if self.projection is None else projected(row.item, self.projection))


def shown(item: Attributes) -> Attributes:
    """Give a row away; whoever changes what was given does not change the row."""
    return {name: dict(attribute) for name, attribute in item.items()}


def query(table: Table, request: Mapping[str, Any]) -> Page:
    scope = Scope(request)
    pk, bounds = _key_condition(table, scope.condition(request["KeyConditionExpression"]), scope)
    view = _View.of(table, request, scope, is_query=True)
    partition = table.partition(pk)
    low, high = bounds.slice(partition.order) if bounds else (0, len(partition.order))
    is_forward = request.get("ScanIndexForward", True)
    if "ExclusiveStartKey" in request:
        start = table.key(request["ExclusiveStartKey"])
        if start.pk != pk or (bounds and not bounds.holds(start.sk)):
            invalid("The provided starting key is outside query boundaries based on provided conditions")
        begin, end = Range("=", (request["ExclusiveStartKey"][SK],)).slice(partition.order)
        low, high = (max(low, end), high) if is_forward else (low, min(high, begin))
    order = partition.order[low:high] if is_forward else partition.order[low:high][::-1]
    return view.page(table, request, (partition.rows[sk] for sk in order))


def scan(table: Table, request: Mapping[str, Any]) -> Page:
    scope = Scope(request)
    view = _View.of(table, request, scope, is_query=False)
    total = whole(request, "TotalSegments", 1, SEGMENTS_MAX)
    segment = whole(request, "Segment", 0, SEGMENTS_MAX - 1)
    if (total is None) != (segment is None) or (total is not None and segment is not None and segment >= total):
        invalid("Segment and TotalSegments are given together, and the one is less than the other")
    low, high = (segment or 0) * HASHES // (total or 1), ((segment or 0) + 1) * HASHES // (total or 1)
    after = None
    if "ExclusiveStartKey" in request:
        key = table.key(request["ExclusiveStartKey"])
        after = Place(hash_of(key.pk), key)
        if not low <= after.hash < high:
            invalid("The provided starting key is not in this segment")
    return view.page(table, request, table.walk(low, high, after))


def get(row: Row | None, request: Mapping[str, Any]) -> Attributes | None:
    """Show one row as GetItem and its like do."""
    scope = Scope(request)
    paths = scope.projection(request["ProjectionExpression"]) if "ProjectionExpression" in request else None
    scope.finish()
    return _View(None, paths, scope).show(row) if row else None


def _key_condition(table: Table, condition: ex.Condition, scope: Scope) -> tuple[str, Range | None]:
    """Read a key condition: one partition, and at most one condition on the sort key."""
    pk, bounds = None, None
    for part in condition.parts if isinstance(condition, ex.All) else (condition,):
        name, bound = _bound(part, scope)
        if name not in table.kinds:
            invalid(f"Query condition missed key schema element: {PK}")
        if any(kind_of(value) != table.kinds[name] for value in bound.values):
            invalid("One or more parameter values were invalid: Condition parameter type does not match schema type")
        if name == PK and pk is None and bound.operator == "=":
            pk = bound.values[0]["S"]
        elif name == SK and bounds is None:
            bounds = bound
        else:
            invalid("Query key condition not supported")
    if pk is None:
        invalid(f"Query condition missed key schema element: {PK}")
    table.key({PK: {"S": pk}, **({SK: bounds.values[0]} if bounds else _any_sort_key(table))})
    return pk, bounds


def _any_sort_key(table: Table) -> Attributes:
    some: Attributes = {"S": {"S": "0"}, "N": {"N": "0"}, "B": {"B": b"0"}}
    return {SK: some[table.kinds[SK]]} if SK in table.kinds else {}


def _bound(part: ex.Condition, scope: Scope) -> tuple[str, Range]:
    match part:
        case ex.Compare(operator, ex.Path((str(),)) as path, ex.Value() as value) if operator != "<>":
            bound = Range(operator, (scope.value(value),))
        case ex.Between(ex.Path((str(),)) as path, ex.Value() as low, ex.Value() as high):
            bound = Range("BETWEEN", (scope.value(low), scope.value(high)))
            check_between(*bound.values)
        case ex.BeginsWith(ex.Path((str(),)) as path, ex.Value() as value):
            bound = Range("begins_with", (scope.value(value),))
            if kind_of(bound.values[0]) not in ORDERED_KINDS - {"N"}:
                invalid("Incorrect operand type for operator or function; operator: begins_with")
        case _:
            invalid("Invalid operator used in KeyConditionExpression")
    return str(scope.steps(path)[0]), bound


def paths_in(condition: ex.Condition) -> list[ex.Path]:
    operands: Sequence[ex.Operand] = ()
    match condition:
        case ex.All(parts) | ex.AnyOf(parts):
            return [path for part in parts for path in paths_in(part)]
        case ex.Not(part):
            return paths_in(part)
        case ex.Exists(path):
            return [path]
        case ex.Compare(_, left, right):
            operands = (left, right)
        case ex.Between(value, low, high):
            operands = (value, low, high)
        case ex.BeginsWith(value, prefix):
            operands = (value, prefix)
    return [operand for operand in operands if isinstance(operand, ex.Path)]
