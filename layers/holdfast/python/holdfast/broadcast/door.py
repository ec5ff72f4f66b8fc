"""
The door: one Lambda function behind all routes of a WebSocket API.

It answers with a status and nothing else. What API Gateway would do with a body, or with an exception's text, differs
by route; what a client should hear is sent as a message.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

from holdfast import strict_json, telemetry
from holdfast.broadcast.connections import Broadcast, Connection, error_message
from holdfast.broadcast.posting import MESSAGE_BYTES_MAX
from holdfast.broadcast.tickets import Tickets
from holdfast.errors import Denied, Invalid, ServiceError
from holdfast.retry import deadline

ATTEMPTS_SECONDS_MAX: Final = 15.0
"""How long one invocation begins attempts: API Gateway waits 29 s, and the last attempt may take 6."""

Answer = dict[str, Any]


class Listener(Protocol):
    """What a service does with what its connections say."""

    def __call__(self, connection: Connection, message: Any, *, request_id: str) -> None:
        """
        Act on one message: any JSON value.

        Raises:
            ServiceError: told to the connection as a message of the type `error`.
        """


@dataclass(frozen=True)
class Door:
    """Let connections in by ticket, hand on what they say, and forget them when they leave."""

    tickets: Tickets
    broadcast: Broadcast
    listener: Listener
    on_bug: Callable[[Exception], None] = lambda _error: None
    """Told of what nobody foresaw."""

    def __call__(self, event: Mapping[str, Any], _context: Any = None) -> Answer:
        """Answer one event of API Gateway's; whatever happens inside, the answer is a bare status."""
        context = event["requestContext"]
        kind, connection_id = context["eventType"], context["connectionId"]
        status, code = HTTPStatus.INTERNAL_SERVER_ERROR, "internal"
        try:
            with deadline(ATTEMPTS_SECONDS_MAX, self.broadcast.database.clock):
                status, code = self._carry_out(kind, connection_id, event), ""
        except ServiceError as error:
            # The handshake's refusal is all a client sees of it; 403 is what API Gateway itself would say.
            status = HTTPStatus.FORBIDDEN if isinstance(error, Denied) else HTTPStatus(error.http_status)
            code = error.code
        except Exception as error:  # noqa: BLE001 - the last resort; logged with its traceback, answered without
            telemetry.logger().exception("a connection's event failed")
            self.on_bug(error)
        # At least one line per invocation: without one, the local engine waits 50 ms for it.
        telemetry.logger().info("answered", event=kind, connection_id=connection_id, status=int(status), code=code)
        telemetry.flush_metrics()
        return {"statusCode": int(status)}

    def _carry_out(self, kind: str, connection_id: str, event: Mapping[str, Any]) -> HTTPStatus:
        match kind:
            case "CONNECT":
                ticket = (event.get("queryStringParameters") or {}).get("ticket", "")
                principal = self.tickets.redeem(ticket, connection_id)
                self.broadcast.connect(connection_id, principal)
            case "DISCONNECT":
                self.broadcast.forget(connection_id)
            case _:
                self._hear(connection_id, event)
        return HTTPStatus.OK

    def _hear(self, connection_id: str, event: Mapping[str, Any]) -> None:
        connection = self.broadcast.connection(connection_id)
        if connection is None:
            # Its token is over, or it was let in by an attempt that then failed: it opens again with a new ticket.
            self.broadcast.close(connection_id)
            return
        request_id = event["requestContext"].get("requestId", "")
        try:
            self.listener(connection, _parsed(event), request_id=request_id)
        except ServiceError as error:
            telemetry.logger().info("refused", connection_id=connection_id, code=error.code)
            self.broadcast.send(connection, [error_message(error, request_id)])


def _parsed(event: Mapping[str, Any]) -> Any:
    body = event.get("body") or ""
    raw = body.encode()
    if event.get("isBase64Encoded") or len(raw) > MESSAGE_BYTES_MAX:
        raise Invalid("invalid_message", f"A message is JSON text of at most {MESSAGE_BYTES_MAX} bytes.")
    return strict_json.parse(raw)
