"""Data keys in a process's memory: few, and none that is used for long."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from holdfast.clock import Clock, Instant
from holdfast.envelope import DataKey
from holdfast.sealing import Erased

KEY_AGE_MAX: Final = timedelta(seconds=60)
"""How long a key that was read may be used, by the larger of wall and monotonic time."""
KEYS_CACHED_MAX: Final = 1_000
"""Keys in the memory of one process."""


@dataclass(frozen=True)
class KeyCache:
    """
    Keys in this process's memory, for use within KEY_AGE_MAX; one serves the subjects of every tenant.

    What is older goes with the next call that meets it. No timer runs: a sandbox that is idle stands still.
    """

    clock: Clock
    _known: OrderedDict[tuple[str, str], tuple[Instant, DataKey | Erased]] = field(
        default_factory=OrderedDict, repr=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def instant(self) -> Instant:
        """Say when something is asked for: the answer is no younger, however late it comes."""
        return Instant.of(self.clock)

    def get(self, tenant: str, subject: str) -> DataKey | Erased | None:
        with self._lock:
            asked_at, key = self._known.get((tenant, subject), (None, None))
            if asked_at is None or self._is_fresh(asked_at):
                return key
            del self._known[tenant, subject]
            return None

    def put(self, tenant: str, subject: str, key: DataKey | Erased, asked_at: Instant) -> None:
        with self._lock:
            self._known[tenant, subject] = asked_at, key
            self._known.move_to_end((tenant, subject))
            # The oldest come first; none stays for the sole reason that nobody asks for it.
            while self._known:
                oldest = next(iter(self._known))
                if len(self._known) <= KEYS_CACHED_MAX and self._is_fresh(self._known[oldest][0]):
                    return
                del self._known[oldest]

    def forget(self, tenant: str, subject: str) -> None:
        with self._lock:
            self._known.pop((tenant, subject), None)

    def _is_fresh(self, asked_at: Instant) -> bool:
        return asked_at.age_seconds(self.clock) <= KEY_AGE_MAX.total_seconds()
