"""
What a call can end in, other than its answer; a class is named by what the caller does next.

    HoldfastError
    ├── Invalid       change the request
    ├── Denied        ask for rights, or for a fresh token
    ├── NotFound      it does not exist, or is not yours
    ├── Conflict      the state forbids it
    │   └── Stale     read again and decide again: carries the winner
    ├── Throttled     wait, then repeat
    ├── Unavailable   repeat later
    ├── NotRunning    there is no local stack to talk to
    └── Uncertain     it may have happened: ask again with the same idempotency key

Every class but the last is a definite failure: nothing of the call happened. `Uncertain` is never a
failure, and a failure is never made of it.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import msgspec


class HoldfastError(Exception):
    """A call without its answer, with a stable machine word (`code`) and a sentence for people (`detail`)."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        pointer: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status
        """The HTTP status, or None where no answer arrived or none was asked for."""
        self.request_id = request_id
        """What to quote to an operator: the server's log lines carry it."""
        self.pointer = pointer
        """The JSON pointer (RFC 6901) of the member at fault, where there is one."""
        self.facts: Mapping[str, Any] = facts or {}
        """Whatever else the problem document said."""


class Invalid(HoldfastError):
    """The request cannot be carried out as it is: change it."""


class Denied(HoldfastError):
    """The token is not accepted (401) or lacks a scope (403)."""


class NotFound(HoldfastError):
    """There is no such thing, or it belongs to somebody else; the two look the same on purpose."""


class Conflict(HoldfastError):
    """The state forbids it, and repeating will not help."""


class Stale(Conflict):
    """The decision rested on a state that has moved on: read again and decide again."""

    @property
    def last_version(self) -> int | None:
        """The version that the stream is at now."""
        version = self.facts.get("last_version")
        return version if isinstance(version, int) else None

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """The winner's events as CloudEvents, so that deciding again needs no read; empty where they must be read."""
        events = self.facts.get("events")
        return events if isinstance(events, list) else []


class Throttled(HoldfastError):
    """Nothing happened; too much is asked at once."""


class Unavailable(HoldfastError):
    """Nothing happened; the service could not be reached, or could not serve."""


class NotRunning(HoldfastError):
    """No local stack runs where it was looked for."""


class Uncertain(HoldfastError):
    """
    The outcome is unknown: the call may have been carried out, and no definite answer came back.

    Ask again, here with `retry()` (sync: returns the answer; async: await it), or from another process
    by the same call with `idempotency_key=` and the same arguments: the server recognises the key, so
    it happens once however often it is asked.
    """

    def __init__(self, idempotency_key: str, last_failure: HoldfastError) -> None:
        super().__init__(
            "outcome_unknown",
            f"The call may or may not have been carried out; the last attempt ended with {last_failure}",
            status=last_failure.status,
            request_id=last_failure.request_id,
        )
        self.idempotency_key = idempotency_key
        self.last_failure = last_failure
        self._ask_again: Callable[[], Any] | None = None

    def retry(self) -> Any:
        """Repeat the same call, byte for byte: its answer, or `Uncertain` once more."""
        if self._ask_again is None:
            raise RuntimeError("this error was not raised by a client")
        return self._ask_again()

    def asked_again_by(self, ask_again: Callable[[], Any]) -> "Uncertain":
        self._ask_again = ask_again
        return self


class _Fault(msgspec.Struct, frozen=True):
    pointer: str | None = None


class _Problem(msgspec.Struct, frozen=True):
    """An RFC 9457 problem document, as far as every service writes it; or API Gateway's own `{"message": …}`."""

    code: str = ""
    detail: str = ""
    title: str = ""
    message: str = ""
    retryable: bool = False
    request_id: str | None = None
    errors: list[_Fault] = []


class StatusClass(IntEnum):
    """What the first digit of a status says (RFC 9110, section 15)."""

    INFORMATION = 1
    SUCCESS = 2
    REDIRECTION = 3
    REFUSAL = 4
    FAULT = 5


def status_class(status: int) -> StatusClass:
    """Read the class of *status*; what is no status at all is a fault of the server."""
    digit = status // 100
    return StatusClass(digit) if digit in StatusClass.__members__.values() else StatusClass.FAULT


_STANDARD_MEMBERS = frozenset(
    {"type", "title", "status", "detail", "instance", "code", "retryable", "request_id", "errors", "message"}
)

_BY_STATUS: Mapping[int, type[HoldfastError]] = {
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    412: Stale,
    429: Throttled,
}
"""What is not named here is `Invalid` below 500, and `Unavailable` from there on."""


class Failure(msgspec.Struct, frozen=True):
    """An answer that is not a success, read."""

    error: HoldfastError
    retryable: bool
    """The service itself says that repeating may help."""


def read_failure(status: int, request_id: str | None, body: bytes) -> Failure:
    """Make the typed error of an answer; anything that is no problem document is told by its status alone."""
    try:
        members = msgspec.json.decode(body)
        problem = msgspec.convert(members, _Problem)
    except (msgspec.DecodeError, msgspec.ValidationError):
        members, problem = {}, _Problem()
    kind = _BY_STATUS.get(status, Invalid if status_class(status) is StatusClass.REFUSAL else Unavailable)
    if kind is Conflict and problem.code == "stale":
        kind = Stale
    error = kind(
        problem.code or f"http_{status}",
        problem.detail or problem.title or problem.message or f"The service answered {status} and said no more.",
        status=status,
        request_id=problem.request_id or request_id,
        pointer=next((fault.pointer for fault in problem.errors), None),
        facts={name: value for name, value in members.items() if name not in _STANDARD_MEMBERS},
    )
    return Failure(error, problem.retryable)
