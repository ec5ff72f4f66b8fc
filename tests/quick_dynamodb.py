"""
A DynamoDB in memory, behind the kernel's own transport: exact where the kernel leans on it, and fast.

It takes the requests that the kernel writes and no others; what it does not know it refuses, so that no test passes
on a guess. It passes the same promises as moto and the running engine, and says what every request would have cost.
"""

import copy
import re
import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

from holdfast.dynamodb.transport import Answer, Cancelled, Reason, Refused, Rejected

ITEM_BYTES_MAX: Final = 400 * 1024
PAGE_BYTES_MAX: Final = 1024 * 1024
BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
TRANSACTION_ACTIONS_MAX: Final = 100
TRANSACTION_BYTES_MAX: Final = 4 * 1024 * 1024

Item = dict[str, dict[str, Any]]


@dataclass
class Table:
    """One table: partitions of items, sorted."""

    sort_kind: str
    partitions: dict[str, list[Any]] = field(default_factory=dict)
    items: dict[tuple[str, Any], Item] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    """What its stream tells: keys, kind of change and new image, in the order of the changes."""

    def key_of(self, item: Mapping[str, Any]) -> tuple[str, Any]:
        try:
            pk, sk = item["pk"]["S"], item["sk"][self.sort_kind]
        except KeyError as error:
            raise _invalid("the key does not match the schema") from error
        if pk == "" or sk == "":
            raise _invalid("a key may not be empty")
        return pk, int(sk) if self.sort_kind == "N" else sk

    def put(self, key: tuple[str, Any], item: Item | None) -> None:
        was = self.items.get(key)
        if item is None:
            if was is not None:
                del self.items[key]
                self.partitions[key[0]].remove(key[1])
                self._record("REMOVE", was, None)
            return
        if was is None:
            insort(self.partitions.setdefault(key[0], []), key[1])
        self.items[key] = item
        if item != was:
            self._record("INSERT" if was is None else "MODIFY", item, item)

    def _record(self, name: str, keys: Item, image: Item | None) -> None:
        self.records.append(
            {"eventName": name, "dynamodb": {"Keys": {"pk": keys["pk"], "sk": keys["sk"]}, "NewImage": image}}
        )


@dataclass
class MemoryTransport:
    """One store; `copy` gives another one that begins where this one stands."""

    tables: dict[str, Table] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)
    on_cost: Callable[[str, str, float, float], None] = lambda operation, table, reads, writes: None
    """Told of every request's operation, table, read units and write units."""

    def create_table(self, name: str, sort_kind: str) -> None:
        self.tables[name] = Table(sort_kind)

    def copy(self) -> "MemoryTransport":
        with self.lock:
            return MemoryTransport(copy.deepcopy(self.tables), dict(self.tokens))

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        with self.lock:
            return Answer(OPERATIONS[operation](self, request), None)

    # ----- single items

    def get_item(self, request: Mapping[str, Any]) -> dict[str, Any]:
        table = self._table(request)
        item = table.items.get(table.key_of(request["Key"]))
        self._read_cost(
            "GetItem", request["TableName"], [item] if item else [], is_consistent=request.get("ConsistentRead")
        )
        return {"Item": copy.deepcopy(item)} if item else {}

    def put_item(self, request: Mapping[str, Any]) -> dict[str, Any]:
        change = self._change("Put", request)
        self._insist(change)
        self._apply(change)
        self.on_cost("PutItem", request["TableName"], 0, change.write_units)
        return {}

    def delete_item(self, request: Mapping[str, Any]) -> dict[str, Any]:
        change = self._change("Delete", request)
        self._insist(change)
        self._apply(change)
        self.on_cost("DeleteItem", request["TableName"], 0, change.write_units)
        return {}

    def update_item(self, request: Mapping[str, Any]) -> dict[str, Any]:
        change = self._change("Update", request)
        self._insist(change)
        self._apply(change)
        self.on_cost("UpdateItem", request["TableName"], 0, change.write_units)
        return {"Attributes": copy.deepcopy(change.after)} if request.get("ReturnValues") == "ALL_NEW" else {}

    # ----- many items

    def batch_get_item(self, request: Mapping[str, Any]) -> dict[str, Any]:
        asked = request["RequestItems"]
        if not 0 < sum(len(each["Keys"]) for each in asked.values()) <= 100:
            raise _invalid("1 to 100 keys")
        answers: dict[str, list[Item]] = {}
        left: dict[str, Any] = {}
        taken = 0
        for name, each in asked.items():
            table = self._named(name)
            keys = [table.key_of(key) for key in each["Keys"]]
            if len(set(keys)) < len(keys):
                raise _invalid("keys repeat")
            for key, given in zip(keys, each["Keys"], strict=True):
                item = table.items.get(key)
                size = size_of(item) if item else 0
                if taken + size > BATCH_BYTES_MAX:
                    left.setdefault(name, {**each, "Keys": []})["Keys"].append(given)
                    continue
                taken += size
                answers.setdefault(name, [])
                if item:
                    answers[name].append(copy.deepcopy(item))
            self.on_cost(
                "BatchGetItem",
                name,
                sum(ceil(max(1, size_of(item)) / 4096) for item in answers.get(name, ())),
                0,
            )
        return {"Responses": answers, "UnprocessedKeys": left}

    def batch_write_item(self, request: Mapping[str, Any]) -> dict[str, Any]:
        changes = []
        for name, asked in request["RequestItems"].items():
            for each in asked:
                kind = "Put" if "PutRequest" in each else "Delete"
                changes.append(self._change(kind, {"TableName": name, **each[f"{kind}Request"]}))
        if not 0 < len(changes) <= 25 or len({(change.table, change.key) for change in changes}) < len(changes):
            raise _invalid("1 to 25 distinct items")
        for change in changes:
            self._apply(change)
            self.on_cost("BatchWriteItem", change.table, 0, change.write_units)
        return {"UnprocessedItems": {}}

    def transact_write_items(self, request: Mapping[str, Any]) -> dict[str, Any]:
        actions = request["TransactItems"]
        token = request.get("ClientRequestToken")
        if token is not None and token in self.tokens:
            if self.tokens[token] != repr(actions):
                raise Rejected("IdempotentParameterMismatchException", "another request had this token")
            return {}
        if not 0 < len(actions) <= TRANSACTION_ACTIONS_MAX:
            raise _invalid("1 to 100 actions")
        changes = [self._change(*next(iter(action.items()))) for action in actions]
        if len({(change.table, change.key) for change in changes}) < len(changes):
            raise _invalid("two actions on one item")
        if sum(size_of(change.after) for change in changes if change.after) > TRANSACTION_BYTES_MAX:
            raise _invalid("over 4 MB")
        reasons = [change.reason() for change in changes]
        if any(reason.code != "None" for reason in reasons):
            raise Cancelled(reasons)
        for change in changes:
            self._apply(change)
            self.on_cost("TransactWriteItems", change.table, 0, 2 * change.write_units)
        if token is not None:
            self.tokens[token] = repr(actions)
        return {}

    def query(self, request: Mapping[str, Any]) -> dict[str, Any]:
        table = self._table(request)
        names, values = request.get("ExpressionAttributeNames", {}), request["ExpressionAttributeValues"]
        matches = Expression(request["KeyConditionExpression"], names, values)
        pk = values[_partition_value(request["KeyConditionExpression"])]["S"]
        keys = table.partitions.get(pk, [])
        is_forward = request.get("ScanIndexForward", True)
        start = request.get("ExclusiveStartKey")
        if start:
            at = table.key_of(start)[1]
            index = bisect_left(keys, at)
            keys = keys[index + (index < len(keys) and keys[index] == at) :] if is_forward else keys[:index]
        found = ((pk, sk) for sk in (keys if is_forward else reversed(keys)))
        wanted = (key for key in found if matches.holds(_key_item(table, key)))
        return self._page("Query", request, table, wanted)

    def scan(self, request: Mapping[str, Any]) -> dict[str, Any]:
        table = self._table(request)
        keys = sorted(table.items)
        start = request.get("ExclusiveStartKey")
        if start:
            keys = keys[bisect_left(keys, table.key_of(start)) + 1 :]
        return self._page("Scan", request, table, iter(keys))

    def _page(
        self, operation: str, request: Mapping[str, Any], table: Table, keys: Iterator[tuple[str, Any]]
    ) -> dict[str, Any]:
        """Take items until a page is full: what it ends with is where the next begins, if anything may follow."""
        limit, taken, size, last = request.get("Limit"), list[Item](), 0, None
        for key in keys:
            item = table.items[key]
            taken.append(item)
            size += size_of(item)
            if len(taken) == limit or size > PAGE_BYTES_MAX:
                last = {"pk": item["pk"], "sk": item["sk"]}
                break
        self._read_cost(operation, request["TableName"], taken, is_consistent=request.get("ConsistentRead"))
        projected = [name.strip() for name in request.get("ProjectionExpression", "").split(",") if name.strip()]
        items = [{name: item[name] for name in projected if name in item} if projected else item for item in taken]
        page: dict[str, Any] = {"Items": copy.deepcopy(items), "Count": len(items)}
        return page | {"LastEvaluatedKey": last} if last else page

    # ----- inside

    def _change(self, kind: str, request: Mapping[str, Any]) -> "Change":
        table = self._table(request)
        key = table.key_of(request["Item"] if kind == "Put" else request["Key"])
        before = table.items.get(key)
        names, values = request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {})
        condition = request.get("ConditionExpression")
        used = f"{condition or ''} {request.get('UpdateExpression', '')}"
        for placeholder in (*names, *values):
            if not re.search(rf"{re.escape(placeholder)}\b", used):
                raise _invalid(f"{placeholder} is not used")
        holds = Expression(condition, names, values).holds(before or {}) if condition else True
        after: Item | None = before
        if kind == "Put":
            after = copy.deepcopy(dict(request["Item"]))
        elif kind == "Delete":
            after = None
        elif kind == "Update":
            after = updated(request, names, values, before) if holds else before
        if after is not None and size_of(after) > ITEM_BYTES_MAX:
            raise _invalid("an item takes at most 400 KB")
        wants_old = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        return Change(request["TableName"], key, before, after, holds, wants_old)

    def _insist(self, change: "Change") -> None:
        if not change.holds:
            raise Refused(change.reason().item)

    def _apply(self, change: "Change") -> None:
        self._named(change.table).put(change.key, change.after)

    def _table(self, request: Mapping[str, Any]) -> Table:
        return self._named(request["TableName"])

    def _named(self, name: str) -> Table:
        if name not in self.tables:
            raise Rejected("ResourceNotFoundException", name)
        return self.tables[name]

    def _read_cost(self, operation: str, table: str, items: list[Item], *, is_consistent: Any) -> None:
        units = max(1, ceil(sum(map(size_of, items)) / 4096))
        self.on_cost(operation, table, units if is_consistent else units / 2, 0)


@dataclass(frozen=True)
class Change:
    """One item before and after a write, and whether the write may be."""

    table: str
    key: tuple[str, Any]
    before: Item | None
    after: Item | None
    holds: bool
    wants_old: bool

    @property
    def write_units(self) -> int:
        return ceil(max(size_of(item) if item else 1 for item in (self.before, self.after)) / 1024)

    def reason(self) -> Reason:
        if self.holds:
            return Reason("None", None)
        return Reason("ConditionalCheckFailed", copy.deepcopy(self.before) if self.wants_old else None)


OPERATIONS: Final[dict[str, Callable[[MemoryTransport, Mapping[str, Any]], dict[str, Any]]]] = {
    "BatchGetItem": MemoryTransport.batch_get_item,
    "BatchWriteItem": MemoryTransport.batch_write_item,
    "DeleteItem": MemoryTransport.delete_item,
    "GetItem": MemoryTransport.get_item,
    "PutItem": MemoryTransport.put_item,
    "Query": MemoryTransport.query,
    "Scan": MemoryTransport.scan,
    "TransactWriteItems": MemoryTransport.transact_write_items,
    "UpdateItem": MemoryTransport.update_item,
}


def _invalid(message: str) -> Rejected:
    return Rejected("ValidationException", message)


def _key_item(table: Table, key: tuple[str, Any]) -> Item:
    return {"pk": {"S": key[0]}, "sk": {table.sort_kind: str(key[1]) if table.sort_kind == "N" else key[1]}}


def _partition_value(condition: str) -> str:
    found = re.match(r"\s*pk\s*=\s*(:\w+)", condition)
    if not found:
        raise _invalid(condition)
    return found[1]


# ----- expressions

_TOKEN = re.compile(r"\s*(<>|<=|>=|[=<>(),+]|[#:]?\w+)")


class Expression:
    """A condition: comparisons, BETWEEN, begins_with, attribute_exists and attribute_not_exists, AND, OR, NOT."""

    def __init__(self, text: str, names: Mapping[str, str], values: Mapping[str, Any]) -> None:
        self._tokens = [found[1] for found in _TOKEN.finditer(text)]
        if "".join(self._tokens) != re.sub(r"\s", "", text):
            raise _invalid(text)
        self._names, self._values = names, values

    def holds(self, item: Mapping[str, Any]) -> bool:
        self._at, self._item = 0, item
        result = self._any_of()
        if self._at != len(self._tokens):
            raise _invalid(f"what is {self._tokens[self._at]!r}?")
        return result

    def _next(self, expected: str | None = None) -> str:
        if self._at >= len(self._tokens):
            raise _invalid("the expression ends early")
        token = self._tokens[self._at]
        if expected is not None and token != expected:
            raise _invalid(f"{token!r} where {expected!r} belongs")
        self._at += 1
        return token

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _any_of(self) -> bool:
        result = self._all_of()
        while self._peek() == "OR":
            self._next()
            result = self._all_of() or result
        return result

    def _all_of(self) -> bool:
        result = self._one()
        while self._peek() == "AND":
            self._next()
            result = self._one() and result
        return result

    def _one(self) -> bool:
        if self._peek() == "NOT":
            self._next()
            return not self._one()
        if self._peek() == "(":
            self._next()
            result = self._any_of()
            self._next(")")
            return result
        token = self._next()
        if token in ("attribute_exists", "attribute_not_exists", "begins_with"):
            return self._function(token)
        left = self._operand(token)
        operator = self._next()
        if operator == "BETWEEN":
            low = self._operand(self._next())
            self._next("AND")
            high = self._operand(self._next())
            return _compare(">=", left, low) and _compare("<=", left, high)
        return _compare(operator, left, self._operand(self._next()))

    def _function(self, name: str) -> bool:
        self._next("(")
        attribute = self._operand(self._next())
        if name == "begins_with":
            self._next(",")
            prefix = self._operand(self._next())
            self._next(")")
            return bool(attribute and prefix and attribute.get("S", "").startswith(prefix["S"]))
        self._next(")")
        return (attribute is not None) is (name == "attribute_exists")

    def _operand(self, token: str) -> Mapping[str, Any] | None:
        if token.startswith(":"):
            if token not in self._values:
                raise _invalid(f"{token} is not defined")
            found: Mapping[str, Any] = self._values[token]
            return found
        return self._item.get(_name(token, self._names))


def _name(token: str, names: Mapping[str, str]) -> str:
    if not token.startswith("#"):
        return token
    if token not in names:
        raise _invalid(f"{token} is not defined")
    return names[token]


def _compare(operator: str, left: Mapping[str, Any] | None, right: Mapping[str, Any] | None) -> bool:
    if operator not in ("=", "<>", "<", "<=", ">", ">="):
        raise _invalid(f"what is {operator!r}?")
    if left is None or right is None or set(left) != set(right):
        return operator == "<>" and left is not None and right is not None
    ((kind, one),), ((_, other),) = left.items(), right.items()
    if kind == "N":
        one, other = int(one), int(other)
    if operator == "=":
        return bool(one == other)
    if operator == "<>":
        return bool(one != other)
    return bool({"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other}[operator])


def updated(
    request: Mapping[str, Any], names: Mapping[str, str], values: Mapping[str, Any], before: Item | None
) -> Item:
    """Carry out an update expression of SET, ADD and REMOVE clauses."""
    item: Item = copy.deepcopy(before) if before else dict(request["Key"])
    parts = re.split(r"\b(SET|ADD|REMOVE)\b", request["UpdateExpression"])
    for clause, body in zip(parts[1::2], parts[2::2], strict=True):
        for part in body.split(","):
            _clause(clause, part.strip(), names, values, item)
    if {"pk", "sk"} & {_name(token, names) for token in re.findall(r"#\w+", request["UpdateExpression"])}:
        raise _invalid("a key cannot be updated")
    return item


def _clause(clause: str, part: str, names: Mapping[str, str], values: Mapping[str, Any], item: Item) -> None:
    if clause == "REMOVE":
        item.pop(_name(part, names), None)
        return
    found = re.fullmatch(r"(#?\w+)\s*=?\s*(:\w+)", part)
    if not found or (clause == "SET") != ("=" in part):
        raise _invalid(part)
    attribute, value = _name(found[1], names), values[found[2]]
    if clause == "ADD":
        value = {"N": str(int(item.get(attribute, {"N": "0"})["N"]) + int(value["N"]))}
    item[attribute] = dict(value)


# ----- sizes, as DynamoDB counts them


def size_of(item: Mapping[str, Any]) -> int:
    """Count an item's bytes: names and values (Amazon DynamoDB Developer Guide, "Item sizes and formats")."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "B":
            return len(content)
        case "N":
            digits = content.lstrip("-").strip("0") or ""
            return ceil(len(digits) / 2) + 1 + content.startswith("-")
        case "M":
            return 3 + sum(1 + len(name.encode()) + _value_size(member) for name, member in content.items())
        case "L":
            return 3 + sum(1 + _value_size(member) for member in content)
        case _:
            return 1
