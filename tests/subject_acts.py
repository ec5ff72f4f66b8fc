"""What is done about data subjects, as the audit trail does it, on the tables of their keys."""

from dataclasses import replace
from datetime import datetime

from functions.audit.domain import Act
from functions.audit.service import Subjects
from holdfast.dynamodb import DynamoEventStores
from holdfast.streams import EventStore, RawCodec
from holdfast.subjects import ROLE, Subject, SubjectKeys


def stream_store(keys: SubjectKeys, by: str = "bob") -> EventStore[bytes]:
    """Reach the streams beside *keys*, in which it is told what was done."""
    tables = replace(keys.tables, companions={ROLE: keys.tables.operations})
    return DynamoEventStores(keys.database, RawCodec(), tables).of(keys.tenant, by)


def do(keys: SubjectKeys, act: Act) -> Subject:
    return Subjects(keys, stream_store(keys, act.by), keys.database.clock.now).do(act).subject


def hold(keys: SubjectKeys, subject: str, reason: str, until: datetime | None = None, *, by: str = "bob") -> Subject:
    return do(keys, Act(keys.tenant, subject, "hold", reason, by, until))


def release(keys: SubjectKeys, subject: str, reason: str) -> Subject:
    return do(keys, Act(keys.tenant, subject, "release", reason, "bob"))


def erase(keys: SubjectKeys, subject: str) -> Subject:
    return do(keys, Act(keys.tenant, subject, "erase", "they asked", "bob"))
