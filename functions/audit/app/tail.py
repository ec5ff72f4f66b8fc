"""The live tail: tickets over HTTP, and the WebSockets that they open."""

from collections.abc import Sequence
from typing import Any

import msgspec

from functions.audit import adapters
from functions.audit.app.announcing import on_bug
from functions.audit.app.door import STORE_ERRORS, STORE_UNAVAILABLE, app
from functions.audit.app.recording import record
from holdfast.auth import Principal
from holdfast.broadcast import TICKET_SECONDS, Connection
from holdfast.http import Caller, IdempotencyKey


class TicketAnswer(msgspec.Struct, frozen=True):
    ticket: str
    url: str
    """Where to connect, with the ticket in it."""
    expires_in: int
    """Seconds, or until the token expires if that is sooner. It opens one connection."""


TICKET_ERRORS = {**STORE_ERRORS, 503: [*STORE_UNAVAILABLE, "outcome_unknown"]}


@app.post("/v1/tickets", scope="audit:read", status=201, raises=TICKET_ERRORS)
def post_ticket(caller: Caller, key: IdempotencyKey | None) -> TicketAnswer:  # noqa: ARG001 - each call makes one
    """Make a ticket that opens one WebSocket with this caller's rights, to follow the log as it grows."""
    principal = Principal(caller.tenant, caller.subject, caller.scopes, caller.jti, caller.expires)
    ticket = adapters.tickets().issue(principal)
    return TicketAnswer(ticket, f"{adapters.websocket_url()}?ticket={ticket}", TICKET_SECONDS)


@app.lambda_function(name="Tail")
def tail(event: Any, context: Any) -> dict[str, Any]:
    """Answer one event of a WebSocket connection."""
    door = adapters.websocket_door(on_subscribe, lambda error: on_bug(error, "tail"))
    return door(event, context)


def on_subscribe(connection: Connection, prefix: str, positions: Sequence[int], request_id: str) -> None:
    """Record that somebody begins to listen, and to what."""
    caller = Caller(**msgspec.structs.asdict(connection.principal), request_id=request_id)
    after = {str(partition): position for partition, position in enumerate(positions)}
    record(caller, "tail", {"prefix": prefix, "after": after})
