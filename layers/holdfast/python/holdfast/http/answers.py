"""What leaves: a rendered answer or a problem (RFC 9457), with the headers that every answer carries."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import msgspec

from holdfast.errors import Invalid, ServiceError
from holdfast.http.headers import ALLOW, RETRY_AFTER, WWW_AUTHENTICATE

T = TypeVar("T")

LAMBDA_ANSWER_BYTES_MAX: Final = 6 * 1024 * 1024
"""What a synchronous invocation may answer, wrapping and escaping included (AWS Lambda quotas)."""

PROBLEM_DETAIL_CHARACTERS_MAX: Final = 1_000
"""Of the sentence, in a problem that must be cut to fit."""

ENVELOPE_BYTES: Final = 64 * 1024
"""Left for status, headers and the wrapping: API Gateway lets headers have 10,240 bytes."""

ANSWER_BYTES_MAX: Final = LAMBDA_ANSWER_BYTES_MAX - ENVELOPE_BYTES

_ESCAPED_GROWTH_MAX: Final = 3
"""How much longer JSON can become inside a JSON string: `é` is two bytes, `\\u00e9` six."""

_EVERY_ANSWER: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

PROBLEM_TYPE: Final = "urn:holdfast:problem:"


@dataclass(frozen=True)
class Answer(Generic[T]):
    """A body with what a handler wants to say beside it; status None is the route's own."""

    body: T
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """An answer rendered: bytes, and no more decisions."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    code: str | None = None
    """The problem's code, where it is one."""

    def to_event(self, standing: Mapping[str, str]) -> dict[str, Any]:
        """Shape it as API Gateway's REST proxy wants it; *standing* headers come first and may be overridden."""
        headers = {**_EVERY_ANSWER, **standing, **self.headers}
        return {
            "statusCode": self.status,
            "headers": headers,
            "multiValueHeaders": {},
            "body": self.body.decode(),
            "isBase64Encoded": False,
        }


def render(answer: object, status: int) -> Reply:
    """
    Render what a handler returned.

    Raises:
        Invalid: 422 `answer_too_large`; Lambda would fail instead, and the caller would be told nothing.
    """
    if not isinstance(answer, Answer):
        answer = Answer(answer)
    body = b"" if answer.body is None else msgspec.json.encode(answer.body)
    if not _fits(body):
        detail = "The answer is over 6 MB, more than can be sent at once: ask for less."
        raise Invalid("answer_too_large", detail, status=422)
    headers = {"Content-Type": "application/json", **answer.headers} if body else answer.headers
    return Reply(answer.status or status, body, headers)


def _fits(body: bytes) -> bool:
    """Tell whether *body* fits once it is a string inside the JSON that Lambda answers; measured where in doubt."""
    if len(body) * _ESCAPED_GROWTH_MAX <= ANSWER_BYTES_MAX:
        return True
    return len(body) <= ANSWER_BYTES_MAX and len(json.dumps(body.decode())) <= ANSWER_BYTES_MAX


def render_problem(error: ServiceError, request_id: str) -> Reply:
    """
    Render *error*; its facts become extension members, which can never hide a standard one.

    What would not fit into an answer is left out: the facts and the place of the fault, which may quote what the caller
    sent. A problem without them still says what went wrong; an answer that Lambda refuses says nothing.
    """
    problem = {
        "type": PROBLEM_TYPE + error.code,
        "title": error.code.replace("_", " ").capitalize(),
        "status": error.http_status,
        "detail": error.detail,
        "code": error.code,
        "retryable": error.retryable,
        "request_id": request_id,
    }
    faults = {} if error.pointer is None else {"errors": [{"pointer": error.pointer, "detail": error.detail}]}
    facts = {name: fact for name, fact in error.facts.items() if name not in problem | faults}
    body = msgspec.json.encode({**problem, **faults, **facts})
    if not _fits(body):
        body = msgspec.json.encode({**problem, "detail": error.detail[:PROBLEM_DETAIL_CHARACTERS_MAX]})
    return Reply(error.http_status, body, _problem_headers(error), error.code)


def _problem_headers(error: ServiceError) -> dict[str, str]:
    headers = {"Content-Type": "application/problem+json"}
    if error.retry_after_seconds is not None:
        headers[RETRY_AFTER.name] = str(error.retry_after_seconds)
    if error.http_status == 401:  # noqa: PLR2004
        # RFC 6750, section 3.1: no error word where no token was sent.
        reason = "" if error.code == "token_missing" else ', error="invalid_token"'
        headers[WWW_AUTHENTICATE.name] = f'Bearer realm="holdfast"{reason}'
    if error.http_status == 405:  # noqa: PLR2004
        headers[ALLOW.name] = ", ".join(error.facts["allow"])
    return headers
