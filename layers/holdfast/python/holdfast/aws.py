"""
Clients of AWS: made on first use, with time-outs and a pool, and never with hidden patience: a call is one attempt.

An answer that did not arrive as it was sent is no answer. botocore takes a JSON body that was cut short for an empty
one, and leaves DynamoDB's checksum to its retries, which are off; so every JSON answer is checked before it is read.
"""

import functools
import zlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

CONNECT_TIMEOUT_SECONDS = 1.0
READ_TIMEOUT_SECONDS = 5.0
CONNECTIONS_MAX = 32
"""Kept open between calls. A call beyond them opens one of its own: none waits for another without a time-out."""

_JSON_PROTOCOL: Final = "json"
_FIRST_ERROR_STATUS: Final = 300


class Garbled(Exception):
    """An answer that did not arrive as it was sent: what it answers is unknown."""

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.headers = headers


@functools.cache
def client(service: str, *, region: str | None = None, endpoint_url: str | None = None) -> Any:
    """
    Make the client of one AWS service.

    It honours AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_<SERVICE>. Repeating is left to the caller, who knows what may be
    repeated and how long there is time for it (`holdfast.retry`). Its calls raise `Garbled` beside botocore's own
    exceptions.
    """
    import boto3  # noqa: PLC0415 - costs more than the rest of a cold start; imported by the first call that needs it
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        max_pool_connections=CONNECTIONS_MAX,
        retries={"mode": "standard", "total_max_attempts": 1},
        # The emulators and DynamoDB answer with checksums of their own; the default would add one to every S3 call.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    make: Any = boto3.client  # its overloads name every service literally
    made = make(service, region_name=region, endpoint_url=endpoint_url, config=config)
    if made.meta.service_model.resolved_protocol == _JSON_PROTOCOL:
        made.meta.events.register("before-parse", _check_whole)
    return made


def _check_whole(response_dict: Mapping[str, Any], operation_model: Any, **_: Any) -> None:
    """Compare an answer with what its headers say of it, before botocore parses it."""
    headers, body = response_dict["headers"], response_dict["body"]
    crc32, length = headers.get("x-amz-crc32"), headers.get("Content-Length")
    # Neither means chunks, which the connection checks, or an end by closing, where the JSON tells.
    said, found = (crc32, str(zlib.crc32(body))) if crc32 is not None else (length, str(len(body)))
    if said not in (None, found):
        raise Garbled(f"The answer was changed or cut short on its way: {len(body)} bytes came.", headers)
    is_success = response_dict["status_code"] < _FIRST_ERROR_STATUS
    # An operation that answers nothing may do so without a body.
    if is_success and operation_model.output_shape is not None and not _is_json_object(body):
        raise Garbled("The answer claims success and is no JSON object.", headers)


def _is_json_object(body: bytes) -> bool:
    try:
        msgspec.json.decode(body.decode(), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
