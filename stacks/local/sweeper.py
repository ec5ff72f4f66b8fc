"""
Rows past their time-to-live, deleted through the API so that streams hear of it.

The engine has a sweeper of its own, once a minute and without a stream record, so a table's TTL is left off
there and this one does the work. Like that of AWS it promises nothing about when: a deadline that matters is
checked in a condition. A row that was given more time between the look and the delete stays.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stacks.local.clients import REFUSALS
from stacks.local.profile import TtlAttribute

INTERVAL_SECONDS = 3.0
SHARE_MAX = 0.05
"""Of the time that may go into sweeping: a page costs the engine as much as its table is long, on its one thread."""
PAGES_MAX = 20
"""Pages (1 MB each) read of one table in one sweep; the next sweep goes on where this one stopped."""
EXPIRED_SECONDS_MAX = 5 * 365 * 86_400
"""What expired longer ago stays, as on AWS: it is likelier a mistaken unit than an old row."""

Key = dict[str, Any]

_log = logging.getLogger(__name__)


class Sweeper:
    """Sweeps any number of tables in one thread, until stopped."""

    def __init__(self, dynamodb: Any, *, now: Callable[[], float] = time.time) -> None:
        self._dynamodb = dynamodb
        self._now = now
        self._tables: tuple[TtlAttribute, ...] = ()
        self._positions: dict[str, Key] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ttl sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def watch(self, tables: Sequence[TtlAttribute]) -> None:
        """Sweep these tables and no others from now on."""
        self._tables = tuple(tables)

    def stop(self) -> None:
        """Sweep no more. A call that runs is waited for; it ends within the client's own time-out."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause_seconds = INTERVAL_SECONDS
        while not self._stopping.wait(pause_seconds):
            started = time.monotonic()
            for ttl in self._tables:
                try:
                    self.sweep(ttl)
                except REFUSALS as error:
                    # The next sweep does what this one could not; nothing depends on when.
                    _log.warning("The expired rows of %s could not be swept: %s", ttl.table, error)
            pause_seconds = pause_after(time.monotonic() - started)

    def sweep(self, ttl: TtlAttribute) -> int:
        """Delete the expired rows of one table, within PAGES_MAX pages; count them."""
        names = {"#ttl": ttl.attribute}
        deleted = 0
        for key, seen in self._expired(ttl):
            if self._stopping.is_set():
                break
            try:
                self._dynamodb.delete_item(
                    TableName=ttl.table,
                    Key=key,
                    ConditionExpression="#ttl = :seen",
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues={":seen": seen},
                )
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                continue
            deleted += 1
        return deleted

    def _expired(self, ttl: TtlAttribute) -> Iterator[tuple[Key, Any]]:
        """Give the keys of expired rows with the moment that each was seen to expire at."""
        now = int(self._now())
        table = self._dynamodb.describe_table(TableName=ttl.table)["Table"]
        key_names = [key["AttributeName"] for key in table["KeySchema"]]
        names = {"#ttl": ttl.attribute} | {f"#k{index}": name for index, name in enumerate(key_names)}
        for _ in range(PAGES_MAX):
            start = {"ExclusiveStartKey": self._positions[ttl.table]} if ttl.table in self._positions else {}
            page = self._dynamodb.scan(
                TableName=ttl.table,
                # A time that is not a number never expires; comparing it with one is false.
                FilterExpression="#ttl <= :now AND #ttl > :too_old",
                ProjectionExpression=", ".join(names),
                ExpressionAttributeNames=names,
                ExpressionAttributeValues={":now": {"N": str(now)}, ":too_old": {"N": str(now - EXPIRED_SECONDS_MAX)}},
                **start,
            )
            for row in page["Items"]:
                yield {name: row[name] for name in key_names}, row[ttl.attribute]
            if "LastEvaluatedKey" not in page:
                self._positions.pop(ttl.table, None)
                return
            self._positions[ttl.table] = page["LastEvaluatedKey"]


def pause_after(seconds: float) -> float:
    """Say how long to wait after a sweep that took so long, in seconds."""
    return max(INTERVAL_SECONDS, seconds / SHARE_MAX)
