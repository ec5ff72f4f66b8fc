"""
WebSockets through the gateway: a client's connection and the engine's, tied together.

The client is let in only after the engine has been, so a refusal is still an HTTP answer. Then messages pass both
ways as they come, and whichever side ends takes the other with it. API Gateway's quotas are kept, which the engine
does not.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

MESSAGE_BYTES_MAX: Final = 128 * 1024
"""API Gateway's quota of a message."""
IDLE_SECONDS_MAX: Final = 600.0
"""API Gateway ends a connection on which nothing passes, either way."""
LIFE_SECONDS_MAX: Final = 2 * 3_600.0
"""API Gateway ends every connection then."""
CONNECTIONS_MAX: Final = 256
"""At the same time; more are refused."""
OPEN_SECONDS_MAX: Final = 30.0
"""The function that is asked on connecting has API Gateway's 29 s."""
CLOSE_SECONDS_MAX: Final = 2.0
"""How long an end waits for the other side's word."""

_TOO_LARGE = MESSAGE_BYTES_MAX + 1
"""aiohttp refuses a message of the size that it is given."""
_SIDES = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)

_log = logging.getLogger(__name__)

Refuse = Callable[[int, str, str], web.StreamResponse]
"""Makes the answer to a handshake that fails: status, code, and a sentence."""


def wants_websocket(request: web.BaseRequest) -> bool:
    """Tell an opening handshake (RFC 6455, section 4.1) from a plain request."""
    upgrade = request.headers.get("Upgrade", "").lower()
    return request.method == "GET" and upgrade == "websocket"


class WebsocketProxy:
    """All WebSockets of one gateway."""

    def __init__(self) -> None:
        self._open: set[web.WebSocketResponse] = set()

    async def pass_on(
        self, request: web.BaseRequest, target: str, session: aiohttp.ClientSession, refuse: Refuse
    ) -> web.StreamResponse:
        """Tie *request*'s connection to the engine's WebSocket at *target*, until one of them ends."""
        if not wants_websocket(request):
            return refuse(426, "websocket_required", "Open this address as a WebSocket.")
        if len(self._open) >= CONNECTIONS_MAX:
            return refuse(429, "throttled", f"{CONNECTIONS_MAX} WebSockets are open, and no more are taken.")
        client = web.WebSocketResponse(max_msg_size=_TOO_LARGE, timeout=CLOSE_SECONDS_MAX, compress=False)
        self._open.add(client)
        try:
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                engine = await session.ws_connect(
                    URL(target, encoded=True),
                    max_msg_size=_TOO_LARGE,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS_MAX),
                )
        except aiohttp.WSServerHandshakeError as error:
            self._open.discard(client)
            return refuse(error.status, "websocket_refused", "The service refused this WebSocket: is the ticket good?")
        except (aiohttp.ClientError, TimeoutError):
            self._open.discard(client)
            return refuse(503, "engine_unavailable", "The local engine did not open the WebSocket.")
        try:
            await client.prepare(request)
            await _tie(client, engine)
        except ConnectionError:
            _log.debug("A WebSocket broke off.", exc_info=True)
        finally:
            self._open.discard(client)
            await _close(engine.close, 1001)
            await _close(client.close, 1001)
        return client

    async def close(self) -> None:
        """End all connections: the gateway stops."""
        await asyncio.gather(*(_close(client.close, 1001) for client in tuple(self._open) if client.prepared))


async def _tie(client: web.WebSocketResponse, engine: aiohttp.ClientWebSocketResponse) -> None:
    """Pass messages both ways until a side ends, or time does; the other side is told the same code."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + LIFE_SECONDS_MAX

    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(contextlib.suppress(TimeoutError))
        patience = await stack.enter_async_context(asyncio.timeout(IDLE_SECONDS_MAX))

        async def pass_on(
            receive: Callable[[], Awaitable[aiohttp.WSMessage]],
            send_text: Callable[[str], Awaitable[None]],
            send_bytes: Callable[[bytes], Awaitable[None]],
        ) -> None:
            while (message := await receive()).type in _SIDES:
                patience.reschedule(min(loop.time() + IDLE_SECONDS_MAX, ends_at))
                if message.type is aiohttp.WSMsgType.TEXT:
                    await send_text(message.data)
                else:
                    await send_bytes(message.data)

        ways = {
            asyncio.create_task(pass_on(client.receive, engine.send_str, engine.send_bytes)),
            asyncio.create_task(pass_on(engine.receive, client.send_str, client.send_bytes)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
    code = client.close_code or engine.close_code or 1001
    await _close(engine.close, code)
    await _close(client.close, code)


async def _close(close: Callable[..., Awaitable[bool]], code: int) -> None:
    # 1005 and 1006 are what nobody said (RFC 6455, section 7.4.1): they cannot be sent.
    with contextlib.suppress(ConnectionError, RuntimeError, TimeoutError):
        await close(code=1001 if code in {1005, 1006} else code)
