"""The two drivers of a conversation, on httpx: one blocks, one awaits; neither decides anything."""

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx

from holdfast_client.conversation import Answer, Attempt, Budget, Call, NoAnswer, Outcome, Request
from holdfast_client.errors import Uncertain

T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 5.0
LIMITS = httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=5.0)

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""Only these say that the service cannot have seen the request."""
_THIS_MACHINE: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def trusts_environment(url: str) -> bool:
    """Say whether a proxy from the environment counts for *url*: none can reach the loopback of this machine."""
    return urlsplit(url).hostname not in _THIS_MACHINE


class Transport:
    """Calls that block."""

    def __init__(self, *, timeout_seconds: float, budget: Budget) -> None:
        self._clients: dict[bool, httpx.Client] = {}
        self._making = threading.Lock()
        self._timeout_seconds = timeout_seconds
        self._budget = budget

    def run(self, call: Call[T]) -> T:
        conversation = call.converse(self._budget)
        try:
            attempt = next(conversation)
            while True:
                time.sleep(attempt.after_seconds)
                attempt = conversation.send(self._send(attempt))
        except StopIteration as end:
            answer: T = end.value
            return answer
        except Uncertain as error:
            raise error.asked_again_by(lambda: self.run(call)) from error.last_failure

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _client(self, url: str) -> httpx.Client:
        trusts = trusts_environment(url)
        with self._making:
            if trusts not in self._clients:
                self._clients[trusts] = httpx.Client(limits=LIMITS, trust_env=trusts)
            return self._clients[trusts]

    def _send(self, attempt: Attempt) -> Outcome:
        seconds = min(self._timeout_seconds, attempt.seconds_max)
        ends_at = time.monotonic() + seconds
        try:
            with self._client(attempt.request.url).stream(**_sent(attempt.request, seconds)) as response:
                body = bytearray()
                for part in response.iter_bytes():
                    body += part
                    if time.monotonic() >= ends_at:
                        return _too_late(attempt.request, seconds)
                return _answer(response, bytes(body))
        except httpx.HTTPError as error:
            return _no_answer(attempt.request, error)


class AsyncTransport:
    """Calls that are awaited."""

    def __init__(self, *, timeout_seconds: float, budget: Budget) -> None:
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._timeout_seconds = timeout_seconds
        self._budget = budget

    async def run(self, call: Call[T]) -> T:
        conversation = call.converse(self._budget)
        try:
            attempt = next(conversation)
            while True:
                await asyncio.sleep(attempt.after_seconds)
                attempt = conversation.send(await self._send(attempt))
        except StopIteration as end:
            answer: T = end.value
            return answer
        except Uncertain as error:
            raise error.asked_again_by(lambda: self.run(call)) from error.last_failure

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def _client(self, url: str) -> httpx.AsyncClient:
        trusts = trusts_environment(url)
        if trusts not in self._clients:
            self._clients[trusts] = httpx.AsyncClient(limits=LIMITS, trust_env=trusts)
        return self._clients[trusts]

    async def _send(self, attempt: Attempt) -> Outcome:
        seconds = min(self._timeout_seconds, attempt.seconds_max)
        try:
            async with asyncio.timeout(seconds):
                response = await self._client(attempt.request.url).request(**_sent(attempt.request, seconds))
        except TimeoutError:
            return _too_late(attempt.request, seconds)
        except httpx.HTTPError as error:
            return _no_answer(attempt.request, error)
        return _answer(response, response.content)


def _sent(request: Request, seconds: float) -> dict[str, Any]:
    """Write a request as httpx takes it; no single wait in it is longer than *seconds*."""
    # A connection that is given up before all of the time is over is known to have carried nothing.
    connect_seconds = min(seconds / 2, CONNECT_TIMEOUT_SECONDS)
    return {
        "method": request.method,
        "url": request.url,
        "headers": dict(request.headers),
        "content": request.content,
        "timeout": httpx.Timeout(seconds, connect=connect_seconds),
    }


def _answer(response: httpx.Response, body: bytes) -> Answer:
    headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, body)


def _too_late(request: Request, seconds: float) -> NoAnswer:
    reason = f"No whole answer from {request.method} {request.url} within {seconds:.1f} s."
    return NoAnswer(reason, may_have_arrived=True)


def _no_answer(request: Request, error: httpx.HTTPError) -> NoAnswer:
    reason = (
        f"No answer from {request.method} {request.url}: {type(error).__name__}{f' ({error})' if str(error) else ''}."
    )
    return NoAnswer(reason, may_have_arrived=not isinstance(error, _NEVER_SENT))
