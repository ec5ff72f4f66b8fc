"""What a tenant has turned on, and what a change of it writes. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from holdfast.clock import from_micros, to_micros
from holdfast.streams.companions import Is, Missing, Row, Update

ROLE: Final = "switches"
"""The role under which a companion names the table (`Tables.companions`)."""


class Switched(msgspec.Struct, frozen=True):
    """What a tenant has turned on."""

    on: frozenset[str] = frozenset()
    version: int = 0
    changed_at: datetime | None = None
    changed_by: str | None = None


def turned(before: Switched, wish: Mapping[str, bool], *, by: str, now: datetime) -> Switched:
    """Turn switches on and off; what is so already changes nothing."""
    added = {name for name, is_on in wish.items() if is_on}
    on = (before.on | added) - (wish.keys() - added)
    return before if on == before.on else Switched(on, before.version + 1, now, by)


def change(tenant: str, before: Switched, after: Switched) -> Update:
    """Write a change as the companion of the event that tells of it."""
    return Update(
        table=ROLE,
        key=key_of(tenant),
        when=(Is("v", before.version) if before.version else Missing("v"),),
        set={
            "v": after.version,
            "on": sorted(after.on),
            "at": to_micros(after.changed_at) if after.changed_at else 0,
            "by": after.changed_by,
        },
    )


def key_of(tenant: str) -> dict[str, Any]:
    return {"pk": f"SW#{tenant}", "sk": 0}


def switched_of(row: Row | None) -> Switched:
    if row is None:
        return Switched()
    return Switched(frozenset(row["on"]), row["v"], from_micros(row["at"]), row["by"])
