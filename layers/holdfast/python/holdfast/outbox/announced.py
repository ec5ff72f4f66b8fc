"""How far numbered things were told of: what was made before a crash is told of after it."""

from dataclasses import dataclass
from typing import Final

from holdfast.dynamodb.reads import get
from holdfast.dynamodb.writes import Database, update_guarded
from holdfast.streams.companions import Change, Is, Missing, Row

TOLD_MAX: Final = 100
"""Told of in one call; the rest is for the next."""


@dataclass(frozen=True)
class Announced:
    """One row that says up to which number, from 1 without gaps, something was told of."""

    database: Database
    table: str
    pk: str
    sk: str | int

    def untold(self, until: int) -> range:
        """Name the numbers up to *until* that are to be told of next, in order."""
        told = self._number()
        return range(told + 1, min(until, told + TOLD_MAX) + 1)

    def tell(self, number: int) -> None:
        """Remember that everything up to *number* was told of; somebody else may have come further."""
        told = self._number()

        def is_applied(row: Row) -> bool:
            return bool(row["told"] >= number)

        if number > told:
            change = Change(
                {"pk": self.pk, "sk": self.sk},
                (Is("told", told) if told else Missing("told"),),
                set={"told": number},
            )
            update_guarded(self.database, change, table=self.table, is_applied=is_applied)

    def _number(self) -> int:
        row = get(self.database, self.table, self.pk, self.sk)
        return row["told"] if row else 0
