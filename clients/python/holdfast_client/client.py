"""`Holdfast` and `AsyncHoldfast`: one address, one token, one typed attribute per service."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast_client.audit import AsyncAudit, Audit, AuditCalls
from holdfast_client.conversation import Budget
from holdfast_client.local import find_local_stack
from holdfast_client.transport import AsyncTransport, Transport

TIMEOUT_SECONDS = 30.0
"""How long one attempt may take: what API Gateway gives a function (29 s), and a little."""


class _Addresses:
    """Where the services of one installation are, and how to speak to them."""

    def __init__(self, url: str, token: str, services: Mapping[str, str] | None) -> None:
        self._url = url.rstrip("/")
        self._services = services or {}
        self._headers = {
            "authorization": f"Bearer {token}",
            "accept": "application/json",
            "user-agent": "holdfast-client/0.1.0",
        }

    def audit(self) -> AuditCalls:
        return AuditCalls(self._of("audit"), self._headers)

    def _of(self, service: str) -> str:
        return self._services.get(service, f"{self._url}/{service}")


class Holdfast:
    """
    A client of one Holdfast; safe to share between threads; close it, or use it in a `with`.

    *url* is the address that all services stand under; *services* gives those that stand elsewhere an
    address of their own. *timeout_seconds* bounds one attempt, *budget* the whole of a call: an attempt without a whole
    answer by then ends as a lost reply. A client that blocks looks at the clock when a part of the body has come, and
    waits as long for each at most; while the head of an answer drips in, it does not look.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        services: Mapping[str, str] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        budget: Budget | None = None,
    ) -> None:
        self._addresses = _Addresses(url, token, services)
        self._transport = Transport(timeout_seconds=timeout_seconds, budget=budget or Budget())

    @classmethod
    def local(cls, home: Path | None = None) -> Self:
        """
        Connect to what `./holdfast up` started.

        Raises:
            NotRunning: nothing runs; the error says what to type.
        """
        stack = find_local_stack(home)
        return cls(stack.url, stack.token, services=stack.services)

    @cached_property
    def audit(self) -> Audit:
        return Audit(self._addresses.audit(), self._transport)

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncHoldfast:
    """The same, awaited; every promise is that of `Holdfast`, and an attempt ends in time whatever its peer does."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        services: Mapping[str, str] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        budget: Budget | None = None,
    ) -> None:
        self._addresses = _Addresses(url, token, services)
        self._transport = AsyncTransport(timeout_seconds=timeout_seconds, budget=budget or Budget())

    @classmethod
    def local(cls, home: Path | None = None) -> Self:
        stack = find_local_stack(home)
        return cls(stack.url, stack.token, services=stack.services)

    @cached_property
    def audit(self) -> AsyncAudit:
        return AsyncAudit(self._addresses.audit(), self._transport)

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
