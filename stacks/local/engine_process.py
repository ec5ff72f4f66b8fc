"""
The engine's process: MiniStack, with three shortcuts that change no answer. It has nothing of ours but this file.

MiniStack reads an expression anew for each row that it asks, though what is read depends on the text alone. And it
answers a query by sorting all rows of the partition and asking each whether the key condition holds, so that any page
of a long stream costs as much as all of it. A large partition keeps its order here, as DynamoDB's do; and where a key
condition is written as our kernel writes it, only the rows of the page that is asked for are looked at.

And Python's collector of cycles goes through all rows each time that it collects everything, which stops the engine for
seconds where there are millions. What has outlived one such collection is left out of the next ones.
"""

import gc
import importlib
import operator
import re
import runpy
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final

EXPRESSIONS_MAX: Final = 4_096
"""Remembered; a service has a few dozen, as values and names are told apart from them."""
READ_FROM_TEXT_ALONE: Final = ("_tokenize", "_condition_syntax_error")
OLDEST_GENERATION: Final = 2
LARGE_ROWS: Final = 100
"""From so many rows on a partition keeps its order."""

_CONDITION: Final = re.compile(
    r"(?P<pk>\w+) = (?P<key>:\w+)"
    r"(?: AND (?P<sk>\w+) (?:(?P<sign>[<>]=?) (?P<bound>:\w+)|BETWEEN (?P<low>:\w+) AND (?P<high>:\w+)))?"
)
_RANK: Final = operator.itemgetter(0)

Rank = tuple[str, Any]
"""What the engine compares sort keys by: their type, and the value."""
Query = Callable[[Mapping[str, Any]], Any]


class Partition(dict[str, Any]):
    """The rows of one partition by their sort keys. It knows their order, and shows one page while that is answered."""

    def __init__(self, rows: Mapping[str, Any], rank: Callable[[Any], Rank]) -> None:
        super().__init__(rows)
        self._rank = rank
        self._order = sorted((rank(row), key) for key, row in rows.items())
        self.page: Sequence[Any] | None = None

    def __setitem__(self, key: str, row: Any) -> None:
        if key not in self:
            insort(self._order, (self._rank(row), key))
        super().__setitem__(key, row)

    def pop(self, key: str, default: Any = None) -> Any:
        if key in self:
            del self._order[bisect_left(self._order, (self._rank(self[key]), key))]
        return super().pop(key, default)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and kept as plain rows, which get an order when they are asked."""
        return dict, (dict(self),)

    def values(self) -> Any:
        return super().values() if self.page is None else self.page

    def within(self, bounds: Iterable[tuple[str, Rank]], *, is_forward: bool) -> Iterator[Any]:
        """Walk over the rows that compare so with each of the *bounds*, in order or against it."""
        first, end = 0, len(self._order)
        for sign, rank in bounds:
            at = (bisect_left if sign in (">=", "<") else bisect_right)(self._order, rank, key=_RANK)
            first, end = (max(first, at), end) if sign in (">=", ">") else (first, min(end, at))
        places = range(first, end) if is_forward else range(end - 1, first - 1, -1)
        return (self[self._order[place][1]] for place in places)


def hurry(dynamodb: Any) -> None:
    """Put the shortcuts into the engine's module of DynamoDB."""
    for name in READ_FROM_TEXT_ALONE:
        setattr(dynamodb, name, lru_cache(EXPRESSIONS_MAX)(getattr(dynamodb, name)))
    dynamodb._query = paged(dynamodb._query, dynamodb)
    gc.callbacks.append(leave_what_stays)


def leave_what_stays(phase: str, told: Mapping[str, int]) -> None:
    """Hide what is alive after a full collection from the collector. Rows hold no cycles, so they go without it."""
    if phase == "stop" and told["generation"] == OLDEST_GENERATION:
        gc.freeze()


def paged(query: Query, dynamodb: Any) -> Query:
    """Answer as *query* does, which sees of a large partition no more rows than it answers."""

    def answer(data: Mapping[str, Any]) -> Any:
        try:
            partition, rows = asked(data, dynamodb)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            return query(data)  # it asks for something else, or wrongly, which is for the engine to say
        partition.page = list(rows)
        try:
            return query(data)
        finally:
            partition.page = None

    return answer


def asked(data: Mapping[str, Any], dynamodb: Any) -> tuple[Partition, Iterator[Any]]:
    """Find the rows of the page. Whatever error is raised, this is no query of a large partition by its key."""
    condition = _CONDITION.fullmatch(data["KeyConditionExpression"])
    table = dynamodb._tables[dynamodb._normalize_table_name(data["TableName"])]
    sort = table["sk_name"]
    if not condition or condition["pk"] != table["pk_name"] or condition["sk"] not in (None, sort):
        raise ValueError("The condition is another one.")
    if not sort or data.get("IndexName") or data.get("KeyConditions"):
        raise ValueError("This is asked in another way.")
    values = data["ExpressionAttributeValues"]
    (key,) = values[condition["key"]].values()
    is_forward = data.get("ScanIndexForward", True)
    signs = {"bound": condition["sign"], "low": ">=", "high": "<="}
    bounds = [(sign, values[condition[name]]) for name, sign in signs.items() if condition[name]]
    if start := data.get("ExclusiveStartKey"):
        bounds.append((">" if is_forward else "<", start[sort]))
    rank = dynamodb._ddb_comparable
    partition = ordered(table["items"], key, lambda row: rank(row[sort]))
    rows = partition.within([(sign, rank(value)) for sign, value in bounds], is_forward=is_forward)
    page = until_full(rows, dynamodb._item_size_bytes, dynamodb._DDB_PAGE_SIZE_BYTES)
    return partition, islice(page, data.get("Limit"))


def ordered(partitions: dict[str, Any], key: str, rank: Callable[[Any], Rank]) -> Partition:
    """Give the partition in order, which it keeps from then on; ValueError: it is small."""
    rows = partitions.get(key, {})
    if isinstance(rows, Partition):
        return rows
    if len(rows) < LARGE_ROWS:
        raise ValueError("The partition is small.")
    partitions[key] = partition = Partition(rows, rank)
    return partition


def until_full(rows: Iterable[Any], size: Callable[[Any], int], bytes_max: int) -> Iterator[Any]:
    """Yield rows up to the one that does not fit into a page any more, by which the engine sees that there are more."""
    taken = 0
    for row in rows:
        yield row
        taken += size(row)
        if taken > bytes_max:
            return


if __name__ == "__main__":
    hurry(importlib.import_module("ministack.services.dynamodb"))
    runpy.run_module("ministack", run_name="__main__")
