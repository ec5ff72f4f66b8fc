"""
The narrow port to DynamoDB: one operation, one request, one answer, one attempt.

A transport makes exactly one attempt and says exactly what is known about it. It never repeats by
itself: repeating a write is safe only for those who know how it will look when it has been applied
already, and they live above (`writes`). Requests and answers are DynamoDB's own shapes
(`{"S": …}`), with bytes as bytes.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

import msgspec

from holdfast.aws import client

AttributeMap = Mapping[str, Mapping[str, Any]]


class Answer(msgspec.Struct, frozen=True):
    body: Mapping[str, Any]
    date: datetime | None
    """When the store says it answered; the check on our own clock."""


class Transport(Protocol):
    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        """
        Make one attempt at *operation* (`PutItem`, `Query` …).

        Raises:
            Refused, Cancelled: definite, a condition does not hold.
            Busy: definite, nothing happened, and repeating may help.
            Unknown: it may have happened.
            Rejected: a fault of ours.
        """


class Refused(Exception):
    """A condition does not hold. *item* is what stands there now."""

    def __init__(self, item: AttributeMap | None) -> None:
        super().__init__("condition failed")
        self.item = item


class Reason(msgspec.Struct, frozen=True):
    """Why one action of a transaction stood in the way; code `None` for those that did not."""

    code: str
    item: AttributeMap | None


class Cancelled(Exception):
    """A transaction did not happen. *reasons* are in the order of its actions."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        super().__init__(", ".join(reason.code for reason in reasons))
        self.reasons = tuple(reasons)


class Busy(Exception):
    """Nothing happened: throttled, in conflict with a neighbour's transaction, or never reached."""

    def __init__(self, code: str, *, is_throttle: bool) -> None:
        super().__init__(code)
        self.code = code
        self.is_throttle = is_throttle


class Unknown(Exception):
    """No answer, or one that does not say: it may have happened."""


class Rejected(Exception):
    """DynamoDB will not have this request at all: a fault in our code, our rights or our tables."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


THROTTLES: Final = frozenset(
    {"ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException", "ThrottlingError"}
)
CONFLICTS: Final = frozenset({"TransactionConflictException", "ReplicatedWriteConflictException"})
PASSING_REASONS: Final = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
"""Reasons of a cancelled transaction that say nothing about its conditions."""
SILENT: Final = frozenset(
    {"TransactionInProgressException", "InternalServerError", "ServiceUnavailable", "InternalFailure"}
)
"""Answers that leave open whether it happened."""


class BotocoreTransport:
    """DynamoDB through botocore's client, one attempt a call."""

    def __init__(self, region: str | None = None, endpoint_url: str | None = None) -> None:
        self._region = region
        self._endpoint_url = endpoint_url

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        from botocore import exceptions as failures  # noqa: PLC0415 - see holdfast.aws
        from botocore import xform_name  # noqa: PLC0415
        from botocore.parsers import ResponseParserError  # noqa: PLC0415

        dynamodb = client("dynamodb", attempts_max=1, region=self._region, endpoint_url=self._endpoint_url)
        try:
            body = getattr(dynamodb, xform_name(operation))(**request)
        except failures.ClientError as error:
            raise told_by(error.response) from error
        except (failures.EndpointConnectionError, failures.ConnectTimeoutError) as error:
            raise Busy("not_reached", is_throttle=False) from error
        except (failures.HTTPClientError, failures.IncompleteReadError, ResponseParserError) as error:
            raise Unknown(str(error)) from error
        return Answer(body, date_of(body))


def date_of(body: Mapping[str, Any]) -> datetime | None:
    text = body.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(text) if text else None


def told_by(response: Mapping[str, Any]) -> Exception:
    """Translate an error answer; what is nobody's answer but a fault of ours comes back as it was."""
    code = response["Error"]["Code"]
    if code == "ConditionalCheckFailedException":
        return Refused(response.get("Item"))
    if code == "TransactionCanceledException":
        return told_by_reasons(response.get("CancellationReasons", ()))
    if code in THROTTLES or code in CONFLICTS:
        return Busy(code, is_throttle=code in THROTTLES)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in SILENT or status >= 500:  # noqa: PLR2004
        return Unknown(code)
    return Rejected(code, response["Error"].get("Message", ""))


def told_by_reasons(reasons: Sequence[Mapping[str, Any]]) -> Exception:
    """
    Tell a transaction that lost on its conditions from one that only met a neighbour.

    A conflict beside a failed condition is no news about the condition: the failed one decides.
    """
    told = [Reason(reason.get("Code", "None"), reason.get("Item")) for reason in reasons]
    codes = {reason.code for reason in told} - {"None"}
    if codes and codes <= PASSING_REASONS:
        return Busy(min(codes), is_throttle="TransactionConflict" not in codes)
    return Cancelled(told)
