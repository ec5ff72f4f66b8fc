"""
What a run costs: requests by operation, and capacity units by table, by the rules that AWS publishes.

    capacity = Capacity(transport)
    store = stores.of("ann", transport=capacity)
    capacity.take()                     # what came before is not counted
    store.append(...)
    assert capacity.take() == Cost({"Query": 1, "PutItem": 1}, reads={"commits": 1}, writes={"commits": 1})
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from holdfast.dynamodb.transport import Answer, AttributeMap, Cancelled, Refused, Transport
from tests.memory_dynamodb.units import TRANSACTION, write_units
from tests.memory_dynamodb.values import kept_row

READS: Final = frozenset({"GetItem", "Query", "Scan", "BatchGetItem", "TransactGetItems"})


class Cost(msgspec.Struct, frozen=True):
    """Requests by operation, and units by table."""

    requests: Mapping[str, int]
    reads: Mapping[str, float]
    writes: Mapping[str, float]

    @property
    def read_units(self) -> float:
        return sum(self.reads.values())

    @property
    def write_units(self) -> float:
        return sum(self.writes.values())


class Capacity:
    """
    A transport that counts what goes through it.

    The units are those that the store reports. Of a write that is refused it reports nothing: that is counted by the
    item that stands in its way, and a cancelled transaction as if it had been carried out, which is the most it costs.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._begin()

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        with self._lock:
            self._requests[operation] += 1
        try:
            answer = self._inner.call(operation, {"ReturnConsumedCapacity": "TOTAL", **request})
        except Refused as refused:
            self._count(self._writes, request["TableName"], write_units(_size(refused.item)))
            raise
        except Cancelled as cancelled:
            for table, size in _sizes(request, cancelled):
                self._count(self._writes, table, TRANSACTION * write_units(size))
            raise
        consumed = answer.body.get("ConsumedCapacity", ())
        for each in [consumed] if isinstance(consumed, Mapping) else consumed:
            # A transaction that was done before reads what it would have written.
            is_read = operation in READS or "ReadCapacityUnits" in each
            self._count(self._reads if is_read else self._writes, each["TableName"], each["CapacityUnits"])
        return answer

    def take(self) -> Cost:
        """Give what was counted since the last time, and count anew."""
        with self._lock:
            cost = Cost(dict(self._requests), dict(self._reads), dict(self._writes))
            self._begin()
        return cost

    def _begin(self) -> None:
        self._requests: Counter[str] = Counter()
        self._reads: dict[str, float] = defaultdict(float)
        self._writes: dict[str, float] = defaultdict(float)

    def _count(self, units: dict[str, float], table: str, more: float) -> None:
        with self._lock:
            units[table] += more


def _sizes(request: Mapping[str, Any], cancelled: Cancelled) -> Iterator[tuple[str, int]]:
    """Give table and size of each action, as far as the request and the refusal tell it."""
    for action, reason in zip(request["TransactItems"], cancelled.reasons, strict=True):
        (content,) = action.values()
        yield content["TableName"], max(_size(content.get("Item")), _size(reason.item))


def _size(item: AttributeMap | None) -> int:
    return kept_row(item).size if item else 0
