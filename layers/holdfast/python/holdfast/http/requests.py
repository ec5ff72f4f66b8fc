"""What a caller sent, as API Gateway's REST proxy event tells it; checked piece by piece, as a route asks for it."""

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NewType
from urllib.parse import unquote

import msgspec

from holdfast.auth import Principal
from holdfast.errors import Invalid
from holdfast.http.faults import is_text

IDEMPOTENCY_KEY_CHARACTERS_MAX: Final = 255
_IDEMPOTENCY_KEY = re.compile(rf"[\x21-\x7e]{{1,{IDEMPOTENCY_KEY_CHARACTERS_MAX}}}")

IdempotencyKey = NewType("IdempotencyKey", str)
"""The header `Idempotency-Key`: names a logical call, so that repeating it changes nothing."""


class Caller(Principal, frozen=True):
    """Who is asking, and in which request."""

    request_id: str


class RawBody(msgspec.Struct, frozen=True):
    """A body that was parsed as I-JSON but not yet given a type."""

    content: Any
    content_type: str


class Headers(Mapping[str, str]):
    """
    Header fields, whose names know no case (RFC 9110, section 5.1).

    A field that came several times with different values has them all, joined by commas (section 5.2). None is chosen:
    two idempotency keys, or two content types, are not a valid one.
    """

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        values: dict[str, list[str]] = {}
        for name, value in fields:
            values.setdefault(name.lower(), []).append(value)
        self._fields = {name: ", ".join(dict.fromkeys(each)) for name, each in values.items()}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class Request(msgspec.Struct, frozen=True):
    """One request, as it came."""

    method: str
    template: str | None
    """The path as a route declares it, `/v1/streams/{stream}/state`; API Gateway has matched it already."""
    path_parameters: Mapping[str, str]
    query: Mapping[str, list[str]]
    headers: Headers
    body: str | bytes | None
    is_base64: bool
    request_id: str

    @classmethod
    def of(cls, event: Mapping[str, Any], fallback_request_id: str) -> "Request":
        context = event.get("requestContext") or {}
        return cls(
            method=context.get("httpMethod") or "",
            template=context.get("resourcePath"),
            path_parameters=event.get("pathParameters") or {},
            query={name: values or [] for name, values in (event.get("multiValueQueryStringParameters") or {}).items()},
            headers=Headers(_fields(event)),
            body=event.get("body"),
            is_base64=bool(event.get("isBase64Encoded")),
            request_id=context.get("requestId") or fallback_request_id,
        )

    def path_parameter(self, name: str) -> str:
        """
        Answer a path parameter, percent-decoded once; `+` stays `+`.

        Raises:
            Invalid: `invalid_path`.
        """
        written = self.path_parameters.get(name)
        try:
            if is_text(written):
                return unquote(written, errors="strict")
        except UnicodeDecodeError:
            pass  # said below, as of everything that is no text
        raise Invalid("invalid_path", f"The path parameter `{name}` is not percent-encoded UTF-8.")

    def idempotency_key(self) -> IdempotencyKey | None:
        """
        Answer the idempotency key, or None where there is none.

        Raises:
            Invalid: `invalid_idempotency_key`.
        """
        key = self.headers.get("idempotency-key")
        if key is None:
            return None
        if not _IDEMPOTENCY_KEY.fullmatch(key):
            detail = f"An Idempotency-Key is 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} visible ASCII characters."
            raise Invalid("invalid_idempotency_key", detail)
        return IdempotencyKey(key)

    def content_type(self, accepted: Collection[str]) -> str:
        """
        Answer the media type of the body, which must be one of *accepted*, in UTF-8.

        Raises:
            Invalid: 415 `unsupported_media_type`.
        """
        media_type, _, parameters = self.headers.get("content-type", "").partition(";")
        charset = re.search(r"\bcharset\s*=\s*\"?([\w-]+)", parameters, re.IGNORECASE)
        is_utf8 = charset is None or charset[1].lower() in ("utf-8", "utf8")
        if media_type.strip().lower() not in accepted or not is_utf8:
            detail = f"Send the header Content-Type: {' or '.join(accepted)} (UTF-8)."
            raise Invalid("unsupported_media_type", detail, status=415, accepted=list(accepted))
        return media_type.strip().lower()

    def body_bytes(self, bytes_max: int) -> bytes:
        """
        Answer the body as the caller sent it, whatever the gateway wrapped it in.

        Raises:
            Invalid: 413 `body_too_large`, or 400 `body_required`, `not_i_json`.
        """
        raw = self._unwrapped_body()
        if len(raw) > bytes_max:
            detail = f"The body has {len(raw):,} bytes; this route takes {bytes_max:,}."
            raise Invalid("body_too_large", detail, status=413, body_bytes_max=bytes_max)
        if not raw:
            raise Invalid("body_required", "This route needs a body, and there is none.")
        return raw

    def _unwrapped_body(self) -> bytes:
        body = self.body or b""
        try:
            raw = body.encode("utf-8") if isinstance(body, str) else body
            return base64.b64decode(raw, validate=True) if self.is_base64 else raw
        except (UnicodeEncodeError, binascii.Error) as error:
            raise Invalid("not_i_json", "The body did not arrive as UTF-8.") from error


def _fields(event: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each header field as often as it came; a field without text is none."""
    for name, value in (event.get("headers") or {}).items():
        if isinstance(value, str):
            yield name, value
    for name, values in (event.get("multiValueHeaders") or {}).items():
        for value in values or []:
            if isinstance(value, str):
                yield name, value
