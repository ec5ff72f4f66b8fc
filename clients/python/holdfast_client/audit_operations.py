"""What operators ask of the audit trail: read models made again, and data subjects held and erased."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode
from uuid import uuid4

import msgspec

from holdfast_client.conversation import Answer, Call, Request
from holdfast_client.events import json_bytes, rebuild_path, subject_path, time_text
from holdfast_client.transport import AsyncTransport, Transport

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
Reader = Callable[[Answer], T]
Moment = datetime | str | None
Change = Literal["flip", "rollback", "abandon"]


class Rebuild(msgspec.Struct, frozen=True):
    """A view that is being made again, as the service tells it."""

    rebuild_id: str
    view: str
    generation: int
    state: str
    """`running`, `ready`, `needs_review`, `flipped`, `rolled_back` or `abandoned`."""
    partitions: list[dict[str, Any]] = []
    rows: int = 0
    rate: float | None = None
    """Events a second, so far."""
    remaining_seconds: float | None = None
    reason: str | None = None
    as_of: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Hold(msgspec.Struct, frozen=True):
    """Why a subject may not be erased, who said so, and until when; for ever if no time is said."""

    reason: str
    by: str
    until: datetime | None = None


class Subject(msgspec.Struct, frozen=True):
    """What is known of a data subject."""

    subject: str
    state: str
    """`live`, or `erased`."""
    holds: list[Hold] = []
    erased_at: datetime | None = None
    final_at: datetime | None = None
    """When no backup can bring the content back any more."""


class OperationCalls:
    """The calls, yet to be made; shared by both clients."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url.rstrip("/")
        self.headers = headers

    def rebuild(self, view: str, reason: str, as_of: Moment, key: str | None, *, auto_flip: bool) -> Call[Rebuild]:
        body: dict[str, Any] = {"view": view, "reason": reason, "auto_flip": auto_flip}
        if as_of is not None:
            body["as_of"] = time_text(as_of)
        return self._write("POST", "/v1/rebuilds", body, key, reader_of(Rebuild))

    def rebuild_state(self, rebuild_id: str) -> Call[Rebuild]:
        return self._read(f"/v1/rebuilds/{rebuild_path(rebuild_id)}", {}, reader_of(Rebuild))

    def rebuild_change(self, rebuild_id: str, change: Change, key: str | None) -> Call[Rebuild]:
        return self._write("POST", f"/v1/rebuilds/{rebuild_path(rebuild_id)}/{change}", None, key, reader_of(Rebuild))

    def hold(self, subject: str, reason: str, until: Moment, key: str | None) -> Call[Subject]:
        body = {"reason": reason} | ({} if until is None else {"until": time_text(until)})
        return self._write("PUT", f"/v1/subjects/{subject_path(subject)}/hold", body, key, reader_of(Subject))

    def release(self, subject: str, reason: str, key: str | None) -> Call[Subject]:
        path = f"/v1/subjects/{subject_path(subject)}/hold"
        return self._write("DELETE", path, {"reason": reason}, key, reader_of(Subject))

    def erase(self, subject: str, reason: str, key: str | None) -> Call[Subject]:
        path = f"/v1/subjects/{subject_path(subject)}/erasure"
        return self._write("POST", path, {"reason": reason}, key, reader_of(Subject))

    def _read(
        self, path: str, query: Mapping[str, str], read: Reader[T], headers: Mapping[str, str] | None = None
    ) -> Call[T]:
        url = f"{self.url}{path}"
        request = Request("GET", f"{url}?{urlencode(query)}" if query else url, {**self.headers, **(headers or {})})
        return Call(request, read)

    def _write(self, method: str, path: str, body: Any, key: str | None, read: Reader[T]) -> Call[T]:
        key = key or str(uuid4())
        headers = {**self.headers, "idempotency-key": key}
        content = b""
        if body is not None:
            headers["content-type"], content = "application/json", json_bytes(body)
        return Call(Request(method, f"{self.url}{path}", headers, content, key), read)


def reader_of(kind: type[T]) -> Reader[T]:
    """Make what reads an answer as *kind*."""
    return lambda answer: msgspec.json.decode(answer.body, type=kind)


def replayable(kind: type[S]) -> Reader[S]:
    """Make what reads an answer as *kind*, whose `replayed` says whether it had been given before."""

    def read(answer: Answer) -> S:
        is_replayed = answer.headers.get("idempotency-replayed") == "true"
        return msgspec.structs.replace(msgspec.json.decode(answer.body, type=kind), replayed=is_replayed)

    return read


class Operations:
    """The blocking half; mixed into `Audit`."""

    calls: OperationCalls
    transport: Transport

    def rebuild(
        self,
        view: str,
        reason: str,
        *,
        as_of: Moment = None,
        auto_flip: bool = True,
        idempotency_key: str | None = None,
    ) -> Rebuild:
        """
        Begin to make a view again beside the live one; with *as_of*, as it was known then.

        Raises:
            Conflict: `rebuild_running`; carries its id.
        """
        return self.transport.run(self.calls.rebuild(view, reason, as_of, idempotency_key, auto_flip=auto_flip))

    def rebuild_state(self, rebuild_id: str) -> Rebuild:
        """Ask how far a rebuild has come."""
        return self.transport.run(self.calls.rebuild_state(rebuild_id))

    def change_rebuild(self, rebuild_id: str, change: Change, *, idempotency_key: str | None = None) -> Rebuild:
        """Swap a rebuilt view in, take it back, or give it up."""
        return self.transport.run(self.calls.rebuild_change(rebuild_id, change, idempotency_key))

    def hold(self, subject: str, reason: str, *, until: Moment = None, idempotency_key: str | None = None) -> Subject:
        """
        Forbid that a subject's content is erased, until a time or until it is released.

        Raises:
            Invalid: `invalid_subject`; refused here, before anything is sent.
        """
        return self.transport.run(self.calls.hold(subject, reason, until, idempotency_key))

    def release(self, subject: str, reason: str, *, idempotency_key: str | None = None) -> Subject:
        """End the hold that runs for *reason*."""
        return self.transport.run(self.calls.release(subject, reason, idempotency_key))

    def erase(self, subject: str, reason: str, *, idempotency_key: str | None = None) -> Subject:
        """
        Destroy a subject's content for good; every proof still holds.

        Raises:
            Invalid: `invalid_subject`; refused here, before anything is sent.
            Conflict: `held`.
            NotFound: `subject_not_found`; nothing was ever sealed for it.
        """
        return self.transport.run(self.calls.erase(subject, reason, idempotency_key))


class AsyncOperations:
    """The awaiting half; every promise is that of `Operations`."""

    calls: OperationCalls
    transport: AsyncTransport

    async def rebuild(
        self,
        view: str,
        reason: str,
        *,
        as_of: Moment = None,
        auto_flip: bool = True,
        idempotency_key: str | None = None,
    ) -> Rebuild:
        call = self.calls.rebuild(view, reason, as_of, idempotency_key, auto_flip=auto_flip)
        return await self.transport.run(call)

    async def rebuild_state(self, rebuild_id: str) -> Rebuild:
        return await self.transport.run(self.calls.rebuild_state(rebuild_id))

    async def change_rebuild(self, rebuild_id: str, change: Change, *, idempotency_key: str | None = None) -> Rebuild:
        return await self.transport.run(self.calls.rebuild_change(rebuild_id, change, idempotency_key))

    async def hold(
        self, subject: str, reason: str, *, until: Moment = None, idempotency_key: str | None = None
    ) -> Subject:
        return await self.transport.run(self.calls.hold(subject, reason, until, idempotency_key))

    async def release(self, subject: str, reason: str, *, idempotency_key: str | None = None) -> Subject:
        return await self.transport.run(self.calls.release(subject, reason, idempotency_key))

    async def erase(self, subject: str, reason: str, *, idempotency_key: str | None = None) -> Subject:
        return await self.transport.run(self.calls.erase(subject, reason, idempotency_key))
