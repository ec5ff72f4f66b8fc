"""
The outbox: events leave for the bus, for a queue or for a topic, as CloudEvents and at least once.

Whatever is sent may be sent again, by a caller that heard no answer or by one that takes over its work. So what leaves
has an id that is derived from what it tells, never made up: a receiver recognises a repeat by it.

    values    what is sent, and the port
    order     which of many messages may go next
    memory    an outbox in this process
    aws       EventBridge, SQS and SNS
    announced how far numbered things were told of
"""

from holdfast.outbox.announced import Announced
from holdfast.outbox.aws import AwsOutbox
from holdfast.outbox.memory import MemoryOutbox
from holdfast.outbox.values import Message, Outbox, RefusedMessage, Target, announcement, target_of

__all__ = [
    "Announced",
    "AwsOutbox",
    "MemoryOutbox",
    "Message",
    "Outbox",
    "RefusedMessage",
    "Target",
    "announcement",
    "target_of",
]
