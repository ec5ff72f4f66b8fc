"""
Tables: rows by partition and sort key, in the order that queries and scans walk them, and what has changed.

A row is replaced, never changed, so a copy of a table shares its rows.
"""

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import msgspec

from holdfast.dynamodb.transport import AttributeMap, Rejected
from tests.memory_dynamodb.values import Attribute, Attributes, Comparable, Row, comparable, invalid, kept_row

PK: Final = "pk"
SK: Final = "sk"
"""Every table of Holdfast names its keys so."""
PK_BYTES_MAX: Final = 2048
SK_BYTES_MAX: Final = 1024
HASHES: Final = 1 << 128
"""A partition key's hash lies below; it orders a scan."""
NO_SORT_KEY: Final = ""

KeyKind = Literal["S", "N", "B"]
EventName = Literal["INSERT", "MODIFY", "REMOVE"]


class Key(NamedTuple):
    pk: str
    sk: Comparable


class Place(NamedTuple):
    """Where a scan meets a row."""

    hash: int
    key: Key


class StreamRecord(msgspec.Struct, frozen=True):
    """One change of one item, as DynamoDB Streams tells it; a write that changes nothing is not told."""

    number: int
    """Rises over all tables of a store, in the order of the writes."""
    event_name: EventName
    keys: AttributeMap
    old_image: AttributeMap | None
    new_image: AttributeMap | None


@dataclass
class Partition:
    rows: dict[Comparable, Row] = field(default_factory=dict)
    order: list[Any] = field(default_factory=list)


class Table:
    def __init__(self, name: str, sk_kind: KeyKind | None) -> None:
        self.name = name
        self.kinds: Mapping[str, str] = {PK: "S"} if sk_kind is None else {PK: "S", SK: sk_kind}
        self.records: list[StreamRecord] = []
        self._partitions: dict[str, Partition] = {}
        self._hashes: list[tuple[int, str]] = []

    def copy(self) -> "Table":
        twin = Table(self.name, None)
        twin.kinds = self.kinds
        twin.records = list(self.records)
        twin._partitions = {pk: Partition(dict(each.rows), list(each.order)) for pk, each in self._partitions.items()}
        twin._hashes = list(self._hashes)
        return twin

    # ----- keys

    def key_in(self, item: Attributes) -> Key:
        """Find the key in an item that is to be put."""
        for name in self.kinds:
            if name not in item:
                invalid(f"One or more parameter values were invalid: Missing the key {name} in the item")
        return self._key(item)

    def key(self, given: Mapping[str, Mapping[str, Any]]) -> Key:
        """Read a key that is given alone."""
        key = kept_row(given).item
        if key.keys() != self.kinds.keys():
            invalid("The provided key element does not match the schema")
        return self._key(key)

    def _key(self, item: Attributes) -> Key:
        for name, kind in self.kinds.items():
            attribute = item[name]
            if kind not in attribute:
                invalid(f"One or more parameter values were invalid: Type mismatch for key {name} expected: {kind}")
            if kind != "N":
                value = attribute[kind]
                if not value:
                    invalid(f"The AttributeValue for a key attribute cannot contain an empty value. Key: {name}")
                # A character takes four bytes at most.
                if len(value) > SK_BYTES_MAX // 4:
                    _check_key_bytes(name, value)
        return Key(item[PK]["S"], comparable(item[SK]) if SK in self.kinds else NO_SORT_KEY)

    def key_attributes(self, item: Attributes) -> Attributes:
        return {name: item[name] for name in self.kinds}

    # ----- rows

    def get(self, key: Key) -> Row | None:
        partition = self._partitions.get(key.pk)
        return partition.rows.get(key.sk) if partition else None

    def write(self, key: Key, row: Row | None, number: int) -> None:
        """Put a row, or remove the one that stands there, and tell the change."""
        partition = self._partitions.get(key.pk)
        before = partition.rows.get(key.sk) if partition else None
        if row is None:
            if partition is not None and before is not None:
                del partition.rows[key.sk]
                del partition.order[bisect_left(partition.order, key.sk)]
        else:
            if partition is None:
                partition = self._partitions[key.pk] = Partition()
                insort(self._hashes, (hash_of(key.pk), key.pk))
            if before is None:
                _insert(partition.order, key.sk)
            partition.rows[key.sk] = row
        self._tell(before, row, number)

    def _tell(self, before: Row | None, after: Row | None, number: int) -> None:
        standing = after or before
        if standing is None or (before is not None and after is not None and before.item == after.item):
            return
        event: EventName = "INSERT" if before is None else "REMOVE" if after is None else "MODIFY"
        self.records.append(
            StreamRecord(
                number,
                event,
                self.key_attributes(standing.item),
                before.item if before else None,
                after.item if after else None,
            )
        )

    # ----- walks

    def partition(self, pk: str) -> Partition:
        return self._partitions.get(pk) or Partition()

    def walk(self, low: int, high: int, after: Place | None) -> Iterator[Row]:
        """Yield the rows whose partition's hash is from *low* to below *high*, beyond a place."""
        start = bisect_left(self._hashes, (after.hash, after.key.pk) if after else (low, ""))
        for hash_of_pk, pk in self._hashes[start:]:
            if hash_of_pk >= high:
                return
            partition = self._partitions[pk]
            is_first = after is not None and after.key.pk == pk
            begin = bisect_right(partition.order, after.key.sk) if after and is_first else 0
            for sk in partition.order[begin:]:
                yield partition.rows[sk]

    def __len__(self) -> int:
        return sum(len(partition.rows) for partition in self._partitions.values())


def _insert(order: list[Any], sk: Comparable) -> None:
    # Most rows come behind the last one.
    if not order or order[-1] < sk:
        order.append(sk)
    else:
        insort(order, sk)


def _check_key_bytes(name: str, value: str | bytes) -> None:
    size = len(value.encode() if isinstance(value, str) else value)
    bound = PK_BYTES_MAX if name == PK else SK_BYTES_MAX
    if size > bound:
        invalid(f"Size of key {name} has exceeded the size limit of {bound} bytes")


def hash_of(pk: str) -> int:
    return int.from_bytes(hashlib.md5(pk.encode(), usedforsecurity=False).digest())


# ----- ranges of one partition


@dataclass(frozen=True)
class Range:
    """A condition on a sort key: an operator (`between` and `begins_with` among them) and its values."""

    operator: str
    values: tuple[Attribute, ...]

    def slice(self, order: list[Any]) -> tuple[int, int]:
        """Give where the range begins and ends in a sorted list of sort keys."""
        first = comparable(self.values[0])
        match self.operator:
            case "=":
                return bisect_left(order, first), bisect_right(order, first)
            case "<":
                return 0, bisect_left(order, first)
            case "<=":
                return 0, bisect_right(order, first)
            case ">":
                return bisect_right(order, first), len(order)
            case ">=":
                return bisect_left(order, first), len(order)
            case "BETWEEN":
                return bisect_left(order, first), bisect_right(order, comparable(self.values[1]))
            case _:
                begin = bisect_left(order, first)
                return begin, bisect_left(order, x=True, lo=begin, key=lambda sk: not sk.startswith(first))

    def holds(self, sk: Comparable) -> bool:
        return self.slice([sk]) == (0, 1)


def no_table(name: str) -> Rejected:
    return Rejected("ResourceNotFoundException", f"Requested resource not found: Table: {name} not found")
