"""The app: Chalice registers, packages and triggers; requests take this door's own way through."""

import functools
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar, Unpack

import msgspec
from chalice.app import Chalice

from holdfast import telemetry
from holdfast.auth import Principal, verifier_from
from holdfast.clock import Clock, SystemClock
from holdfast.errors import Invalid, NotFound, ServiceError
from holdfast.http.answers import Answer, Reply, render, render_problem
from holdfast.http.openapi import document
from holdfast.http.requests import Caller, Request
from holdfast.http.routes import Handler, Options, Route, Scope, declare
from holdfast.retry import deadline

H = TypeVar("H", bound=Handler)

Authenticate = Callable[[str | None], Principal]
"""Turns an Authorization header into who is asking, or raises `Denied`."""
OnBug = Callable[[Exception, str, str | None], None]
"""Told of what no handler foresaw, with the route and, if it is known, the tenant; then it is answered with 500."""

REQUEST_SECONDS_MAX: Final = 20.0
"""
How long a request may go on making attempts at what it needs; see `holdfast.retry.deadline`.

The last of them may take 6 s (`holdfast.aws`), and then it is still answered inside Lambda's 28 s.
"""
ANSWER_SECONDS: Final = 8.0
"""What has to be left of Lambda's time for the last attempt and the answer."""

_INTERNAL: Final = "Something went wrong on our side. What you asked for may or may not have happened."


class _Internal(ServiceError):
    """A bug; the caller learns its request id, and the log the rest."""

    status = 500


class Api(Chalice):
    """
    A Chalice app whose routes are typed functions (see `holdfast.http`).

    Queue, stream and schedule handlers are Chalice's own. Its HTTP middleware, CORS and error bodies are not
    used: one pipeline answers every request, and it answers every failure with a problem (RFC 9457).
    """

    def __init__(
        self,
        name: str,
        *,
        title: str,
        version: str,
        authenticate: Authenticate | None = None,
        clock: Clock | None = None,
        on_bug: OnBug = lambda _error, _route, _tenant: None,
    ) -> None:
        # Chalice would add its own log handler, and its name to AWS_EXECUTION_ENV of the whole process.
        super().__init__(name, configure_logs=False, env={})
        self._title = title
        self._version = version
        self._clock = clock or SystemClock()
        self._given_authenticate = authenticate
        self._on_bug = on_bug
        self._table: dict[str, dict[str, Route]] = {}
        self.get("/openapi.json", scope=None)(self.get_openapi)

    # --- Declaring

    def get(self, path: str, *, scope: Scope, **options: Unpack[Options]) -> Callable[[H], H]:
        """
        Declare the function below as the handler of GET *path*.

        *scope* is what the caller's token must carry, or one of several; None asks for no token. The other verbs alike.
        """
        return self._declaring("GET", path, scope, options)

    def post(self, path: str, *, scope: Scope, **options: Unpack[Options]) -> Callable[[H], H]:
        return self._declaring("POST", path, scope, options)

    def put(self, path: str, *, scope: Scope, **options: Unpack[Options]) -> Callable[[H], H]:
        return self._declaring("PUT", path, scope, options)

    def patch(self, path: str, *, scope: Scope, **options: Unpack[Options]) -> Callable[[H], H]:
        return self._declaring("PATCH", path, scope, options)

    def delete(self, path: str, *, scope: Scope, **options: Unpack[Options]) -> Callable[[H], H]:
        return self._declaring("DELETE", path, scope, options)

    def _declaring(self, method: str, path: str, scope: Scope, options: Options) -> Callable[[H], H]:
        def register(handler: H) -> H:
            route = declare(method, path, handler, scope=scope, **options)
            self.route(path, methods=[method], content_types=list(route.content_types))(handler)
            self._table.setdefault(path, {})[method] = route
            return handler

        return register

    # --- Answering

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        """Answer one request; whatever happens inside, the answer is whole."""
        started = self._clock.monotonic()
        self.lambda_context = context
        request = Request.of(event, fallback_request_id=getattr(context, "aws_request_id", ""))
        trace = telemetry.continue_trace(request.headers.get("traceparent"))
        outer = telemetry.current_trace.set(trace)
        logger = telemetry.logger()
        try:
            with logger.append_context_keys(request_id=request.request_id, trace_id=trace.trace_id):
                facts: dict[str, Any] = {"route": f"{request.method} {request.template}"}
                with deadline(_seconds_for_attempts(context), self._clock):
                    reply = self._answer(request, facts)
                elapsed_ms = round((self._clock.monotonic() - started) * 1_000, 1)
                # At least one line per invocation: without one, the local engine waits 50 ms for it.
                logger.info("answered", **facts, status=reply.status, code=reply.code, ms=elapsed_ms)
            telemetry.flush_metrics()
        finally:
            telemetry.current_trace.reset(outer)
        return reply.to_event({"X-Request-Id": request.request_id, "traceparent": trace.traceparent})

    def _answer(self, request: Request, facts: dict[str, Any]) -> Reply:
        try:
            try:
                return self._dispatch(request, facts)
            except ServiceError as error:
                return render_problem(error, request.request_id)
        except Exception as error:  # noqa: BLE001 - the last resort; logged with its traceback, answered without
            telemetry.logger().exception("A request met a bug.", **facts)
            self._on_bug(error, facts["route"], facts.get("tenant"))
            return render_problem(_Internal("internal", _INTERNAL), request.request_id)

    def _dispatch(self, request: Request, facts: dict[str, Any]) -> Reply:
        route = self._match(request)
        caller = None
        if route.scopes:
            principal = self._authenticate(request.headers.get("authorization"))
            facts["tenant"] = principal.tenant
            principal.require(*route.scopes)
            caller = Caller(**msgspec.structs.asdict(principal), request_id=request.request_id)
        return render(route.call(request, caller), route.status)

    def _match(self, request: Request) -> Route:
        methods = self._table.get(request.template or "", {})
        if not methods:
            raise NotFound("not_found", "There is no such route; GET /openapi.json lists those there are.")
        if request.method not in methods:
            detail = f"{request.method} is not for this path; use {' or '.join(sorted(methods))}."
            raise Invalid("method_not_allowed", detail, status=405, allow=sorted(methods))
        return methods[request.method]

    @functools.cached_property
    def _authenticate(self) -> Authenticate:
        return self._given_authenticate or verifier_from(os.environ, self._clock).authenticate

    # --- Describing

    def openapi(self) -> dict[str, Any]:
        """Describe every route, as OpenAPI 3.1."""
        routes = [route for methods in self._table.values() for route in methods.values()]
        return document(routes, title=self._title, version=self._version)

    def get_openapi(self) -> Answer[Any]:
        """Describe this API."""
        return Answer(self._openapi_json)

    @functools.cached_property
    def _openapi_json(self) -> msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(self.openapi()))


def _seconds_for_attempts(context: Any) -> float:
    """Say how long attempts may begin: `REQUEST_SECONDS_MAX`, or less where Lambda gives less time."""
    if context is None:
        return REQUEST_SECONDS_MAX
    remaining_ms: int = context.get_remaining_time_in_millis()
    return min(REQUEST_SECONDS_MAX, remaining_ms / 1_000 - ANSWER_SECONDS)
