"""Reading what tenants have turned on, and remembering it for a while."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from holdfast.clock import Instant
from holdfast.dynamodb.reads import get
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database
from holdfast.switches.values import Switched, key_of, switched_of

KNOWN_FOR: Final = timedelta(seconds=30)
"""How long what was read counts as known, by the larger of wall and monotonic time."""
TENANTS_KNOWN_MAX: Final = 1_000
"""Tenants in the memory of one process; when there are more, all are forgotten."""


@dataclass(frozen=True)
class Switches:
    """Every tenant's switches in one service; one for the whole process."""

    database: Database
    tables: Tables
    _known: dict[str, tuple[Instant, Switched]] = field(default_factory=dict)

    def known(self, tenant: str) -> Switched:
        """Say what is turned on, as it was KNOWN_FOR ago or later."""
        asked_at, switched = self._known.get(tenant, (None, None))
        if asked_at and switched and self._is_fresh(asked_at):
            return switched
        return self.now(tenant)

    def now(self, tenant: str) -> Switched:
        """Read what is turned on."""
        asked_at = Instant.of(self.database.clock)
        key = key_of(tenant)
        switched = switched_of(get(self.database, self.tables.operations, key["pk"], key["sk"]))
        if len(self._known) >= TENANTS_KNOWN_MAX:
            self._known.clear()
        self._known[tenant] = asked_at, switched
        return switched

    def _is_fresh(self, asked_at: Instant) -> bool:
        return asked_at.age_seconds(self.database.clock) <= KNOWN_FOR.total_seconds()
