"""Reads that are recorded before they are answered, where a tenant wants that; and the routes that turn that on."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from functions.audit import adapters, domain
from functions.audit.app.door import STORE_ERRORS, STORE_UNAVAILABLE, app
from functions.audit.service import Access, OnShow
from holdfast.clock import to_text
from holdfast.http import Caller
from holdfast.switches import Switched

H = TypeVar("H", bound=Callable[..., Any])

NAMES_OF_STREAMS: Final = ("stream", "prefix")
"""Parameters that name streams, in which a caller may write `~` for `/`."""


class SettingsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    record_reads: bool
    """Whether reads of history are themselves events, each in a stream `access/<day>/<request id>`."""


class SettingsAnswer(msgspec.Struct, frozen=True):
    record_reads: bool
    changed_at: str | None
    changed_by: str | None

    @classmethod
    def of(cls, switched: Switched) -> "SettingsAnswer":
        changed_at = to_text(switched.changed_at) if switched.changed_at else None
        return cls(domain.RECORD_READS in switched.on, changed_at, switched.changed_by)


CHANGE_ERRORS = {
    **STORE_ERRORS,
    503: [*STORE_UNAVAILABLE, "contended", "outcome_unknown", "boundary_expired"],
}


@app.get("/v1/settings", scope="audit:admin", raises=STORE_ERRORS)
def get_settings(caller: Caller) -> SettingsAnswer:
    """Say what is turned on for this tenant."""
    return SettingsAnswer.of(access(caller).settings())


@app.put("/v1/settings", scope="audit:admin", raises=CHANGE_ERRORS)
def put_settings(caller: Caller, body: SettingsBody) -> SettingsAnswer:
    """Turn the recording of reads on or off; it holds everywhere within 30 s, and is itself told as an event."""
    return SettingsAnswer.of(access(caller).turn(is_on=body.record_reads, by=caller.subject))


def recorded(what: str) -> Callable[[H], H]:
    """Have a handler's requests recorded before it is called; one that cannot be recorded is refused."""

    def wrap(handler: H) -> H:
        @functools.wraps(handler)
        def call(**arguments: Any) -> Any:
            record(arguments["caller"], what, _query(arguments))
            return handler(**arguments)

        return call  # type: ignore[return-value]  # it takes what the handler takes

    return wrap


def shows_winner(caller: Caller) -> OnShow | None:
    """Let the winner's events be shown to who may read them, and record that."""
    return functools.partial(record, caller, "winner") if "audit:read" in caller.scopes else None


def record(caller: Caller, what: str, query: Mapping[str, Any]) -> None:
    """
    Record that something is read, if the tenant wants that.

    Raises:
        Invalid: `event_too_large`.
        Unavailable: `not_recorded`.
    """
    access(caller).record(
        domain.Read(
            tenant=caller.tenant,
            reader=caller.subject,
            token_id=caller.jti,
            request_id=caller.request_id,
            what=what,
            query=query,
        )
    )


def access(caller: Caller) -> Access:
    store = adapters.event_stores().of(caller.tenant, caller.subject)
    return Access(store, adapters.switches(), caller.tenant, adapters.database().clock)


def _query(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write down what was asked: parameters of path and query, and what a body says, together."""
    asked = {name: value for name, value in arguments.items() if isinstance(value, str) and name != "key"}
    for part in ("query", "body"):
        said = msgspec.to_builtins(arguments.get(part, {}))
        asked |= {name: value for name, value in said.items() if value is not None}
    return asked | {name: asked[name].replace("~", "/") for name in NAMES_OF_STREAMS if name in asked}
