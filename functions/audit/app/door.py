"""The app, and what its routes share: names and times as a caller writes them, errors, and the way to the services."""

import re
from datetime import datetime
from typing import Annotated, Final

import msgspec

from functions.audit import adapters, domain
from functions.audit.app.announcing import on_bug, tell_of_damage
from functions.audit.service import Asking, AuditTrail, Prover, ReadModels
from holdfast.clock import from_text
from holdfast.errors import Invalid
from holdfast.http import Api, Caller, Header
from holdfast.http.faults import WHOLE_NUMBER
from holdfast.snapshots import Snapshots
from holdfast.streams import check_stream

app = Api("audit", title="Holdfast audit trail", version="1", on_bug=on_bug)

PAGE_ITEMS_MAX: Final = 1_000

Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_ITEMS_MAX)]
Version = Annotated[int, msgspec.Meta(ge=0, le=domain.VERSION_MAX)]
Generation = Annotated[int, msgspec.Meta(ge=1, le=domain.VERSION_MAX)]

STORE_UNAVAILABLE: Final = ("store_unavailable", "clock_skew")
"""Of every call to the store: nobody answers, or it refuses a machine whose clock is wrong."""
STORE_ERRORS = {429: ["store_throttled"], 503: [*STORE_UNAVAILABLE]}
OPENING_ERRORS = {429: ["store_throttled"], 503: [*STORE_UNAVAILABLE, "keys_unavailable", "not_recorded"]}
"""Of reads that open what is sealed, and may be recorded."""

WaitFor = Annotated[
    str | None,
    Header(
        "Holdfast-Wait-For",
        "`<stream>@<version>`: wait up to 5 s until the live view holds it.",
        {"type": "string", "pattern": "^.+@[0-9]{1,16}$"},
    ),
]

_WAIT_FOR = re.compile(r"(?P<stream>.+)@(?P<version>[0-9]{1,16})")


def trail(caller: Caller) -> AuditTrail:
    """Wire the service to the caller's own streams."""
    store = adapters.event_stores().of(caller.tenant, caller.subject)
    return AuditTrail(store, adapters.sealer_of(caller.tenant), snapshots(caller.tenant))


def snapshots(tenant: str) -> Snapshots:
    """Use a tenant's snapshots, and tell of those that are damaged."""
    return adapters.snapshots_of(tenant, lambda error: tell_of_damage(error, "snapshots", tenant))


def read_models(caller: Caller) -> ReadModels:
    return ReadModels(
        tenant=caller.tenant,
        views=adapters.views_of(caller.tenant),
        bodies=adapters.bodies_of(caller.tenant),
        cursors=adapters.cursors,
        now=adapters.database().clock.now,
    )


def prover(caller: Caller) -> Prover:
    return Prover(adapters.event_stores().of(caller.tenant, caller.subject), adapters.log_of(caller.tenant))


def stream_named(segment: str) -> str:
    """Read a stream's name from a path segment, where `~` stands for `/` (no name holds a `~`)."""
    return check_stream(segment.replace("~", "/"))


def moment(text: str | None, name: str) -> datetime | None:
    """
    Read a time out of a query or a body, in whose member *name* it stands.

    Raises:
        Invalid: `invalid_time`.
    """
    try:
        return None if text is None else from_text(text)
    except Invalid as error:
        raise Invalid(error.code, error.detail, pointer=f"/{name}") from error


def asking(wait_for: str | None, generation: int | None) -> Asking:
    """
    Read which generation of a view is meant, and which of the caller's own writes it must hold.

    Raises:
        Invalid: `invalid_wait_for`, `invalid_stream`.
    """
    if wait_for is None:
        return Asking(generation)
    match = _WAIT_FOR.fullmatch(wait_for)
    if not match or not WHOLE_NUMBER.fullmatch(match["version"]):
        raise Invalid("invalid_wait_for", "Write Holdfast-Wait-For: <stream>@<version>, like orders/42@3.")
    return Asking(generation, (stream_named(match["stream"]), int(match["version"])))
