"""
OpenAPI 3.1, made from the types that requests are checked with and answers are written from.

Nothing is described twice: what is documented is what is enforced.
"""

import inspect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from holdfast.http.answers import PROBLEM_TYPE
from holdfast.http.headers import OF_PROBLEMS, Header
from holdfast.http.requests import IDEMPOTENCY_KEY_CHARACTERS_MAX, IdempotencyKey, RawBody
from holdfast.http.routes import Route, path_names

Json = dict[str, Any]

_REF: Final = "#/components/schemas/{name}"

_PROBLEM: Final[Json] = {
    "type": "object",
    "description": "RFC 9457. Members beside these are facts that the problem's code brings with it.",
    "required": ["type", "title", "status", "detail", "code", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": [PROBLEM_TYPE + "not_found"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "For people; do not parse it."},
        "code": {"type": "string", "description": "For programs: a stable word."},
        "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer (RFC 6901) into body or query."},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}

_EVERY_ROUTE: Final = {400: ["invalid_query"], 422: ["answer_too_large"], 500: ["internal"]}
_EVERY_TOKEN: Final = {
    401: ["token_missing", "token_invalid", "token_expired", "token_revoked"],
    403: ["scope_missing"],
    503: ["token_keys_unknown", "revocations_unknown", "out_of_time"],
}
_EVERY_BODY: Final = {
    400: ["body_required", "malformed_json", "not_i_json", "too_deep", "too_many_members"],
    413: ["body_too_large"],
    415: ["unsupported_media_type"],
}


def document(routes: Iterable[Route], *, title: str, version: str) -> Json:
    """Describe *routes*."""
    routes = list(routes)
    schemas = _Schemas()
    paths: defaultdict[str, Json] = defaultdict(dict)
    for route in routes:
        paths[route.path][route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": dict(paths),
        "components": {
            "schemas": {**schemas.components, "Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


class _Schemas:
    """Collects the schemas that operations refer to."""

    def __init__(self) -> None:
        self.components: Json = {}

    def of(self, kind: Any) -> Json:
        [schema], components = msgspec.json.schema_components([kind], ref_template=_REF)
        self._keep(components)
        return schema

    def members_of(self, kind: type[msgspec.Struct]) -> tuple[Json, Sequence[str]]:
        """Answer a struct's properties, and those that are required, without keeping the struct itself."""
        _, components = msgspec.json.schema_components([kind], ref_template=_REF)
        struct = components.pop(kind.__name__)
        self._keep(components)
        return struct["properties"], struct["required"]

    def _keep(self, components: Json) -> None:
        for name, schema in components.items():
            if self.components.setdefault(name, schema) != schema:
                raise TypeError(f"Two structs of this API are called {name}; a description has room for one.")


def _operation(route: Route, schemas: _Schemas) -> Json:
    summary, _, description = (inspect.getdoc(route.handler) or "").partition("\n")
    operation: Json = {
        "operationId": route.handler.__name__,
        "summary": summary,
        "parameters": _parameters(route, schemas),
        "responses": {**_successes(route, schemas), **_problems(route)},
        # OpenAPI 3.1 lets a bearer requirement list what the token must carry; one of the requirements suffices.
        "security": [{"token": [scope]} for scope in route.scopes],
    }
    if route.has_body:
        content = {name: {"schema": schemas.of(kind)} for name, kind in route.content_types.items()}
        operation["requestBody"] = {"required": True, "content": content}
    if description.strip():
        operation["description"] = description.strip()
    return operation


def _parameters(route: Route, schemas: _Schemas) -> list[Json]:
    path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in path_names(route.path)
    ]
    properties, required = schemas.members_of(route.query)
    query = [
        {"name": name, "in": "query", "required": name in required, **_described(schema)}
        for name, schema in properties.items()
    ]
    headers = [{"name": each.name, "in": "header", "required": False, **_said(each)} for each in route.asked_headers]
    return path + query + _key_parameter(route) + headers


def _said(header: Header) -> Json:
    return {"description": header.description, "schema": dict(header.schema)}


def _described(schema: Json) -> Json:
    """Move a description from the schema to the parameter, where readers look for it."""
    described = {"schema": {name: value for name, value in schema.items() if name != "description"}}
    return {**described, "description": schema["description"]} if "description" in schema else described


def _key_parameter(route: Route) -> list[Json]:
    if route.idempotency_key is None:
        return []
    schema = {"type": "string", "pattern": f"^[\\x21-\\x7E]{{1,{IDEMPOTENCY_KEY_CHARACTERS_MAX}}}$"}
    is_required = route.idempotency_key is IdempotencyKey
    return [{"name": "Idempotency-Key", "in": "header", "required": is_required, "schema": schema}]


def _successes(route: Route, schemas: _Schemas) -> Json:
    said: Json = {"headers": _headers(route.headers)} if route.headers else {}
    if route.answer is not type(None):
        said["content"] = {"application/json": {"schema": schemas.of(route.answer)}}
    return {str(status): {"description": HTTPStatus(status).phrase, **said} for status in (route.status, *route.also)}


def _headers(headers: Iterable[Header]) -> Json:
    return {header.name: _said(header) for header in headers}


def _problems(route: Route) -> Json:
    return {
        str(status): {
            "description": ", ".join(codes),
            **({"headers": _headers(OF_PROBLEMS[status])} if status in OF_PROBLEMS else {}),
            "content": {
                "application/problem+json": {
                    "schema": {
                        "allOf": [{"$ref": _REF.format(name="Problem")}],
                        "properties": {"code": {"enum": codes}},
                    }
                }
            },
        }
        for status, codes in sorted(_codes(route).items())
    }


def _codes(route: Route) -> dict[int, list[str]]:
    """Gather the codes that a route can answer: those of its features, and those it declares."""
    sources: list[Mapping[int, Sequence[str]]] = [_EVERY_ROUTE]
    if path_names(route.path):
        sources.append({400: ["invalid_path"]})
    if route.scopes:
        sources.append(_EVERY_TOKEN)
    if route.idempotency_key is not None:
        sources.append({400: ["invalid_idempotency_key"]})
    if route.idempotency_key is IdempotencyKey:
        sources.append({400: ["idempotency_key_required"]})
    if route.has_body:
        sources.append(_EVERY_BODY)
    if route.has_body and route.parameters["body"] is not RawBody:
        sources.append({400: ["unknown_field", "invalid_body"]})
    codes: defaultdict[int, list[str]] = defaultdict(list)
    for source in [*sources, route.raises]:
        for status, words in source.items():
            codes[status].extend(word for word in words if word not in codes[status])
    return codes
