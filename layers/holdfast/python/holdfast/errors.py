"""
The taxonomy: an error is named by what the caller does next.

    ServiceError
    ├── Invalid       change the request
    ├── Denied        ask for rights
    ├── NotFound      it does not exist, or is not yours
    ├── Conflict      the state forbids it
    ├── Stale         read again and decide again
    ├── Throttled     wait, then repeat
    ├── Unavailable   nothing happened, repeat
    └── Uncertain     something may have happened: ask with the same idempotency key before doing it again

A raised error carries a stable machine word (`code`), a sentence for people, and the facts that the
caller needs to act. Only the HTTP door knows how it looks on the wire (RFC 9457).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class ServiceError(Exception):
    """Tell a caller what went wrong and what to do next."""

    status: ClassVar[int]
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        pointer: str | None = None,
        retry_after_seconds: int | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.http_status = status or self.status
        self.pointer = pointer
        """The JSON pointer (RFC 6901) of the member at fault, where there is one."""
        self.retry_after_seconds = retry_after_seconds
        self.facts = facts


class Invalid(ServiceError):
    """The request cannot be carried out as it is: change it."""

    status = 400


class Denied(ServiceError):
    """The caller may not do this: ask for rights (403), or say who you are (401)."""

    status = 403


class NotFound(ServiceError):
    """There is no such thing, or it belongs to somebody else; the two look the same on purpose."""

    status = 404


class Conflict(ServiceError):
    """The state forbids it, and repeating will not help."""

    status = 409


class Stale(ServiceError):
    """The decision rested on a state that has moved on: read again and decide again."""

    status = 409


class Throttled(ServiceError):
    """Nothing happened; too much is asked at once: wait, then repeat."""

    status = 429
    retryable = True


class Unavailable(ServiceError):
    """Nothing happened; repeat."""

    status = 503
    retryable = True


class Uncertain(ServiceError):
    """Something may have happened: ask with the same idempotency key before doing it again."""

    status = 503
    retryable = True


@contextmanager
def once_done() -> Iterator[None]:
    """
    Tell a failure in here as what it is to a caller whose change stands already: the answer alone is missing.

    Raises:
        Uncertain: instead of `Throttled` and `Unavailable`, which would say that nothing happened.
    """
    try:
        yield
    except (Throttled, Unavailable) as error:
        raise Uncertain(
            "outcome_unknown",
            "It was done, or a part of it, and then its answer could not be made. Ask again in the same words.",
            retry_after_seconds=1,
        ) from error
