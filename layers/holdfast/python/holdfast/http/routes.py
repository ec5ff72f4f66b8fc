"""
What a handler's signature means, read once when it is declared.

| parameter | takes |
| --- | --- |
| `caller: Caller` | who is asking; only on a route with a scope |
| a name in the path's braces, `str` | that path parameter, percent-decoded once |
| `query: <struct>` | the query parameters, each once; a route without it takes none |
| `body: <struct>` | the JSON body; `forbid_unknown_fields` is honoured |
| `body: RawBody` | the JSON body before it has a type, and its content type |
| `key: IdempotencyKey` (or `… or None`) | the header Idempotency-Key, demanded or not |
| `…: Annotated[str or None, <Header>]` | that header field, as it came |

Anything else is refused when the function starts, not when it is called.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypedDict, Unpack, get_args, get_origin, get_type_hints

import msgspec

from holdfast import strict_json
from holdfast.errors import Invalid
from holdfast.http.answers import Answer
from holdfast.http.faults import to_body, to_query
from holdfast.http.headers import Header
from holdfast.http.requests import Caller, IdempotencyKey, RawBody, Request

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
JSON: Final = "application/json"

Handler = Callable[..., Any]
Scope = str | tuple[str, ...] | None
"""What a route asks of a token: a scope, or one of several; None where it asks for no token."""
Bind = Callable[[Request, Caller | None], Any]
"""Takes one argument out of a request."""


class NoQuery(msgspec.Struct, frozen=True):
    """The query of a route that declares none."""


@dataclass(frozen=True)
class Route:
    """One method on one path: how it is called, and all that its documentation is made from."""

    method: str
    path: str
    handler: Handler
    scopes: tuple[str, ...]
    """One of them opens it; where there are none it asks for no token."""
    status: int
    body_bytes_max: int
    content_types: Mapping[str, Any]
    """The media types of the body, each with the type that documents it."""
    raises: Mapping[int, Sequence[str]]
    also: Sequence[int]
    """Statuses of other successes."""
    headers: Sequence[Header]
    """What a success may say beside its body."""
    parameters: Mapping[str, Any]
    answer: Any
    binds: Mapping[str, Bind]

    @property
    def query(self) -> type[msgspec.Struct]:
        declared: type[msgspec.Struct] = self.parameters.get("query", NoQuery)
        return declared

    @property
    def has_body(self) -> bool:
        return "body" in self.parameters

    @property
    def asked_headers(self) -> list[Header]:
        """The header fields that the handler takes."""
        return [header for kind in self.parameters.values() if (header := _header_in(kind))]

    @property
    def idempotency_key(self) -> Any:
        """The annotation of the parameter that takes the idempotency key, or None."""
        return next((kind for kind in self.parameters.values() if _is_idempotency_key(kind)), None)

    def call(self, request: Request, caller: Caller | None) -> object:
        """
        Check and bind what the handler takes, and call it.

        Raises:
            ServiceError: of a check, or of the handler.
        """
        if "query" not in self.parameters:
            to_query(request.query, NoQuery)
        arguments = {name: bind(request, caller) for name, bind in self.binds.items()}
        return self.handler(**arguments)


class Options(TypedDict, total=False):
    """What a route may say about itself beside method, path and scope."""

    status: int
    """Of a success; 200 if not said."""
    body_bytes_max: int
    """BODY_BYTES_MAX if not said; API Gateway takes 10 MB, and Lambda 6 MB."""
    content_types: Sequence[str] | Mapping[str, Any]
    """The media types of its body; as a mapping, each with the type that documents a `RawBody`."""
    raises: Mapping[int, Sequence[str]]
    """Its own errors for the documentation: codes by status. Those of tokens, bodies and queries are known."""
    also: Sequence[int]
    """Statuses of other successes, which the handler's `Answer` says itself."""
    headers: Sequence[Header]
    """What its `Answer` may say beside the body."""


def declare(method: str, path: str, handler: Handler, *, scope: Scope, **options: Unpack[Options]) -> Route:
    """
    Read *handler*'s signature into a route.

    Raises:
        TypeError: a parameter that no table row above describes.
    """
    hints = get_type_hints(handler, include_extras=True)
    parameters = {name: hints.get(name) for name in inspect.signature(handler).parameters}
    content_types = options.get("content_types", (JSON,))
    bodies = content_types if isinstance(content_types, Mapping) else dict.fromkeys(content_types)
    body = parameters.get("body")
    route = Route(
        method=method,
        path=path,
        handler=handler,
        scopes=(scope,) if isinstance(scope, str) else scope or (),
        status=options.get("status", 200),
        body_bytes_max=options.get("body_bytes_max", BODY_BYTES_MAX),
        content_types={name: kind or (Any if body in (None, RawBody) else body) for name, kind in bodies.items()},
        raises=options.get("raises", {}),
        also=options.get("also", ()),
        headers=options.get("headers", ()),
        parameters=parameters,
        answer=_answer_type(hints.get("return", Any)),
        binds={},
    )
    binds = {name: _bind(route, name, kind) for name, kind in parameters.items()}
    _check_path(route)
    return Route(**{**vars(route), "binds": binds})


def path_names(path: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", path)


def _check_path(route: Route) -> None:
    if missing := [name for name in path_names(route.path) if name not in route.parameters]:
        raise TypeError(f"{_called(route)} does not take {', '.join(missing)}, which its path {route.path} has.")


def _bind(route: Route, name: str, kind: Any) -> Bind:
    if name in path_names(route.path) and kind is str:
        return lambda request, _: request.path_parameter(name)
    if kind is Caller and route.scopes:
        return lambda _, caller: caller
    if header := _header_in(kind):
        return lambda request, _: request.headers.get(header.name)
    if _is_idempotency_key(kind):
        return _bind_key(is_required=kind is IdempotencyKey)
    if name == "query" and _is_struct(kind):
        return lambda request, _: to_query(request.query, kind)
    if name == "body" and _is_struct(kind):
        return _bind_body(route, kind)
    raise TypeError(f"{_called(route)} takes `{name}: {kind}`, which no request holds: see holdfast.http.routes.")


def _bind_key(*, is_required: bool) -> Bind:
    def bind(request: Request, _: Caller | None) -> IdempotencyKey | None:
        key = request.idempotency_key()
        if is_required and key is None:
            detail = "Send an Idempotency-Key: it makes repeating this call safe."
            raise Invalid("idempotency_key_required", detail)
        return key

    return bind


def _bind_body(route: Route, kind: Any) -> Bind:
    def bind(request: Request, _: Caller | None) -> object:
        # A body that is too large, or missing, is so whatever its type.
        raw = request.body_bytes(route.body_bytes_max)
        content_type = request.content_type(route.content_types)
        content = strict_json.parse(raw)
        return RawBody(content, content_type) if kind is RawBody else to_body(content, kind)

    return bind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _is_idempotency_key(kind: Any) -> bool:
    return kind in (IdempotencyKey, IdempotencyKey | None)


def _header_in(kind: Any) -> Header | None:
    """Find the header field that a parameter of this kind takes; it may always be missing."""
    if get_origin(kind) is not Annotated or kind.__origin__ != str | None:
        return None
    return next((each for each in kind.__metadata__ if isinstance(each, Header)), None)


def _answer_type(kind: Any) -> Any:
    """Look through `Answer[T]` at what is in it."""
    if kind is Answer:
        return Any
    return get_args(kind)[0] if get_origin(kind) is Answer else kind


def _called(route: Route) -> str:
    return f"{route.method} {route.path} ({getattr(route.handler, '__qualname__', route.handler)})"
