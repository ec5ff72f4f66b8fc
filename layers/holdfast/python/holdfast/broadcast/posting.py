"""
Frames, and the door they leave by: API Gateway's management API.

A frame holds one message or several, a line of JSON each: API Gateway charges and delivers by the frame, and a hundred
small events in one cost what one does.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from threading import Lock
from typing import Any, Final, Protocol

from holdfast.aws import client
from holdfast.clock import Clock
from holdfast.retry import Budget, repeat

FRAME_BYTES_MAX: Final = 32 * 1024
"""What one frame joins: API Gateway's frame, and its unit of charge."""
MESSAGE_BYTES_MAX: Final = 128 * 1024
"""The largest message that API Gateway passes on; it cuts one over 32 KB into frames by itself."""
POSTS: Final = Budget(attempts_max=3, seconds_max=3.0, first_wait_seconds=0.05)
"""How often and how long one frame is offered: 9 s at most, its last attempt included (`holdfast.aws`)."""


class Gone(Exception):
    """The connection has ended."""


class Undelivered(Exception):
    """The frame was not taken, or nobody said so; the connection may be there all the same."""


class Post(Protocol):
    """What connections are reached by; called from several threads."""

    def send(self, connection_id: str, frame: bytes) -> None:
        """
        Have *frame* taken for delivery; it may be delivered twice.

        Raises:
            Gone: there is no such connection any more.
            Undelivered: it was not taken within the budget.
        """

    def close(self, connection_id: str) -> None:
        """End a connection; one that has ended is no error."""


def frames(messages: Iterable[bytes]) -> Iterator[bytes]:
    """
    Join *messages*, a line each, into frames of up to FRAME_BYTES_MAX; a larger message travels alone.

    Raises:
        ValueError: a message is over MESSAGE_BYTES_MAX.
    """
    joined, size = list[bytes](), 0
    for message in messages:
        if len(message) > MESSAGE_BYTES_MAX:
            raise ValueError(
                f"A message of {len(message)} bytes is over the {MESSAGE_BYTES_MAX} that can be passed on."
            )
        if joined and size + 1 + len(message) > FRAME_BYTES_MAX:
            yield b"\n".join(joined)
            joined, size = [], 0
        size += len(message) + bool(joined)
        joined.append(message)
    if joined:
        yield b"\n".join(joined)


_making: Final = Lock()


class _Passing(Exception):
    """This attempt was not taken; another may be."""


@dataclass(frozen=True)
class ApiGatewayPost:
    """The management API of one WebSocket API's stage, at *endpoint_url*."""

    endpoint_url: str
    clock: Clock
    budget: Budget = POSTS

    def send(self, connection_id: str, frame: bytes) -> None:
        try:
            repeat(
                lambda: self._attempt("post_to_connection", ConnectionId=connection_id, Data=frame),
                on=_Passing,
                budget=self.budget,
                clock=self.clock,
            )
        except _Passing as error:
            raise Undelivered(f"{connection_id}: {error}") from error

    def close(self, connection_id: str) -> None:
        try:
            self._attempt("delete_connection", ConnectionId=connection_id)
        except (Gone, _Passing):
            # Whoever must not stay is also forgotten, and API Gateway ends every connection after two hours.
            return

    @property
    def _client(self) -> Any:
        # Using a client is safe in many threads; making one is not.
        with _making:
            return client("apigatewaymanagementapi", endpoint_url=self.endpoint_url)

    def _attempt(self, operation: str, **request: Any) -> None:
        from botocore import exceptions as failures  # noqa: PLC0415 - see holdfast.aws

        try:
            getattr(self._client, operation)(**request)
        except failures.ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status == HTTPStatus.GONE:
                raise Gone(request["ConnectionId"]) from error
            if status in {HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}:
                raise  # our rights, our frame: a fault of ours, which does not pass
            raise _Passing(f"HTTP {status}") from error
        except (failures.HTTPClientError, failures.ConnectionError) as error:
            raise _Passing(type(error).__name__) from error
