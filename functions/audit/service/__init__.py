"""
What can be asked of the audit trail.

    trail       one tenant's streams: append, read, states
    sealing     what is stored of what was understood
    reading     its read models: searches and lists, and how far they have come
    rebuilding  read models made again, and what becomes of them
    redriving   streams that stand still in one, and go on
    looking     its log, commit by commit, and what that lacks
    proving     that one event is in its log
    exporting   all of the log, for those who check it themselves
    subjects    data subjects: held, released, erased
    intake      what other services tell
    access      that somebody read something
"""

from functions.audit.service.access import Access
from functions.audit.service.exporting import Exports
from functions.audit.service.intake import Intake
from functions.audit.service.looking import Looking
from functions.audit.service.proving import EventProof, Prover
from functions.audit.service.reading import Asking, ReadModels
from functions.audit.service.rebuilding import Progress, Rebuilding
from functions.audit.service.redriving import Redriving
from functions.audit.service.subjects import Done, Subjects
from functions.audit.service.trail import AuditTrail, OnShow

__all__ = [
    "Access",
    "Asking",
    "AuditTrail",
    "Done",
    "EventProof",
    "Exports",
    "Intake",
    "Looking",
    "OnShow",
    "Progress",
    "Prover",
    "ReadModels",
    "Rebuilding",
    "Redriving",
    "Subjects",
]
