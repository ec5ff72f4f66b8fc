"""
Streams: append-only histories, the only place where Holdfast keeps what must not be lost.

A stream is a name and a sequence of events numbered from 1. Events are appended in commits; a commit is
written whole or not at all, at a version that its writer expected. The rules, whatever the store:

* The expected version is a *boundary*: the end of the newest commit. Inside or beyond it is refused.
* A commit knows its author (`commit_id`) and what was asked (`fingerprint`). Asking again, however much
  later, gives the first answer; asking something else under the same id is refused.
* `recorded_at` rises strictly within a stream, whatever the clock does.
* Commits never change. Each names the hash of the one before it.
"""

from holdfast.clock import Instant
from holdfast.streams.companions import AtLeast, Check, Companion, CompanionRefused, Condition, Is, Missing, Put, Update
from holdfast.streams.memory import MemoryEventStores
from holdfast.streams.packing import Codec, JsonCodec, RawCodec
from holdfast.streams.store import EventStore, EventStores
from holdfast.streams.transact import transact
from holdfast.streams.values import (
    ANY,
    BOUNDARY_AGE_MAX,
    CLOCK_SKEW_MAX,
    EVENTS_MAX,
    PACKED_BYTES_MAX,
    STREAM_NAME_MAX,
    Append,
    Appended,
    Boundary,
    Commit,
    Expected,
    StaleStream,
    category_of,
    check_stream,
    check_tenant,
)

__all__ = [
    "ANY",
    "BOUNDARY_AGE_MAX",
    "CLOCK_SKEW_MAX",
    "EVENTS_MAX",
    "PACKED_BYTES_MAX",
    "STREAM_NAME_MAX",
    "Append",
    "Appended",
    "AtLeast",
    "Boundary",
    "Check",
    "Codec",
    "Commit",
    "Companion",
    "CompanionRefused",
    "Condition",
    "EventStore",
    "EventStores",
    "Expected",
    "Instant",
    "Is",
    "JsonCodec",
    "MemoryEventStores",
    "Missing",
    "Put",
    "RawCodec",
    "StaleStream",
    "Update",
    "category_of",
    "check_stream",
    "check_tenant",
    "transact",
]
