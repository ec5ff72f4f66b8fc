"""What wakes a function: records of a table's stream and messages of a queue, read as the hints that they are. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from holdfast.log.indexer import Hint

COMMIT: Final = "S"
SEGMENT: Final = "L"

SECONDS_MAX: Final = 20.0
"""How long a triggered function goes on with one call, where its time-out is not told."""
MARGIN_SECONDS: Final = 8.0
"""Left of a function's time for the attempt that is on its way when time is over."""


def commit_hints(event: Mapping[str, Any]) -> Iterator[Hint]:
    """Read which streams have grown out of records of a commits table."""
    for keys in _keys(event):
        kind, tenant, stream = keys["pk"]["S"].split("#", 2)
        if kind == COMMIT:
            yield Hint(tenant, stream, int(keys["sk"]["N"]))


def grown_partitions(event: Mapping[str, Any]) -> set[tuple[str, int]]:
    """Read which partitions of whose log have grown out of records of a log table."""
    return {(tenant, partition) for tenant, partition, _ in segments(event)}


def segments(event: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Read the segments that were written, as (tenant, partition, last position)."""
    for keys in _keys(event):
        kind, *rest = keys["pk"]["S"].split("#")
        if kind == SEGMENT:
            tenant, partition = rest
            yield tenant, int(partition), int(keys["sk"]["S"])


def _keys(event: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for record in event.get("Records", ()):
        if record.get("eventName") != "REMOVE":
            yield record["dynamodb"]["Keys"]


def seconds_for(context: Any) -> float:
    """Say how long a function may go on beginning attempts."""
    if context is None:
        return SECONDS_MAX
    remaining_ms: int = context.get_remaining_time_in_millis()
    return max(0.0, remaining_ms / 1_000 - MARGIN_SECONDS)
