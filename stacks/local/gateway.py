"""
One stable loopback address per service: `http://127.0.0.1:<port>/<service>/…`.

A reverse proxy in front of the engine's API Gateway, whose API ids change with deployments. What a client sent
is passed on as it came, the path to the byte; limits, time-outs and API Gateway's own failures are
answered as AWS would answer them, without the engine's insides.
"""

import asyncio
import contextlib
import io
import logging
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from stacks.local.errors import CannotStart
from stacks.local.processes import LOOPBACK
from stacks.local.websocket_proxy import WebsocketProxy
from stacks.template import GATEWAY_RESPONSES
from stacks.websockets import PATH as WEBSOCKET_PATH

BODY_BYTES_MAX = 10 * 1024 * 1024
"""API Gateway's payload quota."""
RESPONSE_SECONDS_MAX = 30.0
"""API Gateway's integration time-out is 29 s; this leaves a function's own answer at 29 s time to arrive."""
CONNECT_SECONDS_MAX = 2.0
CONNECTIONS_MAX = 256
"""To the engine; more requests wait for one of these."""
HEADER_BYTES_MAX = 10_240
"""API Gateway's quota of the request line and headers together; here, of each of them."""
START_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 5.0
"""How long requests that are being answered may go on when the gateway stops."""
CONTROL_PATH = "/_holdfast/"

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""What speaks of one connection and not of the message (RFC 9110 section 7.6.1)."""
SET_BY_US = frozenset({"host", "content-length", "expect", "forwarded"})
ENGINE_HEADERS = frozenset({"content-length", "server", "date"})
"""What the engine's server says about itself; ours says its own."""

SERVER_ERROR_MIN = 500
REPEATED = frozenset({429, 503})
"""Refusals of a WebSocket that pass by themselves."""
API_URL = re.compile(r"https?://(?P<api>[a-z0-9]+)\.execute-api\.[^/]+/(?P<stage>[^/]+)/?")

Control = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457 problem details, with the members that every Holdfast error has."""

    title: str
    status: int
    code: str
    detail: str
    retryable: bool = False
    request_id: str = msgspec.field(default_factory=lambda: str(uuid4()))

    @property
    def type(self) -> str:
        return f"urn:holdfast:problem:{self.code}"


def route(api_url: str, endpoint_url: str) -> str:
    """
    Turn a REST API's public address into the one under which the engine answers without DNS.

    Raises:
        ValueError: it is not the address of a REST API's stage.
    """
    found = API_URL.match(api_url)
    if found is None:
        raise ValueError(f"Not the address of a REST API's stage: {api_url}")
    return f"{endpoint_url}/restapis/{found['api']}/{found['stage']}/_user_request_"


class Gateway:
    """Listens on loopback in a thread of its own; `routes` may be changed while it runs."""

    def __init__(self, port: int, *, control: Mapping[str, Control] | None = None) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self.routes: Mapping[str, str] = {}
        """By service, the address that stands in for `/<service>`."""
        self.websockets: Mapping[str, str] = {}
        """By service, the address that stands in for `/<service>/ws`."""
        self._proxy = WebsocketProxy()
        self._port = port
        self._control = control or {}
        self._hosts = {f"{name}:{port}" for name in (LOOPBACK, "localhost")}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway", daemon=True)

    def start(self) -> None:
        """
        Listen.

        Raises:
            CannotStart: the port cannot be had.
        """
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(START_SECONDS_MAX)
        except OSError as error:
            self.stop()
            raise CannotStart(
                f"The gateway cannot listen on port {self._port}: {error.strerror}.",
                "Choose another: ./holdfast up --port 4700",
            ) from error

    def stop(self) -> None:
        """Listen no more, and let go; requests that are being answered have STOP_SECONDS_MAX."""
        if not self._thread.is_alive():
            return
        closing = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        with contextlib.suppress(TimeoutError):
            closing.result(2 * STOP_SECONDS_MAX)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
            timeout=aiohttp.ClientTimeout(total=RESPONSE_SECONDS_MAX, connect=CONNECT_SECONDS_MAX),
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        server = web.Server(
            self._answer,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            access_log=None,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=STOP_SECONDS_MAX)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self._port).start()

    async def _close(self) -> None:
        await self._proxy.close()
        await self._runner.cleanup()
        await self._session.close()

    # Answering

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        # A page in the developer's browser can point a name of its own at 127.0.0.1; its requests carry that name.
        if request.headers.get("Host", "") not in self._hosts:
            return _problem(
                Problem(
                    title="Misdirected Request",
                    status=421,
                    code="unknown_host",
                    detail=f"This address answers to {' and '.join(sorted(self._hosts))} only.",
                )
            )
        path, _, query = request.raw_path.partition("?")
        if path == "/":
            return self._index()
        if path.startswith(CONTROL_PATH):
            return await self._run_control(path.removeprefix(CONTROL_PATH), request)
        _, service, *rest = path.split("/", 2)
        if rest == [WEBSOCKET_PATH] and service in self.websockets:
            target = f"{self.websockets[service]}?{query}"
            return await self._proxy.pass_on(request, target, self._session, _refusal)
        upstream = self.routes.get(service)
        if upstream is None:
            return self._unknown_service()
        target = f"{upstream}/{rest[0] if rest else ''}" + (f"?{query}" if query else "")
        return await self._pass_on(request, target)

    def _index(self) -> web.Response:
        services = {name: {"url": f"{self.url}/{name}"} for name in sorted(self.routes)}
        return web.json_response({"services": services})

    def _unknown_service(self) -> web.Response:
        known = ", ".join(f"/{name}" for name in sorted(self.routes)) or "none yet: the stack is starting"
        return _problem(
            Problem(title="Not Found", status=404, code="unknown_service", detail=f"The services here are {known}.")
        )

    async def _run_control(self, name: str, request: web.BaseRequest) -> web.StreamResponse:
        action = self._control.get(name)
        if action is None:
            return self._unknown_service()
        return await action(request)

    async def _pass_on(self, request: web.BaseRequest, target: str) -> web.Response:
        body = await _bounded_body(request)
        if body is None:
            return _problem(
                Problem(
                    title="Content Too Large",
                    status=413,
                    code="body_too_large",
                    detail=f"A request body may hold {BODY_BYTES_MAX} bytes.",
                )
            )
        try:
            async with self._session.request(
                request.method,
                # Encoded already: a reading and writing of it would change `~`, `%2F` and the like.
                URL(target, encoded=True),
                headers=self._request_headers(request),
                data=io.BytesIO(body) if body else None,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            ) as answer:
                return _as_aws_would(answer.status, answer.headers, await answer.read())
        except aiohttp.ClientConnectorError:
            return _problem(
                Problem(
                    title="Service Unavailable",
                    status=503,
                    code="engine_unavailable",
                    detail="The local engine is not running, and nothing happened. See: ./holdfast status",
                    retryable=True,
                )
            )
        except TimeoutError:
            return _problem(
                Problem(
                    title="Gateway Timeout",
                    status=504,
                    code="integration_timeout",
                    detail=f"The function did not answer within {RESPONSE_SECONDS_MAX:.0f} s. It may have done its "
                    "work: repeat with the same Idempotency-Key.",
                    retryable=True,
                )
            )
        except aiohttp.ClientError:
            _log.warning("The engine broke off while answering %s %s.", request.method, request.path)
            return _problem(
                Problem(
                    title="Service Unavailable",
                    status=503,
                    code="engine_unavailable",
                    detail="The local engine broke off while answering. It may have done its work: repeat with the "
                    "same Idempotency-Key.",
                    retryable=True,
                )
            )

    def _request_headers(self, request: web.BaseRequest) -> list[tuple[str, str]]:
        dropped = HOP_BY_HOP | SET_BY_US | _named_by_connection(request.headers)
        passed = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in dropped and not name.lower().startswith("x-forwarded-")
        ]
        # What API Gateway tells a function about the caller.
        forwarded = [
            ("X-Forwarded-For", request.remote or LOOPBACK),
            ("X-Forwarded-Port", str(self._port)),
            ("X-Forwarded-Proto", "http"),
        ]
        return passed + forwarded


async def _bounded_body(request: web.BaseRequest) -> bytes | None:
    """Read the body whole, as API Gateway does; None if it is over the quota, whatever its header claims."""
    if (request.content_length or 0) > BODY_BYTES_MAX:
        return None
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The interim answer is not part of the one that follows.
        request.writer.output_size = 0
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            return None
    return bytes(body)


def _as_aws_would(status: int, headers: Mapping[str, str], body: bytes) -> web.Response:
    if status >= SERVER_ERROR_MIN and _is_engines_own(headers.get("Content-Type", ""), body):
        # Where a function failed, the engine shows its exception. API Gateway answers what our templates tell it to.
        answer, code, retryable, detail = GATEWAY_RESPONSES["DEFAULT_5XX"]
        return _problem(Problem(title="Bad Gateway", status=answer, code=code, detail=detail, retryable=retryable))
    dropped = HOP_BY_HOP | ENGINE_HEADERS | _named_by_connection(headers)
    response = web.Response(status=status, body=body)
    # A function's own answer may carry none; aiohttp would invent one.
    response.headers.pop("Content-Type", None)
    for name, value in headers.items():
        if name.lower() not in dropped:
            response.headers.add(name, value)
    return response


def _is_engines_own(content_type: str, body: bytes) -> bool:
    """Tell an answer of the engine from a function's: ours are problem+json, API Gateway's hold one message."""
    if not content_type.startswith("application/json"):
        return False
    try:
        return set(msgspec.json.decode(body, type=dict[str, Any])) == {"message"}
    except msgspec.DecodeError:
        return False


def _named_by_connection(headers: Mapping[str, str]) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in headers.get("Connection", "").split(","))


def _refusal(status: int, code: str, detail: str) -> web.Response:
    title = HTTPStatus(status).phrase
    return _problem(Problem(title=title, status=status, code=code, detail=detail, retryable=status in REPEATED))


def _problem(problem: Problem) -> web.Response:
    return web.Response(
        status=problem.status,
        body=msgspec.json.encode({"type": problem.type, **msgspec.structs.asdict(problem)}),
        headers={"Content-Type": "application/problem+json", "X-Request-Id": problem.request_id},
    )
