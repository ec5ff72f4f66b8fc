"""
Objects that are written once: whole, under a key of their own, and never changed or replaced.

What is kept as an object outlives the tables (anchors, archived commits), so it carries the digest of its bytes with it
and is compared with that whenever it is read whole. A bucket's retention and versions are the stack's business.
"""

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeVar

from holdfast.aws import client
from holdfast.clock import Clock
from holdfast.errors import Throttled, Unavailable, Uncertain
from holdfast.retry import Budget, repeat

T = TypeVar("T")

CALLS: Final = Budget(attempts_max=6, seconds_max=20.0)
"""How often and how long one call is repeated."""
PAGE_KEYS: Final = 1_000
"""Keys in one page of a listing; S3 gives no more."""

DIGEST: Final = "sha256"
"""The metadata that holds an object's digest: S3's own checksum is not echoed by every store that speaks S3."""

_THROTTLES: Final = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"})
_PASSING: Final = frozenset({"ConditionalRequestConflict", "OperationAborted", "RequestTimeout"})
"""Refusals below 500 that pass by themselves: another write to the same key is on its way, or ours was too slow."""


class Damaged(Exception):
    """An object is not what was written, or is not there although it was: no reading can mend it."""


class Objects(Protocol):
    """
    One bucket.

    Every call raises `Throttled` or `Unavailable` when the store does not answer, and nothing has happened then.
    """

    def put_new(self, key: str, body: bytes) -> bool:
        """
        Put *body* where nothing stands, and say whether these bytes stand there now.

        False: something else stands there, and stays. Repeating is safe: who meets its own bytes is answered True.

        Raises:
            Uncertain: it may have been written, whatever a later attempt was told; repeat with the same bytes.
        """

    def get(self, key: str) -> bytes | None:
        """
        Read an object; None where there is none.

        Raises:
            Damaged: its bytes have another digest than those that were written.
        """

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """
        Read exactly *length* bytes from *offset* on; the caller knows what they must be, and compares.

        Raises:
            Damaged: the object is not there, or ends before.
        """

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the keys that begin with *prefix* and lie beyond *after*, in order, page by page."""


@dataclass(frozen=True)
class MemoryObjects:
    """Objects in this process's memory."""

    _bodies: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put_new(self, key: str, body: bytes) -> bool:
        with self._lock:
            return self._bodies.setdefault(key, body) == body

    def get(self, key: str) -> bytes | None:
        return self._bodies.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        _check_range(offset, length)
        found = self._bodies.get(key, b"")[offset : offset + length]
        if len(found) != length:
            raise Damaged(f"{key} has no {length} bytes at {offset}.")
        return found

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        with self._lock:
            found = sorted(key for key in self._bodies if key.startswith(prefix) and key > after)
        yield from found


class _Passing(Exception):
    """This attempt brought no answer that decides anything; another may."""

    def __init__(self, why: str, *, is_throttle: bool = False) -> None:
        super().__init__(why)
        self.is_throttle = is_throttle


class _Refused(Exception):
    """S3 says by name why it does not do what was asked."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.code = code
        self.status = status


@dataclass(frozen=True)
class S3Objects:
    """
    A bucket of S3.

    A role that may only get objects is told 403 where there is none: it needs `s3:ListBucket` to hear 404.
    """

    bucket: str
    clock: Clock
    budget: Budget = CALLS
    region: str | None = None
    endpoint_url: str | None = None

    def put_new(self, key: str, body: bytes) -> bool:
        digest = sha256(body)
        request = {
            "Key": key,
            "Body": body,
            "IfNoneMatch": "*",
            # S3 compares the body with it on arrival, and a bucket with Object Lock demands one.
            "ChecksumSHA256": base64.b64encode(digest.digest()).decode(),
            "Metadata": {DIGEST: digest.hexdigest()},
        }
        may_have_happened = False

        def attempt() -> None:
            nonlocal may_have_happened
            try:
                self._call("put_object", request)
            except _Passing as passing:
                may_have_happened = may_have_happened or not passing.is_throttle
                raise

        try:
            self._repeat(attempt)
        except _Refused as refusal:
            if refusal.status == HTTPStatus.PRECONDITION_FAILED:
                return self._is_own(key, body)
            if may_have_happened:
                raise _outcome_unknown(key) from refusal
            raise
        except _Passing as error:
            raise _outcome_unknown(key) from error
        return True

    def get(self, key: str) -> bytes | None:
        def attempt() -> bytes:
            # botocore compares the body with the checksum that S3 tells: what differs was changed on its way.
            answer, body = self._body({"Key": key, "ChecksumMode": "ENABLED"})
            digest = sha256(body).hexdigest()
            if answer["Metadata"].get(DIGEST, digest) != digest:
                raise Damaged(f"{key} is not what was written under this key.")
            return body

        try:
            return self._read(attempt)
        except _Refused as refusal:
            if refusal.code == "NoSuchKey":
                return None
            raise

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        _check_range(offset, length)
        try:
            _, body = self._read(lambda: self._body({"Key": key, "Range": f"bytes={offset}-{offset + length - 1}"}))
        except _Refused as refusal:
            if refusal.code == "NoSuchKey" or refusal.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise Damaged(f"{key} has no {length} bytes at {offset}.") from refusal
            raise
        if len(body) != length:
            raise Damaged(f"{key} has {len(body)} bytes at {offset}, not {length}.")
        return body

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        request: dict[str, Any] = {"Prefix": prefix, "StartAfter": after, "MaxKeys": PAGE_KEYS}
        while True:
            page = self._read(partial(self._call, "list_objects_v2", request))
            for found in page.get("Contents", ()):
                yield found["Key"]
            if not page["IsTruncated"]:
                return
            request = request | {"ContinuationToken": page["NextContinuationToken"]}

    def _is_own(self, key: str, body: bytes) -> bool:
        """Look at what stands where nothing should: it may be our own, from an attempt whose reply was lost."""
        try:
            return self.get(key) == body
        except (Throttled, Unavailable, _Refused) as error:
            raise _outcome_unknown(key) from error

    def _body(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        answer = self._call("get_object", request)
        with _told():
            body: bytes = answer["Body"].read()
        if len(body) != answer["ContentLength"]:
            raise _Passing(f"{request['Key']} was cut short on its way.")
        return answer, body

    def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        with _told():
            s3 = client("s3", region=self.region, endpoint_url=self.endpoint_url)
            answer: dict[str, Any] = getattr(s3, operation)(Bucket=self.bucket, **request)
            return answer

    def _read(self, attempt: Callable[[], T]) -> T:
        try:
            return self._repeat(attempt)
        except _Passing as error:
            if error.is_throttle:
                raise Throttled(
                    "store_throttled", "S3 is asked too much at once. Wait, then repeat.", retry_after_seconds=1
                ) from error
            raise Unavailable(
                "store_unavailable", f"S3 does not answer: {error}. Nothing happened; repeat.", retry_after_seconds=1
            ) from error

    def _repeat(self, attempt: Callable[[], T]) -> T:
        return repeat(attempt, on=_Passing, budget=self.budget, clock=self.clock)


@contextmanager
def _told() -> Iterator[None]:
    """Translate what botocore raises into what is known."""
    from botocore import exceptions as failures  # noqa: PLC0415 - see holdfast.aws
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    try:
        yield
    except Exception as error:
        match error:
            case failures.ClientError():
                raise _told_by(error.response) from error
            case (
                failures.HTTPClientError()
                | failures.ConnectionError()
                | failures.IncompleteReadError()
                | failures.FlexibleChecksumError()
                | ResponseParserError()
            ):
                raise _Passing(type(error).__name__) from error
        raise


def _told_by(response: Any) -> _Passing | _Refused:
    code = response.get("Error", {}).get("Code", "")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status == HTTPStatus.TOO_MANY_REQUESTS or code in _THROTTLES:
        return _Passing(code, is_throttle=True)
    if status < HTTPStatus.BAD_REQUEST or status >= HTTPStatus.INTERNAL_SERVER_ERROR or code in _PASSING:
        return _Passing(f"HTTP {status} {code}")
    return _Refused(code, status)


def _outcome_unknown(key: str) -> Uncertain:
    return Uncertain("outcome_unknown", f"S3 did not say whether {key} was written; repeat.", retry_after_seconds=1)


def _check_range(offset: int, length: int) -> None:
    if offset < 0 or length < 1:
        raise ValueError("A range has at least one byte, and begins at 0 or later.")
