"""Where views, their generations and their checkpoints lie in the table `views`."""

from datetime import datetime
from typing import Any

import msgspec

from holdfast.clock import from_micros, to_micros
from holdfast.log.values import SOLE
from holdfast.projections.batches import Parked
from holdfast.projections.views import Attributes, Checkpoint, Key, Tally

FIRST_GENERATION = 1


class Generation(msgspec.Struct, frozen=True):
    """One building of a view for one tenant. A view is rebuilt beside itself, as the next generation."""

    view: str
    number: int
    tenant: str


class Pointer(msgspec.Struct, frozen=True):
    """Which generation of a view is live for a tenant, and which others there are."""

    live: int = FIRST_GENERATION
    version: int = 1
    """Of the view that built the live generation."""
    newest: int = FIRST_GENERATION
    rebuild_id: str = ""
    """The rebuild that runs; empty if none does."""
    effects_from: tuple[int, ...] = ()
    """By partition, the position up to which the live generation's effects have been."""
    kept: tuple[tuple[int, int], ...] = ()
    """Generations that are not live, each with the time (in microseconds) until which it is kept."""
    going: tuple[int, ...] = ()
    """Generations that are being removed: nobody comes back to them."""
    turns: int = 0
    """How often it was changed: what every change is guarded by."""

    def effects_begin(self, partition: int) -> int:
        """Say up to which position of a partition the effects have been."""
        return self.effects_from[partition] if self.effects_from else 0


def is_there(pointer: Pointer, number: int) -> bool:
    """Tell whether a generation can be read: it is live, kept, or being made."""
    is_being_made = bool(pointer.rebuild_id) and number == pointer.newest
    return number == pointer.live or is_being_made or number in dict(pointer.kept)


def row_key(generation: Generation, key: Key) -> tuple[str, str]:
    return f"V#{generation.view}#{generation.number}#{generation.tenant}#{key.pk}", key.sk


def checkpoint_key(generation: Generation, partition: int) -> tuple[str, str]:
    return f"P#{generation.view}#{generation.number}#{generation.tenant}#{partition}", SOLE


def parked_key(generation: Generation, partition: int) -> str:
    return f"X#{generation.view}#{generation.number}#{generation.tenant}#{partition}"


def pointer_key(view: str, tenant: str) -> tuple[str, str]:
    return f"P#{view}#{tenant}", SOLE


def attributes_of(row: dict[str, Any]) -> Attributes:
    """Take a view's own attributes out of a row."""
    return {name: value for name, value in row.items() if name not in ("pk", "sk")}


def checkpoint_row(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "pos": checkpoint.position,
        "rows": checkpoint.tally.rows,
        "digest": checkpoint.tally.digest,
        "rt": to_micros(checkpoint.recorded_at),
        "tlo": _micros(checkpoint.earliest),
        "thi": _micros(checkpoint.latest),
        "parked": checkpoint.parked,
    }


def checkpoint_of(row: dict[str, Any] | None) -> Checkpoint:
    if row is None:
        return Checkpoint()
    return Checkpoint(
        position=row["pos"],
        tally=Tally(row["rows"], row["digest"]),
        recorded_at=from_micros(row["rt"]),
        earliest=_moment(row["tlo"]),
        latest=_moment(row["thi"]),
        parked=row["parked"],
    )


def pointer_of(row: dict[str, Any] | None) -> Pointer:
    if row is None:
        return Pointer()
    return Pointer(
        live=row["live"],
        version=row["version"],
        newest=row["newest"],
        rebuild_id=row["rebuild_id"],
        effects_from=tuple(row["effects_from"]),
        kept=tuple((number, until) for number, until in row["kept"]),
        going=tuple(row["going"]),
        turns=row["turns"],
    )


def pointer_row(pointer: Pointer) -> dict[str, Any]:
    return msgspec.structs.asdict(pointer)


def parked_row(generation: Generation, parked: Parked) -> dict[str, Any]:
    return {
        "pk": parked_key(generation, parked.partition),
        "sk": parked.stream,
        "v": parked.version,
        "pos": parked.position,
        "reason": parked.reason,
    }


def parked_of(row: dict[str, Any], partition: int) -> Parked:
    return Parked(partition, row["sk"], row["v"], row["pos"], row["reason"])


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else to_micros(moment)


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
