"""
The narrow port to DynamoDB: one operation, one request, one answer, one attempt.

A transport makes exactly one attempt and says exactly what is known about it. It never repeats by
itself: repeating a write is safe only for those who know how it will look when it has been applied
already, and they live above (`writes`). Requests and answers are DynamoDB's own shapes
(`{"S": …}`), with bytes as bytes.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec

from holdfast.aws import Garbled, client

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
            Busy: definite for this attempt, nothing happened, and repeating may help.
            Unknown: it may have happened.
            Rejected: definite, nothing happened: a fault of ours.
        """


class Told(Exception):
    """What is known of an attempt that brought no answer."""

    def __init__(self, message: str, *, date: datetime | None = None) -> None:
        super().__init__(message)
        self.date = date
        """When the store says it spoke, as in `Answer`; None if it did not."""


class Refused(Told):
    """A condition does not hold. *item* is what stands there now."""

    def __init__(self, item: AttributeMap | None, *, date: datetime | None = None) -> None:
        super().__init__("condition failed", date=date)
        self.item = item


class Reason(msgspec.Struct, frozen=True):
    """Why one action of a transaction stood in the way; code `None` for those that did not."""

    code: str
    item: AttributeMap | None


class Cancelled(Told):
    """A transaction did not happen. *reasons* are in the order of its actions."""

    def __init__(self, reasons: Sequence[Reason], *, date: datetime | None = None) -> None:
        super().__init__(", ".join(reason.code for reason in reasons), date=date)
        self.reasons = tuple(reasons)


class Busy(Told):
    """This attempt did nothing: throttled, in conflict with a neighbour's transaction, or never reached."""

    def __init__(self, code: str, *, is_throttle: bool, date: datetime | None = None) -> None:
        super().__init__(code, date=date)
        self.code = code
        self.is_throttle = is_throttle


class Unknown(Told):
    """No answer, or one that does not say: it may have happened."""


class Rejected(Told):
    """DynamoDB will not have this request at all: a fault in our code, our rights, our tables or our clock."""

    def __init__(self, code: str, message: str, *, date: datetime | None = None) -> None:
        super().__init__(f"{code}: {message}", date=date)
        self.code = code
        self.message = message


THROTTLES: Final = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottledException",
        "Throttling",
        "ThrottlingError",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
CONFLICTS: Final = frozenset({"TransactionConflictException", "ReplicatedWriteConflictException"})
PASSING_REASONS: Final = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
"""Reasons of a cancelled transaction that pass by themselves."""
SILENT: Final = frozenset(
    {
        "InternalFailure",
        "InternalServerError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "TransactionInProgressException",
    }
)
"""Answers that leave open whether it happened."""
CLOCK_FAULTS: Final = frozenset({"RequestExpired", "RequestTimeTooSkewed"})
SIGNATURE_FAULT: Final = "InvalidSignatureException"
UNTIMELY: Final = ("Signature expired", "Signature not yet current")
"""How the message of a signature fault begins if the fault is its time, and not its key."""


def is_clock_fault(error: BaseException) -> bool:
    """Tell whether DynamoDB turned a request away because the time we signed it with is not its own."""
    if not isinstance(error, Rejected):
        return False
    return error.code in CLOCK_FAULTS or (error.code == SIGNATURE_FAULT and error.message.startswith(UNTIMELY))


_has_left: ContextVar[bool] = ContextVar("has_left", default=False)
"""Whether the attempt that is being made has got as far as the network."""


class BotocoreTransport:
    """DynamoDB through botocore's client, one attempt a call."""

    def __init__(self, region: str | None = None, endpoint_url: str | None = None) -> None:
        self._region = region
        self._endpoint_url = endpoint_url

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        from botocore import exceptions as failures  # noqa: PLC0415 - see holdfast.aws
        from botocore import xform_name  # noqa: PLC0415

        _has_left.set(False)
        try:
            body = getattr(self._client(), xform_name(operation))(**request)
        except failures.ClientError as error:
            raise told_by(error.response) from error
        except (failures.EndpointConnectionError, failures.ConnectTimeoutError) as error:
            raise Busy("not_reached", is_throttle=False) from error
        except Garbled as error:
            raise Unknown(str(error), date=_date_in(error.headers)) from error
        except Exception as error:
            if not _has_left.get():  # no credentials, no region, a request that cannot be written …
                raise Rejected(type(error).__name__, str(error)) from error
            raise Unknown(f"{type(error).__name__}: {error}") from error
        return Answer(body, date_of(body))

    def _client(self) -> Any:
        dynamodb = client("dynamodb", region=self._region, endpoint_url=self._endpoint_url)
        # The client is shared and this says it again at each call; under one id the handler is registered once.
        dynamodb.meta.events.register("before-send.dynamodb", _note_leaving, unique_id="holdfast-note-leaving")
        return dynamodb


def _note_leaving(**_: Any) -> None:
    _has_left.set(True)


def date_of(response: Mapping[str, Any]) -> datetime | None:
    """Read when the store says it answered; None if it does not say, or not so that it means one moment."""
    return _date_in(response.get("ResponseMetadata", {}).get("HTTPHeaders", {}))


def _date_in(headers: Mapping[str, str]) -> datetime | None:
    text = headers.get("date")
    try:
        date = parsedate_to_datetime(text) if text else None
        return date.astimezone(UTC) if date and date.tzinfo else None
    except (ValueError, OverflowError):
        return None


def told_by(response: Mapping[str, Any]) -> Told:
    """
    Translate an error answer.

    Only DynamoDB itself, saying by name why it does not do what was asked (4xx), is definite. What carries no
    name was answered by something in between, or says nothing.
    """
    error, date = response.get("Error", {}), date_of(response)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error.get("Code") or str(status)
    is_named = code != str(status)  # botocore fills in the status where there is no name
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Busy(code, is_throttle=True, date=date)
    is_definite = is_named and HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    if not is_definite or code in SILENT or status == HTTPStatus.REQUEST_TIMEOUT:
        return Unknown(f"HTTP {status} {code}" if is_named else f"HTTP {status}", date=date)
    if code == "ConditionalCheckFailedException":
        return Refused(response.get("Item"), date=date)
    if code == "TransactionCanceledException":
        return told_by_reasons(response.get("CancellationReasons", ()), date=date)
    if code in THROTTLES or code in CONFLICTS:
        return Busy(code, is_throttle=code in THROTTLES, date=date)
    return Rejected(code, error.get("Message", ""), date=date)


def told_by_reasons(reasons: Sequence[Mapping[str, Any]], *, date: datetime | None = None) -> Told:
    """
    Tell a transaction that lost on its conditions from one that met a neighbour.

    A failed condition beside a conflict decides nothing: the neighbour may be our own earlier attempt, half-way
    through, which has written the row the condition is about and still holds the other. And reasons that give no
    reason say nothing at all.
    """
    told = [Reason(reason.get("Code", "None"), reason.get("Item")) for reason in reasons]
    codes = {reason.code for reason in told} - {"None"}
    if not codes:
        return Unknown("a transaction was cancelled for no reason", date=date)
    passing = codes & PASSING_REASONS
    if passing:
        return Busy(min(passing), is_throttle="TransactionConflict" not in passing, date=date)
    return Cancelled(told, date=date)
