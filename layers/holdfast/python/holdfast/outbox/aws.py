"""
The outbox on AWS: EventBridge, SQS and SNS, a batch at a time.

A batch is taken in part at any time. What was not taken is sent again within a budget. A message is told as refused
only where the answer blames it; whatever else remains makes its target unavailable. So a failure of the target, told
entry by entry, parks no stream. A message that a target never takes and never blames holds up what is sent there:
somebody has to look, for which there is an alarm, instead of at every stream after an outage.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec

from holdfast.aws import Garbled, client
from holdfast.clock import Clock, from_text
from holdfast.cloudevents import Attributes
from holdfast.errors import Unavailable
from holdfast.outbox.order import send_in_order
from holdfast.outbox.values import (
    BATCH_BYTES_MAX,
    BATCH_MESSAGES_MAX,
    MESSAGE_BYTES_MAX,
    Message,
    RefusedMessage,
    Target,
    bus_bytes,
    target_of,
)
from holdfast.retry import Budget, repeat

T = TypeVar("T")

CALLS: Final = Budget(attempts_max=4, seconds_max=6.0, first_wait_seconds=0.05)
"""How often and how long one batch is offered."""

_THROTTLE: Final = re.compile("throttl", re.IGNORECASE)
_OF_TARGET: Final = re.compile("throttl|kms|denied|authorization", re.IGNORECASE)
"""Codes that no message is the reason of, whatever an answer says of it: its target is busy, or shut to us."""
_OF_CONTENT: Final = frozenset(
    {
        "BatchRequestTooLong",
        "AWS.SimpleQueueService.BatchRequestTooLong",
        "BatchRequestTooLongException",
        "InvalidMessageContents",
        "InvalidParameter",
        "InvalidParameterException",
        "InvalidParameterValue",
        "InvalidParameterValueException",
    }
)
"""Refusals of a whole call that one message in it may be the reason of."""


class _Passing(Exception):
    """This attempt was not taken, at least in part; another may be."""


class _ContentRefused(Exception):
    """A call was refused for something in it."""


@dataclass(frozen=True)
class _Failure:
    reason: str
    is_of_message: bool = False
    """Whether it would fail again, whenever it is sent."""


@dataclass(frozen=True)
class AwsOutbox:
    """The way out of one service: its *bus*, and the queues and topics that its role may send to."""

    bus: str
    clock: Clock
    region: str | None = None
    """Of the bus; queues and topics name their own."""
    endpoint_url: str | None = None
    budget: Budget = CALLS

    def publish(self, events: Sequence[Attributes]) -> None:
        unavailable = partial(_unavailable, "bus_unavailable", self.bus)
        for batch in list(_batches([self._entry(event) for event in events])):
            try:
                _, left = self._offered(batch, self._put, unavailable=unavailable)
            except _ContentRefused as error:
                raise unavailable(str(error)) from error
            if left:
                raise unavailable(left[0][1].reason)

    def to_queue(self, arn: str, messages: Sequence[Message]) -> tuple[RefusedMessage, ...]:
        return self._send(target_of(arn), messages, self._to_sqs)

    def to_topic(self, arn: str, messages: Sequence[Message]) -> tuple[RefusedMessage, ...]:
        return self._send(target_of(arn), messages, self._to_sns)

    # ----- the bus

    def _entry(self, event: Attributes) -> dict[str, Any]:
        return {
            "EventBusName": self.bus,
            "Source": event["source"],
            "DetailType": event["type"],
            "Time": from_text(event["time"]),
            "Detail": msgspec.json.encode(event).decode(),
        }

    def _put(self, entries: Sequence[dict[str, Any]]) -> Sequence[_Failure | None]:
        answer = client("events", region=self.region, endpoint_url=self.endpoint_url).put_events(Entries=list(entries))
        told = answer.get("Entries", ())
        if len(told) != len(entries):
            raise _Passing("the answer does not tell of every event")
        return [
            _Failure(f"{each['ErrorCode']}: {each.get('ErrorMessage', '')}") if each.get("ErrorCode") else None
            for each in told
        ]

    # ----- queues and topics

    def _send(
        self,
        target: Target,
        messages: Sequence[Message],
        call: Callable[[Target, Sequence[Message]], Mapping[str, Any]],
    ) -> tuple[RefusedMessage, ...]:
        unavailable = partial(_unavailable, "target_unavailable", target.arn)

        def attempt(batch: Sequence[tuple[int, Message]]) -> Sequence[_Failure | None]:
            return _told(call(target, [message for _, message in batch]), len(batch))

        def offer(batch: Sequence[tuple[int, Message]]) -> Mapping[int, str]:
            try:
                refused, left = self._offered(batch, attempt, unavailable=unavailable)
            except _ContentRefused as error:
                if len(batch) == 1:
                    return {batch[0][0]: str(error)}
                # One of them is to blame, and nobody says which; their groups differ, so each may go alone.
                return {place: reason for each in batch for place, reason in offer([each]).items()}
            if left:
                raise unavailable(left[0][1].reason)
            return {place: failure.reason for (place, _), failure in refused}

        return send_in_order(
            messages, lambda batch: offer(list(enumerate(batch))), message_bytes_max=MESSAGE_BYTES_MAX[target.service]
        )

    def _to_sqs(self, target: Target, messages: Sequence[Message]) -> Mapping[str, Any]:
        sqs = client("sqs", region=target.region, endpoint_url=self.endpoint_url)
        # Made of the ARN, and not asked for: that would take a right that sending does not need.
        url = f"{sqs.meta.endpoint_url.rstrip('/')}/{target.account}/{target.name}"
        answer: Mapping[str, Any] = sqs.send_message_batch(
            QueueUrl=url,
            Entries=[_entry_of(target, number, each, "MessageBody") for number, each in enumerate(messages)],
        )
        return answer

    def _to_sns(self, target: Target, messages: Sequence[Message]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = client("sns", region=target.region, endpoint_url=self.endpoint_url).publish_batch(
            TopicArn=target.arn,
            PublishBatchRequestEntries=[
                _entry_of(target, number, each, "Message") for number, each in enumerate(messages)
            ],
        )
        return answer

    # ----- both

    def _offered(
        self,
        items: Sequence[T],
        call: Callable[[Sequence[T]], Sequence[_Failure | None]],
        *,
        unavailable: Callable[[str], Unavailable],
    ) -> tuple[list[tuple[T, _Failure]], list[tuple[T, _Failure]]]:
        """
        Offer *items* until all are taken or the budget is spent.

        Answers those that are themselves to blame, and those that remain, each with the reason.

        Raises:
            Unavailable: whoever is called does not answer, or answers that none of its callers has a right.
            _ContentRefused: the call as a whole is refused for something in it.
        """
        left = list(items)
        refused: list[tuple[T, _Failure]] = []
        passing: list[tuple[T, _Failure]] = []

        def attempt() -> None:
            nonlocal left, passing
            passing = []
            told = _named(lambda: call(left), unavailable)
            failed = [(item, failure) for item, failure in zip(left, told, strict=True) if failure]
            refused.extend(each for each in failed if each[1].is_of_message)
            passing = [each for each in failed if not each[1].is_of_message]
            left = [item for item, _ in passing]
            if left:
                raise _Passing(passing[0][1].reason)

        try:
            repeat(attempt, on=_Passing, budget=self.budget, clock=self.clock)
        except _Passing as error:
            if not passing:  # the last attempt got no answer at all
                raise unavailable(str(error)) from error
        return refused, passing


def _named(call: Callable[[], T], unavailable: Callable[[str], Unavailable]) -> T:
    """Make a call, and name what it raises by what is to be done next."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - imported with the first client
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    try:
        return call()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if (
            status >= HTTPStatus.INTERNAL_SERVER_ERROR
            or status == HTTPStatus.TOO_MANY_REQUESTS
            or _THROTTLE.search(code)
        ):
            raise _Passing(f"HTTP {status} {code}") from error
        if code in _OF_CONTENT:
            raise _ContentRefused(f"{code}: {error.response['Error'].get('Message', '')}") from error
        raise unavailable(code) from error
    except (BotoCoreError, ResponseParserError, Garbled) as error:
        raise _Passing(type(error).__name__) from error


def _unavailable(code: str, where: str, why: str) -> Unavailable:
    return Unavailable(code, f"{where} does not take what is sent to it: {why}. Repeat.", retry_after_seconds=1)


def _entry_of(target: Target, number: int, message: Message, body: str) -> dict[str, Any]:
    ordering = {"MessageGroupId": message.group, "MessageDeduplicationId": message.id} if target.is_ordered else {}
    return {"Id": str(number), body: message.body, **ordering}


def _told(answer: Mapping[str, Any], count: int) -> list[_Failure | None]:
    """Read which messages of a call were taken; what the answer does not name was not."""
    taken = {each["Id"] for each in answer.get("Successful", ())}
    failed = {each["Id"]: each for each in answer.get("Failed", ())}
    return [None if number in taken else _failure_of(failed.get(number)) for number in map(str, range(count))]


def _failure_of(entry: Mapping[str, Any] | None) -> _Failure:
    if entry is None:
        return _Failure("the answer does not tell of it")
    is_of_message = bool(entry.get("SenderFault")) and not _OF_TARGET.search(entry["Code"])
    return _Failure(f"{entry['Code']}: {entry.get('Message', '')}", is_of_message)


def _batches(entries: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """
    Cut entries of the bus into calls.

    Raises:
        Invalid: `event_too_large`.
    """
    batch: list[dict[str, Any]] = []
    taken = 0
    for entry in entries:
        size = bus_bytes(entry["Source"], entry["DetailType"], entry["Detail"])
        if batch and (len(batch) == BATCH_MESSAGES_MAX or taken + size > BATCH_BYTES_MAX):
            yield batch
            batch, taken = [], 0
        batch.append(entry)
        taken += size
    if batch:
        yield batch
