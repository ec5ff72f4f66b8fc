"""The audit trail's door, in process: real routes, asked as API Gateway hands requests over."""

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from functions.audit.app import app
from holdfast.auth import Principal
from holdfast.errors import Denied
from stacks.services import SERVICES

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SAMPLE = json.loads((Path(__file__).parents[1] / "events/audit/http-request.json").read_text())
ALL = frozenset(SERVICES["audit"].scopes)
JSON = "application/json"
PROBLEM = "application/problem+json"
BATCH = "application/cloudevents-batch+json"


STANDING = {"Content-Type", "Cache-Control", "X-Content-Type-Options", "X-Request-Id", "traceparent"}
"""What every answer says."""


@cache
def described() -> Any:
    return app.openapi()["paths"]


def check_described(template: str, method: str, answer: Any) -> None:
    """Insist that a route's description knows the status, every header, and the code of a problem."""
    operation = described().get(template, {}).get(method.lower())
    if operation is None:
        return  # no route is meant, so none describes the refusal
    known = operation["responses"][str(answer["statusCode"])]
    assert answer["headers"].keys() - STANDING <= known.get("headers", {}).keys()
    if answer["headers"].get("Content-Type") == PROBLEM:
        codes = known["content"][PROBLEM]["schema"]["properties"]["code"]["enum"]
        assert json.loads(answer["body"])["code"] in codes, f"{method} {template} may answer {codes}"


class Door:
    """Requests as API Gateway hands them over, by a caller whose rights a test may change."""

    def __init__(self) -> None:
        self.principal = Principal(tenant="acme", subject="ann", scopes=ALL, jti="j", expires=2**40)

    def authenticate(self, header: str | None) -> Principal:
        if header is None:
            raise Denied("token_missing", "Say who you are.", status=401)
        return self.principal

    def call(
        self,
        method: str,
        template: str,
        *,
        body: Any = None,
        raw: bytes | None = None,
        token: str | None = "Bearer t",
        **more: Any,
    ) -> tuple[int, Any, dict[str, str]]:
        _, _, query = more.get("path", template).partition("?")
        pairs = [pair.split("=", 1) for pair in query.split("&") if pair]
        headers = {"content-type": JSON, **more.get("headers", {})}
        if token:
            headers["authorization"] = token
        event = {
            **SAMPLE,
            "httpMethod": method,
            "requestContext": {
                **SAMPLE["requestContext"],
                "resourcePath": template,
                "httpMethod": method,
                "requestId": more.get("request_id", SAMPLE["requestContext"]["requestId"]),
            },
            "pathParameters": {"stream": more.get("stream"), **more.get("parameters", {})},
            "multiValueQueryStringParameters": {name: [unquote(v) for n, v in pairs if n == name] for name, _ in pairs}
            or None,
            "headers": headers,
            "multiValueHeaders": {name: [value] for name, value in headers.items()} | more.get("repeated", {}),
            "body": raw.decode() if raw is not None else json.dumps(body) if body is not None else None,
        }
        answer = app(event, None)
        text = answer["body"]
        check_described(template, method, answer)
        return answer["statusCode"], json.loads(text) if text else None, answer["headers"]

    def append(
        self, events: Any, expected: Any = "any", stream: str = "orders~1", **more: Any
    ) -> tuple[int, Any, dict[str, str]]:
        body = more.pop("body", {"events": events, "expected_version": expected})
        return self.call("POST", "/v1/streams/{stream}/events", body=body, stream=stream, **more)

    def events(self, query: str = "", stream: str = "orders~1", **more: Any) -> tuple[int, Any, dict[str, str]]:
        return self.call("GET", "/v1/streams/{stream}/events", path=f"x?{query}", stream=stream, **more)

    def state(self, query: str = "", stream: str = "orders~1", **more: Any) -> tuple[int, Any, dict[str, str]]:
        return self.call("GET", "/v1/streams/{stream}/state", path=f"x?{query}", stream=stream, **more)
