"""
How the audit trail is reached: its routes, and the wiring behind them.

    door           the app, and what its routes share
    streams        append, read, states
    reading        read models: searches and lists
    log            the log and its proofs
    rebuilds       read models made again
    parked         what read models could not take
    proofs         anchors, keys and exports, for those who check for themselves
    subjects       legal holds and erasure
    tail           the log as it grows, over WebSockets
    subscriptions  its events, sent on to queues and topics
    recording      reads that are recorded
    workers        what runs without being asked
    announcing     what other services are told

What AWS calls by name stands in this module; the others declare routes.
"""

from functions.audit.app import log, parked, proofs, reading, rebuilds, recording, streams, subjects, subscriptions
from functions.audit.app.door import app
from functions.audit.app.tail import tail
from functions.audit.app.workers import anchor, archiver, indexer, intake, projector, rebuilder, repair, subscriber

__all__ = [
    "anchor",
    "app",
    "archiver",
    "indexer",
    "intake",
    "log",
    "parked",
    "projector",
    "proofs",
    "reading",
    "rebuilder",
    "rebuilds",
    "recording",
    "repair",
    "streams",
    "subjects",
    "subscriber",
    "subscriptions",
    "tail",
]
