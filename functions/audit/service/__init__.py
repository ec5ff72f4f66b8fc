"""
What can be asked of the audit trail.

    trail     one tenant's streams: append, read, states
    sealing   what is stored of what was understood
    reading   its read models: searches and lists, and how far they have come
    proving   that one event is in its log
    subjects  data subjects: held, released, erased
    intake    what other services tell
    access    that somebody read something
"""

from functions.audit.service.access import Access
from functions.audit.service.intake import Intake
from functions.audit.service.proving import EventProof, Prover
from functions.audit.service.reading import Asking, ReadModels
from functions.audit.service.subjects import Done, Subjects
from functions.audit.service.trail import AuditTrail, OnShow

__all__ = [
    "Access",
    "Asking",
    "AuditTrail",
    "Done",
    "EventProof",
    "Intake",
    "OnShow",
    "Prover",
    "ReadModels",
    "Subjects",
]
