"""Routes of data subjects: legal holds, and the erasure of what was sealed for one."""

from typing import Annotated

import msgspec

from functions.audit import adapters, domain
from functions.audit.app.door import STORE_ERRORS, STORE_UNAVAILABLE, app, moment
from functions.audit.service import Done, Subjects
from holdfast.clock import to_text
from holdfast.http import IDEMPOTENCY_REPLAYED, Answer, Caller, IdempotencyKey
from holdfast.sealing import check_subject
from holdfast.subjects.rules import REASON_BYTES_MAX, Subject

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_BYTES_MAX)]
"""At most so many characters; what is decided on is the number of bytes."""


class HoldBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a subject may not be erased, and until when."""

    reason: Reason
    until: str | None = None
    """A time (RFC 3339); without it until it is released."""


class ReasonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Reason


class HoldItem(msgspec.Struct, frozen=True):
    reason: str
    by: str
    until: str | None


class SubjectAnswer(msgspec.Struct, frozen=True):
    subject: str
    state: str
    """`live`, or `erased`."""
    holds: list[HoldItem]
    erased_at: str | None
    final_at: str | None
    """When no backup can bring the key back any more."""

    @classmethod
    def of(cls, subject: Subject) -> "SubjectAnswer":
        holds = [HoldItem(hold.reason, hold.by, to_text(hold.until) if hold.until else None) for hold in subject.holds]
        erased_at, final_at = (to_text(at) if at else None for at in (subject.erased_at, subject.final_at))
        return cls(subject.name, subject.state, holds, erased_at, final_at)


SUBJECT_ERRORS = {
    **STORE_ERRORS,
    400: ["invalid_subject", "invalid_reason"],
    404: ["subject_not_found"],
    422: ["idempotency_mismatch"],
    503: [*STORE_UNAVAILABLE, "outcome_unknown", "contended", "boundary_expired"],
}
HOLD_ERRORS = {
    **SUBJECT_ERRORS,
    400: ["invalid_subject", "invalid_reason", "invalid_until", "invalid_time"],
    409: ["subject_erased", "too_many_holds"],
}
ERASURE_ERRORS = {**SUBJECT_ERRORS, 409: ["held"]}
REPLAYED = [IDEMPOTENCY_REPLAYED]


@app.put("/v1/subjects/{subject}/hold", scope="audit:erase", raises=HOLD_ERRORS, headers=REPLAYED)
def put_hold(caller: Caller, subject: str, body: HoldBody, key: IdempotencyKey | None) -> Answer[SubjectAnswer]:
    """Keep a subject's content from being erased. Holding twice for one reason holds once."""
    until = moment(body.until, "until")
    act = domain.Act(caller.tenant, named(subject), "hold", body.reason, by=caller.subject, until=until, key=key)
    return answer_of(subjects(caller).do(act))


@app.delete("/v1/subjects/{subject}/hold", scope="audit:erase", raises=SUBJECT_ERRORS, headers=REPLAYED)
def delete_hold(caller: Caller, subject: str, body: ReasonBody, key: IdempotencyKey | None) -> Answer[SubjectAnswer]:
    """End the hold that runs for this reason."""
    act = domain.Act(caller.tenant, named(subject), "release", body.reason, by=caller.subject, key=key)
    return answer_of(subjects(caller).do(act))


@app.post(
    "/v1/subjects/{subject}/erasure",
    scope="audit:erase",
    status=202,
    also=[200],
    raises=ERASURE_ERRORS,
    headers=REPLAYED,
)
def post_erasure(caller: Caller, subject: str, body: ReasonBody, key: IdempotencyKey | None) -> Answer[SubjectAnswer]:
    """
    Destroy the key of a subject, and with it all content that was sealed for it. Every proof still holds.

    A subject that is erased already is answered as it was then, with 200.
    """
    act = domain.Act(caller.tenant, named(subject), "erase", body.reason, by=caller.subject, key=key)
    done = subjects(caller).do(act)
    return answer_of(done, status=202 if done.is_change else 200)


def answer_of(done: Done, status: int | None = None) -> Answer[SubjectAnswer]:
    headers = {IDEMPOTENCY_REPLAYED.name: "true"} if done.is_replay else {}
    return Answer(SubjectAnswer.of(done.subject), status, headers)


def subjects(caller: Caller) -> Subjects:
    store = adapters.event_stores().of(caller.tenant, caller.subject)
    return Subjects(adapters.subject_keys(caller.tenant), store, adapters.database().clock.now)


def named(segment: str) -> str:
    """Read a subject's name from a path segment, where `~` stands for `/`."""
    return check_subject(segment.replace("~", "/"))
