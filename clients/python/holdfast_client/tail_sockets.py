"""WebSockets for a tail, by the `websockets` package: one that blocks, and one that is awaited."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from holdfast_client.transport import trusts_environment

OPEN_SECONDS_MAX: Final = 10.0
CLOSE_SECONDS_MAX: Final = 1.0
MESSAGE_BYTES_MAX: Final = 1024 * 1024
"""Far over API Gateway's 128 KB: only a bound."""


class Ended(Exception):
    """The connection has ended, whyever."""


class Socket(Protocol):
    """An open WebSocket."""

    def send(self, text: str) -> None:
        """
        Send one message.

        Raises:
            Ended: it cannot be sent.
        """

    def receive(self, seconds: float) -> str | None:
        """
        Wait for a message; None if none came in time.

        Raises:
            Ended: none will.
        """

    def close(self) -> None: ...


def open_websocket(url: str) -> Socket:
    """
    Open a WebSocket.

    Raises:
        Ended: it is refused, cannot be reached, or the package is not installed.
    """
    with _told():
        from websockets.sync.client import connect  # noqa: PLC0415 - only a tail needs it

        closing_all = ExitStack()
        return _Websocket(closing_all.enter_context(connect(url, **_settings(url))), closing_all.close)


async def open_async_websocket(url: str) -> "_AsyncWebsocket":
    with _told():
        from websockets.asyncio.client import connect  # noqa: PLC0415 - only a tail needs it

        closing_all = AsyncExitStack()
        return _AsyncWebsocket(
            await closing_all.enter_async_context(connect(url, **_settings(url))), closing_all.aclose
        )


def _settings(url: str) -> dict[str, Any]:
    return {
        "open_timeout": OPEN_SECONDS_MAX,
        "close_timeout": CLOSE_SECONDS_MAX,
        # API Gateway answers our own pings; the protocol's would only cost.
        "ping_interval": None,
        "max_size": MESSAGE_BYTES_MAX,
        "proxy": True if trusts_environment(url) else None,
    }


@contextmanager
def _told() -> Iterator[None]:
    """Tell whatever goes wrong with a connection as its end."""
    try:
        from websockets.exceptions import WebSocketException  # noqa: PLC0415 - only a tail needs it
    except ImportError as error:
        raise Ended("The package websockets is not installed.") from error
    try:
        yield
    except (WebSocketException, OSError, ValueError, ImportError) as error:
        raise Ended(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class _Websocket:
    """A connection that blocks."""

    connection: Any
    close_all: Callable[[], None]

    def send(self, text: str) -> None:
        with _told():
            self.connection.send(text)

    def receive(self, seconds: float) -> str | None:
        with _told():
            try:
                received: str = self.connection.recv(seconds, decode=True)
            except TimeoutError:
                return None
            return received

    def close(self) -> None:
        self.close_all()


@dataclass(frozen=True)
class _AsyncWebsocket:
    """A connection that is awaited."""

    connection: Any
    close_all: Callable[[], Awaitable[None]]

    async def send(self, text: str) -> None:
        with _told():
            await self.connection.send(text)

    async def receive(self, seconds: float) -> str | None:
        with _told():
            try:
                received: str = await asyncio.wait_for(self.connection.recv(decode=True), seconds)
            except TimeoutError:
                return None
            return received

    async def close(self) -> None:
        await self.close_all()
