"""
A key ring in KMS: the wrapping key never leaves it, and every use of it stands in CloudTrail.

CloudTrail shows the context of each call in clear, so what a context names must not itself be secret.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from holdfast.aws import Garbled, client
from holdfast.clock import Clock
from holdfast.envelope import Context, DataKey, Forged, WrappedKey
from holdfast.errors import Unavailable
from holdfast.retry import Budget, repeat

CALLS: Final = Budget(attempts_max=6, seconds_max=10.0)
"""How often and how long one call to KMS is repeated."""

_PASSING: Final = frozenset(
    {"DependencyTimeoutException", "KeyUnavailableException", "ThrottlingException", "RequestTimeout"}
)
_FORGED: Final = frozenset({"IncorrectKeyException", "InvalidCiphertextException"})


class _Passing(Exception):
    """This attempt brought nothing; another may."""


@dataclass(frozen=True)
class KmsKeyRing:
    """A symmetric key of KMS (`SYMMETRIC_DEFAULT`), by its id, ARN or alias."""

    key: str
    clock: Clock
    budget: Budget = CALLS
    region: str | None = None
    endpoint_url: str | None = None

    def make(self, context: Context) -> WrappedKey:
        answer = self._ask("generate_data_key", {"KeySpec": "AES_256", "EncryptionContext": dict(context)})
        return WrappedKey(DataKey(answer["Plaintext"]), answer["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, context: Context) -> DataKey:
        # Naming the key keeps a blob that somebody made under a key of their own from being taken for one of ours.
        answer = self._ask("decrypt", {"CiphertextBlob": wrapped, "EncryptionContext": dict(context)})
        try:
            return DataKey(answer["Plaintext"])
        except ValueError as error:
            raise Forged("What KMS unwrapped is no data key.") from error

    def _ask(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return repeat(lambda: self._attempt(operation, request), on=_Passing, budget=self.budget, clock=self.clock)
        except _Passing as error:
            raise Unavailable(
                "keys_unavailable",
                f"KMS does not answer: {error}. Nothing happened; repeat.",
                retry_after_seconds=1,
            ) from error

    def _attempt(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        from botocore import exceptions as failures  # noqa: PLC0415 - see holdfast.aws

        kms = client("kms", region=self.region, endpoint_url=self.endpoint_url)
        try:
            answer: dict[str, Any] = getattr(kms, operation)(KeyId=self.key, **request)
        except failures.ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error.response.get("Error", {}).get("Code", "")
            if code in _FORGED:
                raise Forged("KMS did not wrap this under this key and context.") from error
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS or code in _PASSING:
                raise _Passing(f"HTTP {status} {code}") from error
            raise  # our rights, our key: nothing that passes by itself
        except (failures.HTTPClientError, failures.ConnectionError, Garbled) as error:
            raise _Passing(type(error).__name__) from error
        return answer
