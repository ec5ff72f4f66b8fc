"""What is sent, where to, and what a sender promises. Pure."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec

from holdfast.clock import to_text
from holdfast.cloudevents import Attributes
from holdfast.errors import Invalid
from holdfast.ids import derived

KIB: Final = 1024
BATCH_MESSAGES_MAX: Final = 10
"""Messages of one call (SQS, SNS and EventBridge alike)."""
BATCH_BYTES_MAX: Final = 256 * KIB
"""Bytes of one call. SQS takes more; a message that is larger than this travels alone."""
MESSAGE_BYTES_MAX: Final = {"sqs": 1024 * KIB, "sns": 256 * KIB}
"""The largest message that each service takes, if its owner has not said less."""
EVENT_BYTES_MAX: Final = 256 * KIB
"""The largest event that the bus takes, its source and type included."""
TIME_BYTES: Final = 14
"""What the time of an entry counts for in EventBridge's limit ("Calculating PutEvents event entry size")."""

_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):(?P<service>sqs|sns):(?P<region>[a-z0-9-]{1,30}):(?P<account>[0-9]{12}):"
    r"(?P<name>[A-Za-z0-9_-]{1,251}(?P<fifo>\.fifo)?)",
    re.ASCII,
)


class Message(msgspec.Struct, frozen=True):
    """One message, on its way to a queue or a topic."""

    id: str
    """The same whenever this is sent again; up to 128 letters, digits and punctuation."""
    group: str
    """Messages of one group have an order among them; written like an id."""
    body: str


class RefusedMessage(msgspec.Struct, frozen=True):
    """A message that its target did not take, by its place among those that were to be sent."""

    index: int
    reason: str


class Target(msgspec.Struct, frozen=True):
    """A queue or a topic, as its ARN names it."""

    arn: str
    service: str
    """`sqs` or `sns`."""
    region: str
    account: str
    name: str

    @property
    def is_ordered(self) -> bool:
        """Tell whether it is FIFO: it keeps the order within a group, and drops what comes twice in five minutes."""
        return self.name.endswith(".fifo")


def target_of(arn: str) -> Target:
    """
    Read the ARN of a queue or a topic.

    Raises:
        Invalid: `invalid_target`.
    """
    match = _ARN.fullmatch(arn)
    if not match:
        raise Invalid(
            "invalid_target",
            "A target is the ARN of an SQS queue or an SNS topic: arn:aws:sqs:<region>:<account>:<name>.",
        )
    return Target(arn, match["service"], match["region"], match["account"], match["name"])


def bus_bytes(source: str, kind: str, detail: str) -> int:
    """
    Count what an event takes of the bus's limits.

    Raises:
        Invalid: `event_too_large`.
    """
    size = TIME_BYTES + sum(len(part.encode()) for part in (source, kind, detail))
    if size > EVENT_BYTES_MAX:
        raise Invalid("event_too_large", f"An event of {size} bytes is more than the bus takes.", status=413)
    return size


class Outbox(Protocol):
    """
    The way out.

    Every call is bounded in time and may be repeated whole; some of it may have been sent when it raises.
    """

    def publish(self, events: Sequence[Attributes]) -> None:
        """
        Put CloudEvents on the bus.

        Raises:
            Invalid: `event_too_large`; none was published.
            Unavailable: `bus_unavailable`, `out_of_time`; repeat.
        """

    def to_queue(self, arn: str, messages: Sequence[Message]) -> tuple[RefusedMessage, ...]:
        """
        Send *messages* to a queue; answer those that it refused.

        Within a group they go in order: none before the one ahead of it was taken, and none behind one that was
        refused. So at most one of each group is answered, and those behind it were not sent.

        Raises:
            Invalid: `invalid_target`.
            Unavailable: `target_unavailable`, `out_of_time`; no message is to blame for it; repeat.
        """

    def to_topic(self, arn: str, messages: Sequence[Message]) -> tuple[RefusedMessage, ...]:
        """Send *messages* to a topic; promises and raises as `to_queue`."""


def announcement(
    service: str, name: str, *, identity: Sequence[str], time: datetime, data: Any, subject: str, tenant: str | None
) -> Attributes:
    """
    Make the CloudEvent by which a service tells the others what happened: `holdfast.<service>.<name>.v1`.

    *identity* is what makes it this event and no other; its id is derived from it. What concerns all tenants has none.
    """
    kind = f"holdfast.{service}.{name}.v1"
    event: Attributes = {
        "specversion": "1.0",
        "id": derived("announcement", kind, tenant or "", *identity),
        "source": f"holdfast.{service}",
        "type": kind,
        "subject": subject,
        "time": to_text(time),
        "datacontenttype": "application/json",
        "data": data,
    }
    return event if tenant is None else {**event, "tenant": tenant}
