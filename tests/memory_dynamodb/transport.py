"""
A DynamoDB in memory, behind the kernel's transport: one lock, no clock, no chance, the same answers every time.

It does what DynamoDB documents for what the kernel uses, and refuses everything else. It never throttles, never meets
a transaction conflict and never reads stale: those are faults, and other transports put them before this one.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast.dynamodb.transport import Answer, AttributeMap, Cancelled, Refused, Rejected
from tests.memory_dynamodb import reading
from tests.memory_dynamodb.evaluation import found, projected
from tests.memory_dynamodb.reading import shown
from tests.memory_dynamodb.requests import REPORTS, check_fields, choice
from tests.memory_dynamodb.tables import HASHES, Key, KeyKind, StreamRecord, Table, no_table
from tests.memory_dynamodb.units import TRANSACTION, read_units, report, reports, write_units
from tests.memory_dynamodb.values import Row, invalid, malformed
from tests.memory_dynamodb.writing import PREPARE, Prepared, check_one_action

ACTIONS_MAX: Final = 100
"""Actions of one transaction, and keys of one batch of reads."""
BATCH_WRITES_MAX: Final = 25
TRANSACTION_BYTES_MAX: Final = 4 * 1024 * 1024
BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
"""What one BatchGetItem answers; the rest it leaves to be asked for again."""
TOKEN_CHARACTERS_MAX: Final = 36
BATCHED: Final = {"PutRequest": ("Put", "Item"), "DeleteRequest": ("Delete", "Key")}
"""What a batch of writes may hold: the write that it is, and the one field that it has."""

Request = Mapping[str, Any]
Body = dict[str, Any]


class MemoryTransport:
    """Tables in memory. `copy` forks them as they stand, so that a test may go two ways from one place."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tables: dict[str, Table] = {}
        self._tokens: dict[str, bytes] = {}
        self._changes = 0
        self._operations: Mapping[str, Callable[[Request], Body]] = {
            "GetItem": self._get_item,
            "PutItem": self._put_item,
            "UpdateItem": self._update_item,
            "DeleteItem": self._delete_item,
            "Query": self._query,
            "Scan": self._scan,
            "BatchGetItem": self._batch_get_item,
            "BatchWriteItem": self._batch_write_item,
            "TransactWriteItems": self._transact_write_items,
            "TransactGetItems": self._transact_get_items,
        }

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        carry_out = self._operations.get(operation)
        if carry_out is None:
            raise Rejected("UnknownOperationException", operation)
        check_fields(operation, request)
        if request.get("ReturnConsumedCapacity", "NONE") not in REPORTS:
            malformed("ReturnConsumedCapacity is one of NONE, TOTAL, INDEXES")
        with self._lock:
            return Answer(carry_out(request), None)

    # ----- what a test does besides

    def create_table(self, name: str, sk_type: KeyKind | None) -> None:
        """Make a table with the partition key `pk` (text) and, unless *sk_type* is None, the sort key `sk`."""
        with self._lock:
            if name in self._tables:
                raise Rejected("ResourceInUseException", f"Table already exists: {name}")
            self._tables[name] = Table(name, sk_type)

    def stream_records(self, table: str, after: int = 0) -> Sequence[StreamRecord]:
        """List the changes of a table in the order in which they were written, those beyond number *after*."""
        with self._lock:
            return [record for record in self._table(table).records if record.number > after]

    def rows(self, table: str) -> Iterator[AttributeMap]:
        """Yield every row of a table, as it stands when this is called."""
        with self._lock:
            return iter([shown(row.item) for row in self._table(table).walk(0, HASHES, None)])

    def copy(self) -> "MemoryTransport":
        """Fork: what is written to the one from now on is not in the other."""
        twin = MemoryTransport()
        twin.restore(self)
        return twin

    def restore(self, other: "MemoryTransport") -> None:
        """Take on the state of another, such as a copy made earlier, which stays as it is."""
        with other._lock:
            tables = {name: table.copy() for name, table in other._tables.items()}
            tokens, changes = dict(other._tokens), other._changes
        with self._lock:
            self._tables, self._tokens, self._changes = tables, tokens, changes

    def forget_tokens(self) -> None:
        """Let the ten minutes pass in which DynamoDB knows the token of a transaction."""
        with self._lock:
            self._tokens.clear()

    # ----- one item

    def _get_item(self, request: Request) -> Body:
        table = self._table(request["TableName"])
        row = table.get(table.key(request["Key"]))
        item = reading.get(row, request)
        units = read_units(_size(row), is_consistent=bool(request.get("ConsistentRead")))
        return ({"Item": item} if item is not None else {}) | _report(request, table, units)

    def _put_item(self, request: Request) -> Body:
        returned = choice(request, "ReturnValues", "NONE", "ALL_OLD")
        return self._write_alone("Put", request, returned)

    def _delete_item(self, request: Request) -> Body:
        returned = choice(request, "ReturnValues", "NONE", "ALL_OLD")
        return self._write_alone("Delete", request, returned)

    def _update_item(self, request: Request) -> Body:
        returned = choice(request, "ReturnValues", "NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW")
        return self._write_alone("Update", request, returned)

    def _write_alone(self, kind: str, request: Request, returned: str) -> Body:
        table = self._table(request["TableName"])
        prepared = PREPARE[kind](table, request)
        if not prepared.is_granted:
            raise Refused(shown(prepared.before.item) if prepared.shows_old and prepared.before else None)
        if prepared.fault:
            invalid(prepared.fault)
        self._apply([prepared])
        return _returned(prepared, returned) | _report(request, table, write_units(prepared.size))

    def _apply(self, all_prepared: Iterable[Prepared]) -> None:
        for prepared in all_prepared:
            if not prepared.is_check:
                self._changes += 1
                prepared.table.write(prepared.key, prepared.after, self._changes)

    # ----- pages

    def _query(self, request: Request) -> Body:
        table = self._table(request["TableName"])
        page = reading.query(table, request)
        return page.body | _report(request, table, page.units)

    def _scan(self, request: Request) -> Body:
        table = self._table(request["TableName"])
        page = reading.scan(table, request)
        return page.body | _report(request, table, page.units)

    # ----- batches

    def _batch_get_item(self, request: Request) -> Body:
        asked = request["RequestItems"]
        if not asked or not all(each.get("Keys") for each in asked.values()):
            malformed("a batch asks for something")
        if sum(len(each["Keys"]) for each in asked.values()) > ACTIONS_MAX:
            invalid("Too many items requested for the BatchGetItem call")
        answers: dict[str, list[Any]] = {}
        left: dict[str, Any] = {}
        units: dict[str, float] = defaultdict(float)
        size = 0
        for name, each in asked.items():
            check_fields("KeysAndAttributes", each)
            table = self._table(name)
            _check_distinct((name, table.key(key)) for key in each["Keys"])
            answers[name] = []
            for key in each["Keys"]:
                row = table.get(table.key(key))
                item = reading.get(row, {name: value for name, value in each.items() if name != "Keys"})
                size += _size(row)
                if size > BATCH_BYTES_MAX and answers[name]:
                    left.setdefault(name, {**each, "Keys": []})["Keys"].append(key)
                    continue
                units[name] += read_units(_size(row), is_consistent=bool(each.get("ConsistentRead")))
                answers[name] += [item] if item is not None else []
            # The order of an answer is not the order of the keys, and nobody may rely on it.
            answers[name].reverse()
        return {"Responses": answers, "UnprocessedKeys": left} | _report_all(request, units)

    def _batch_write_item(self, request: Request) -> Body:
        asked = request["RequestItems"]
        if not asked or not all(asked.values()):
            malformed("a batch writes something")
        if sum(map(len, asked.values())) > BATCH_WRITES_MAX:
            invalid("Too many items requested for the BatchWriteItem call")
        all_prepared = [self._prepare_of_batch(name, each) for name, writes in asked.items() for each in writes]
        _check_distinct(prepared.place for prepared in all_prepared)
        self._apply(all_prepared)
        units: dict[str, float] = defaultdict(float)
        for prepared in all_prepared:
            units[prepared.table.name] += write_units(prepared.size)
        return {"UnprocessedItems": {}} | _report_all(request, units)

    def _prepare_of_batch(self, name: str, write: Request) -> Prepared:
        ((kind, content),) = write.items()
        if BATCHED.get(kind, ("", ""))[1:] != tuple(content):
            malformed("a batch holds PutRequest and DeleteRequest only")
        return PREPARE[BATCHED[kind][0]](self._table(name), content)

    # ----- transactions

    def _transact_write_items(self, request: Request) -> Body:
        actions, token = request["TransactItems"], request.get("ClientRequestToken")
        _check_count(actions)
        if token is not None and not 1 <= len(token) <= TOKEN_CHARACTERS_MAX:
            invalid("ClientRequestToken has a length of 1 to 36 characters")
        asked = msgspec.msgpack.encode(actions, order="sorted") if token else b""
        if token and token in self._tokens:
            if self._tokens[token] != asked:
                raise Rejected("IdempotentParameterMismatchException", "another request had this token")
            return self._done_before(request, actions)
        all_prepared = []
        for kind, action in map(check_one_action, actions):
            check_fields(kind, action)
            all_prepared.append(PREPARE[kind](self._table(action["TableName"]), action))
        if len({prepared.place for prepared in all_prepared}) < len(all_prepared):
            invalid("Transaction request cannot include multiple operations on one item")
        if sum(prepared.size for prepared in all_prepared) > TRANSACTION_BYTES_MAX:
            invalid("Transaction request size has exceeded the maximum")
        if not all(prepared.is_granted and not prepared.fault for prepared in all_prepared):
            raise Cancelled([prepared.reason() for prepared in all_prepared])
        self._apply(all_prepared)
        if token:
            self._tokens[token] = asked
        units: dict[str, float] = defaultdict(float)
        for prepared in all_prepared:
            units[prepared.table.name] += TRANSACTION * write_units(prepared.size)
        return _report_all(request, units, kind="Write")

    def _done_before(self, request: Request, actions: Sequence[Request]) -> Body:
        """Answer a transaction that was done: it reads what it would have written."""
        units: dict[str, float] = defaultdict(float)
        for _, action in map(check_one_action, actions):
            table = self._table(action["TableName"])
            key = table.key_in(action["Item"]) if "Item" in action else table.key(action["Key"])
            units[table.name] += TRANSACTION * read_units(_size(table.get(key)), is_consistent=True)
        return _report_all(request, units, kind="Read")

    def _transact_get_items(self, request: Request) -> Body:
        asked = request["TransactItems"]
        _check_count(asked)
        answers: list[Body] = []
        units: dict[str, float] = defaultdict(float)
        places: list[tuple[str, Key]] = []
        size = 0
        for each in asked:
            if each.keys() != {"Get"}:
                malformed("a transaction of reads holds Get only")
            check_fields("Get", each["Get"])
            table = self._table(each["Get"]["TableName"])
            key = table.key(each["Get"]["Key"])
            places.append((table.name, key))
            row = table.get(key)
            item = reading.get(row, each["Get"])
            answers.append({} if item is None else {"Item": item})
            size += _size(row)
            units[table.name] += TRANSACTION * read_units(_size(row), is_consistent=True)
        if len(set(places)) < len(places):
            invalid("Transaction request cannot include multiple operations on one item")
        if size > TRANSACTION_BYTES_MAX:
            invalid("Transaction answer size has exceeded the maximum")
        return {"Responses": answers} | _report_all(request, units, kind="Read")

    def _table(self, name: str) -> Table:
        table = self._tables.get(name)
        if table is None:
            raise no_table(name)
        return table


def _size(row: Row | None) -> int:
    return row.size if row else 0


def _check_count(actions: Sequence[Request]) -> None:
    if not actions:
        malformed("a transaction has at least one action")
    if len(actions) > ACTIONS_MAX:
        invalid("Member must have length less than or equal to 100")


def _check_distinct(places: Iterable[tuple[str, Key]]) -> None:
    listed = list(places)
    if len(set(listed)) < len(listed):
        invalid("Provided list of item keys contains duplicates")


def _returned(prepared: Prepared, returned: str) -> Body:
    """Give the attributes that a write alone was asked to return; none is no answer."""
    row = prepared.before if returned.endswith("_OLD") else prepared.after
    if returned == "NONE" or row is None:
        return {}
    if returned.startswith("ALL"):
        return {"Attributes": shown(row.item)}
    item = projected(row.item, [path for path in prepared.paths if found(row.item, path) is not None])
    return {"Attributes": shown(item)} if item else {}


def _report(request: Request, table: Table, units: float) -> Body:
    detail = request.get("ReturnConsumedCapacity", "NONE")
    return {} if detail == "NONE" else {"ConsumedCapacity": report(table.name, units, detail=detail)}


def _report_all(request: Request, units: Mapping[str, float], *, kind: Any = None) -> Body:
    detail = request.get("ReturnConsumedCapacity", "NONE")
    return {} if detail == "NONE" else {"ConsumedCapacity": reports(units, detail=detail, kind=kind)}
