"""Which of many messages may go next: as many at once as one call takes, and never two of one group. Pure."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from holdfast.outbox.values import BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Message, RefusedMessage

Send = Callable[[Sequence[Message]], Mapping[int, str]]
"""Sends the messages of one call; answers why some of them were refused, by their place in it."""


def send_in_order(messages: Sequence[Message], send: Send, *, message_bytes_max: int) -> tuple[RefusedMessage, ...]:
    """
    Send *messages* call by call, those of a group one after the other; what stands behind a refused one is not sent.

    A batch may be taken in part, and which part nobody can choose. So no two of one group share a call.
    """
    waiting: dict[str, deque[int]] = {}
    for index, message in enumerate(messages):
        waiting.setdefault(message.group, deque()).append(index)
    refused: list[RefusedMessage] = []
    while waiting:
        first = sorted(places[0] for places in waiting.values())
        too_large = [index for index in first if bytes_of(messages[index]) > message_bytes_max]
        batch = too_large or _fitting(messages, first)
        if too_large:
            reason = f"The message has over {message_bytes_max} bytes, more than the target takes."
            reasons: Mapping[int, str] = dict.fromkeys(range(len(batch)), reason)
        else:
            reasons = send([messages[index] for index in batch])
        for place, index in enumerate(batch):
            group = messages[index].group
            waiting[group].popleft()
            if place in reasons:
                refused.append(RefusedMessage(index, reasons[place]))
                del waiting[group]
            elif not waiting[group]:
                del waiting[group]
    return tuple(sorted(refused, key=lambda each: each.index))


def _fitting(messages: Sequence[Message], indices: Sequence[int]) -> list[int]:
    """Choose from the front as many as one call takes, at least one."""
    chosen: list[int] = []
    taken = 0
    for index in indices[:BATCH_MESSAGES_MAX]:
        taken += bytes_of(messages[index])
        if chosen and taken > BATCH_BYTES_MAX:
            break
        chosen.append(index)
    return chosen


def bytes_of(message: Message) -> int:
    return len(message.body.encode())
