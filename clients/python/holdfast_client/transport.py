"""The two drivers of a conversation, on httpx: one blocks, one awaits; neither decides anything."""

import asyncio
import time
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from holdfast_client.conversation import Answer, Budget, Call, NoAnswer, Outcome, Request
from holdfast_client.errors import Uncertain

T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 5.0
LIMITS = httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=5.0)

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""Only these say that the service cannot have seen the request."""


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_TIMEOUT_SECONDS))


def _trusts_environment(url: str) -> bool:
    """A proxy from the environment is for other machines: it cannot reach this one's loopback."""
    return urlsplit(url).hostname not in {"127.0.0.1", "::1", "localhost"}


def _no_answer(request: Request, error: httpx.HTTPError) -> NoAnswer:
    reason = (
        f"No answer from {request.method} {request.url}: {type(error).__name__}{f' ({error})' if str(error) else ''}."
    )
    return NoAnswer(reason, may_have_arrived=not isinstance(error, _NEVER_SENT))


def _answer(response: httpx.Response) -> Answer:
    headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content)


class Transport:
    """Calls that block."""

    def __init__(self, url: str, *, timeout_seconds: float, budget: Budget) -> None:
        self._http = httpx.Client(timeout=_timeout(timeout_seconds), limits=LIMITS, trust_env=_trusts_environment(url))
        self._budget = budget

    def run(self, call: Call[T]) -> T:
        conversation = call.converse(self._budget)
        try:
            attempt = next(conversation)
            while True:
                time.sleep(attempt.after_seconds)
                attempt = conversation.send(self._send(attempt.request))
        except StopIteration as end:
            answer: T = end.value
            return answer
        except Uncertain as error:
            raise error.asked_again_by(lambda: self.run(call)) from error.last_failure

    def close(self) -> None:
        self._http.close()

    def _send(self, request: Request) -> Outcome:
        try:
            return _answer(
                self._http.request(request.method, request.url, headers=dict(request.headers), content=request.content)
            )
        except httpx.HTTPError as error:
            return _no_answer(request, error)


class AsyncTransport:
    """Calls that are awaited."""

    def __init__(self, url: str, *, timeout_seconds: float, budget: Budget) -> None:
        self._http = httpx.AsyncClient(
            timeout=_timeout(timeout_seconds), limits=LIMITS, trust_env=_trusts_environment(url)
        )
        self._budget = budget

    async def run(self, call: Call[T]) -> T:
        conversation = call.converse(self._budget)
        try:
            attempt = next(conversation)
            while True:
                await asyncio.sleep(attempt.after_seconds)
                attempt = conversation.send(await self._send(attempt.request))
        except StopIteration as end:
            answer: T = end.value
            return answer
        except Uncertain as error:
            raise error.asked_again_by(lambda: self.run(call)) from error.last_failure

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, request: Request) -> Outcome:
        try:
            return _answer(
                await self._http.request(
                    request.method, request.url, headers=dict(request.headers), content=request.content
                )
            )
        except httpx.HTTPError as error:
            return _no_answer(request, error)
