"""A key in KMS: it never leaves it, and every use of it stands in CloudTrail."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final

from holdfast.aws import Garbled, client
from holdfast.clock import Clock
from holdfast.errors import Unavailable
from holdfast.retry import Budget, repeat

CALLS: Final = Budget(attempts_max=6, seconds_max=10.0)
"""How often and how long one call to KMS is repeated."""

_PASSING: Final = frozenset(
    {"DependencyTimeoutException", "KeyUnavailableException", "ThrottlingException", "RequestTimeout"}
)


class _Passing(Exception):
    """This attempt brought nothing; another may."""


@dataclass(frozen=True)
class KmsKey:
    """One key, by its id, ARN or alias."""

    unavailable: ClassVar[str]
    """The public code of an error that says this key could not be asked."""

    key: str
    clock: Clock
    budget: Budget = CALLS
    region: str | None = None
    endpoint_url: str | None = None

    def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        """
        Do what *operation* (as boto3 names it) does with this key; calls of KMS leave nothing behind, and are repeated.

        Raises:
            Unavailable: KMS did not answer; nothing happened.
            botocore's ClientError: what does not pass by itself: our rights, our key, or what we sent.
        """
        try:
            return repeat(lambda: self._attempt(operation, request), on=_Passing, budget=self.budget, clock=self.clock)
        except _Passing as error:
            raise Unavailable(
                self.unavailable, f"KMS does not answer: {error}. Nothing happened; repeat.", retry_after_seconds=1
            ) from error

    def _attempt(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        from botocore import exceptions as failures  # noqa: PLC0415 - see holdfast.aws

        kms = client("kms", region=self.region, endpoint_url=self.endpoint_url)
        try:
            answer: dict[str, Any] = getattr(kms, operation)(KeyId=self.key, **request)
        except failures.ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error.response.get("Error", {}).get("Code", "")
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS or code in _PASSING:
                raise _Passing(f"HTTP {status} {code}") from error
            raise
        except (failures.HTTPClientError, failures.ConnectionError, Garbled) as error:
            raise _Passing(type(error).__name__) from error
        return answer
