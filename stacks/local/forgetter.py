"""
Functions' logs, forgotten when they are old: the engine keeps every line in memory, and writes them all when it stops.

It makes a log stream of each invocation and heeds no retention. Functions that are ticked would fill it within days,
until writing its state takes longer than a stop may. So log streams go whole, the oldest first.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from stacks.local.clients import REFUSALS

KEPT_SECONDS: Final = 3 * 3_600.0
"""How long a line can be read: at about 40 KB a minute of ticks, some 7 MB."""
INTERVAL_SECONDS: Final = 60.0
DELETIONS_MAX: Final = 2_000
"""Log streams of one group that go in one round; the next goes on."""
GROUPS: Final = "/aws/lambda/"

_log = logging.getLogger(__name__)


class Forgetter:
    """Looks through the logs in one thread, until stopped."""

    def __init__(self, logs: Any, *, now: Callable[[], float] = time.time) -> None:
        self._logs = logs
        self._now = now
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log forgetter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Forget nothing more. A call that runs is waited for; it ends within the client's own time-out."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL_SECONDS):
            try:
                self.forget()
            except REFUSALS as error:
                # The next round does what this one could not.
                _log.warning("Old logs could not be deleted: %s", error)

    def forget(self) -> int:
        """Delete the log streams that ended more than KEPT_SECONDS ago; count them."""
        ended_before_ms = (self._now() - KEPT_SECONDS) * 1_000
        deleted = 0
        for group in self._groups():
            for stream in list(self._old(group, ended_before_ms)):
                if self._stopping.is_set():
                    return deleted
                self._logs.delete_log_stream(logGroupName=group, logStreamName=stream)
                deleted += 1
        return deleted

    def _groups(self) -> Iterator[str]:
        for page in self._logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=GROUPS):
            for group in page["logGroups"]:
                yield group["logGroupName"]

    def _old(self, group: str, ended_before_ms: float) -> Iterator[str]:
        """Give the names of a group's old log streams, the oldest first, within DELETIONS_MAX."""
        pages = self._logs.get_paginator("describe_log_streams").paginate(
            logGroupName=group, orderBy="LastEventTime", PaginationConfig={"MaxItems": DELETIONS_MAX}
        )
        for page in pages:
            for stream in page["logStreams"]:
                # One without any event is just being made.
                if stream.get("lastEventTimestamp", ended_before_ms) >= ended_before_ms:
                    return
                yield stream["logStreamName"]
