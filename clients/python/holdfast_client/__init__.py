"""
The Python SDK of Holdfast: typed, sync and async.

A call answers, fails definitely, or raises `Uncertain`: what is unknown is never shown as failed.
"""

from holdfast_client.audit import Appended, AsyncAudit, Audit, EventsPage, Expected, State
from holdfast_client.audit_queries import Changes, Committed
from holdfast_client.client import AsyncHoldfast, Holdfast
from holdfast_client.conversation import Budget
from holdfast_client.errors import (
    Conflict,
    Denied,
    HoldfastError,
    Invalid,
    NotFound,
    NotRunning,
    Stale,
    Throttled,
    Unavailable,
    Uncertain,
)
from holdfast_client.events import Event, RecordedEvent
from holdfast_client.tail import AsyncTail, Tail
from holdfast_client.tail_cursor import TailedEvent

__all__ = [
    "Appended",
    "AsyncAudit",
    "AsyncHoldfast",
    "AsyncTail",
    "Audit",
    "Budget",
    "Changes",
    "Committed",
    "Conflict",
    "Denied",
    "Event",
    "EventsPage",
    "Expected",
    "Holdfast",
    "HoldfastError",
    "Invalid",
    "NotFound",
    "NotRunning",
    "RecordedEvent",
    "Stale",
    "State",
    "Tail",
    "TailedEvent",
    "Throttled",
    "Unavailable",
    "Uncertain",
]
