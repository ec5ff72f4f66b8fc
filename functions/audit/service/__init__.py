"""
What can be asked of the audit trail.

    trail     one tenant's streams: append, read, states
    reading   its read models: searches and lists, and how far they have come
    proving   that one event is in its log
    subjects  data subjects: held, released, erased
"""

from functions.audit.service.proving import EventProof, Prover
from functions.audit.service.reading import Asking, ReadModels
from functions.audit.service.subjects import Subjects
from functions.audit.service.trail import AuditTrail

__all__ = ["Asking", "AuditTrail", "EventProof", "Prover", "ReadModels", "Subjects"]
