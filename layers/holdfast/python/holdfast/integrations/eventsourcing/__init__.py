"""
Persistence for the library `eventsourcing` on DynamoDB: `PERSISTENCE_MODULE=holdfast.integrations.eventsourcing`.

An insert is one transaction: its events in one item, the head of the log, a head for each originator, and the tracking
position if there is one. So events have their notification ids at once, the ids have no gaps and follow the order of
commits, and a lost reply, a repeat or a crash leaves an insert done once or not at all.
"""

from holdfast.integrations.eventsourcing.factory import HoldfastFactory
from holdfast.integrations.eventsourcing.recorders import (
    HoldfastAggregateRecorder,
    HoldfastApplicationRecorder,
    HoldfastProcessRecorder,
    HoldfastTrackingRecorder,
)
from holdfast.integrations.eventsourcing.refusals import OutcomeUnknownError

Factory = HoldfastFactory

__all__ = [
    "Factory",
    "HoldfastAggregateRecorder",
    "HoldfastApplicationRecorder",
    "HoldfastFactory",
    "HoldfastProcessRecorder",
    "HoldfastTrackingRecorder",
    "OutcomeUnknownError",
]
