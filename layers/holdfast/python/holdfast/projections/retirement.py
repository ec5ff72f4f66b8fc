"""
Retirement: generations that nobody can come back to leave the table.

A generation that was replaced, given up, or made to look at the past is kept for a week. Then its rows go: all that
bear its name, whatever code wrote them. They are found by walking over the table in slices, each of which may be the
last; a pass takes with it every generation that was due when it began. While none is due nothing is walked over.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from holdfast.clock import to_micros
from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.dynamodb.batches import delete_many, put_many
from holdfast.dynamodb.reads import Row, get
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database, update_guarded
from holdfast.log.values import SOLE
from holdfast.projections.rows import Generation, Pointer, pointer_key, pointer_of, pointer_row
from holdfast.streams.companions import Change, Is

CURSOR_KEY: Final = "GC#cursor"
PAGES_MAX: Final = 10
"""Of 1 MB, in one call."""
OF_A_GENERATION: Final = ("V", "P", "X")
"""Rows, checkpoints and parked streams: the kinds of keys that name view, number and tenant."""
PARTS: Final = 5
GENERATIONS_MAX: Final = 500
"""Taken along by one pass."""


class Pass(msgspec.Struct, frozen=True):
    """A walk over the whole table, and what it takes along."""

    due: tuple[Generation, ...]
    start: Mapping[str, str] | None = None
    """Where it goes on; None where it begins, and where it has ended."""


@dataclass(frozen=True)
class Retirement:
    """The generations of one service's views that are no longer needed."""

    database: Database
    tables: Tables

    def due(self, pointers: Mapping[tuple[str, str], Pointer]) -> list[Generation]:
        """Name the generations whose time is over, by the pointers of (tenant, view)."""
        now = to_micros(self.database.clock.now())
        return [
            Generation(view, number, tenant)
            for (tenant, view), pointer in pointers.items()
            for number in (*pointer.going, *(number for number, until in pointer.kept if until <= now))
        ][:GENERATIONS_MAX]

    def walk(self, due: Iterable[Generation]) -> int:
        """
        Walk on over the table and remove what is due; return how many rows went.

        May be repeated, and stopped anywhere: what is gone is gone, and what is left is found by the next call.
        """
        standing = self._standing() or Pass(tuple(each for each in due if self._mark(each)))
        if not standing.due:
            return 0
        self._keep(standing)
        doomed, removed, start = set(standing.due), 0, standing.start
        for _ in range(PAGES_MAX):
            answer = self.database.read("Scan", self._request(start))
            keys = [(row["pk"], row["sk"]) for row in map(from_item, answer["Items"])]
            going = [key for key in keys if _generation_of(key[0]) in doomed]
            delete_many(self.database, self.tables.views, going)
            removed += len(going)
            start = from_item(answer["LastEvaluatedKey"]) if "LastEvaluatedKey" in answer else None
            if start is None:
                for generation in standing.due:
                    self._forget(generation)
                self._keep(Pass(()))
                return removed
            self._keep(Pass(standing.due, start))
        return removed

    def _request(self, start: Mapping[str, str] | None) -> Mapping[str, Any]:
        request: dict[str, Any] = {"TableName": self.tables.views, "ProjectionExpression": "pk, sk"}
        return request | {"ExclusiveStartKey": to_item(start)} if start else request

    def _mark(self, generation: Generation) -> bool:
        """Put a generation where nobody comes back to it; False if somebody has just done so."""
        pointer = self._pointer(generation.tenant, generation.view)
        if generation.number in pointer.going:
            return True
        kept = dict(pointer.kept)
        if kept.pop(generation.number, None) is None:
            return False
        going = (*pointer.going, generation.number)
        return self._turn(generation, pointer, msgspec.structs.replace(pointer, kept=tuple(kept.items()), going=going))

    def _forget(self, generation: Generation) -> None:
        """Take a generation off its pointer; if others change that meanwhile, the next pass does it."""
        pointer = self._pointer(generation.tenant, generation.view)
        going = tuple(number for number in pointer.going if number != generation.number)
        self._turn(generation, pointer, msgspec.structs.replace(pointer, going=going))

    def _turn(self, generation: Generation, before: Pointer, after: Pointer) -> bool:
        after = msgspec.structs.replace(after, turns=before.turns + 1)
        pk, sk = pointer_key(generation.view, generation.tenant)
        change = Change({"pk": pk, "sk": sk}, (Is("turns", before.turns),), set=pointer_row(after))
        return update_guarded(
            self.database, change, table=self.tables.views, is_applied=lambda row: pointer_of(dict(row)) == after
        )[0]

    def _pointer(self, tenant: str, view: str) -> Pointer:
        return pointer_of(get(self.database, self.tables.views, *pointer_key(view, tenant)))

    def _standing(self) -> Pass | None:
        row = get(self.database, self.tables.views, CURSOR_KEY, SOLE)
        found = msgspec.json.decode(row["doc"], type=Pass) if row else None
        return found if found and found.due else None

    def _keep(self, standing: Pass) -> None:
        # Where a walk stands is nobody's truth: losing it only walks over something again.
        row: Row = {"pk": CURSOR_KEY, "sk": SOLE, "doc": msgspec.json.encode(standing)}
        put_many(self.database, self.tables.views, [row])


def _generation_of(pk: str) -> Generation | None:
    """Read whose row it is; None if it is of no generation."""
    kind, *rest = pk.split("#", PARTS - 1)
    if kind not in OF_A_GENERATION or len(rest) < PARTS - 1 or not rest[1].isdecimal():
        return None
    view, number, tenant, _ = rest
    return Generation(view, int(number), tenant)
