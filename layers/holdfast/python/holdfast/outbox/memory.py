"""An outbox in this process: what was sent can be looked at, and targets can be made to refuse."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from holdfast.cloudevents import Attributes
from holdfast.errors import Unavailable
from holdfast.outbox.order import send_in_order
from holdfast.outbox.values import MESSAGE_BYTES_MAX, Message, RefusedMessage, bus_bytes, target_of


def _takes_all(arn: str, message: Message) -> str | None:  # noqa: ARG001 - the answer is the same for each
    return None


@dataclass
class MemoryOutbox:
    """The way out, as far as this process."""

    published: list[Attributes] = field(default_factory=list)
    sent: dict[str, list[Message]] = field(default_factory=lambda: defaultdict(list))
    """By target, every message in the order in which it was taken."""
    refusal: Callable[[str, Message], str | None] = _takes_all
    """Says why a target does not take a message; None if it does."""
    down: set[str] = field(default_factory=set)
    """Targets that do not answer."""

    def publish(self, events: Sequence[Attributes]) -> None:
        written = [msgspec.json.encode(event) for event in events]
        for event, detail in zip(events, written, strict=True):
            bus_bytes(event["source"], event["type"], detail.decode())
        self.published.extend(map(msgspec.json.decode, written))

    def to_queue(self, arn: str, messages: Sequence[Message]) -> tuple[RefusedMessage, ...]:
        return self._send(arn, messages)

    def to_topic(self, arn: str, messages: Sequence[Message]) -> tuple[RefusedMessage, ...]:
        return self._send(arn, messages)

    def _send(self, arn: str, messages: Sequence[Message]) -> tuple[RefusedMessage, ...]:
        limit = MESSAGE_BYTES_MAX[target_of(arn).service]
        return send_in_order(messages, lambda batch: self._take(arn, batch), message_bytes_max=limit)

    def _take(self, arn: str, batch: Sequence[Message]) -> Mapping[int, str]:
        if arn in self.down:
            raise Unavailable("target_unavailable", f"{arn} does not answer.")
        refused: dict[int, str] = {}
        for place, message in enumerate(batch):
            reason = self.refusal(arn, message)
            if reason is None:
                self.sent[arn].append(message)
            else:
                refused[place] = reason
        return refused
