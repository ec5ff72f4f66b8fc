"""Routes of subscriptions: the log's events, sent on to a queue or a topic of whoever asked for them."""

from typing import Annotated, Final, Literal

import msgspec

from functions.audit import adapters
from functions.audit.app.door import STORE_ERRORS, STORE_UNAVAILABLE, app, stream_named
from functions.audit.app.recording import recorded
from holdfast.clock import to_text
from holdfast.cloudevents import TEXT_BYTES_MAX
from holdfast.errors import once_done
from holdfast.http import Answer, Caller
from holdfast.streams.values import STREAM_NAME_MAX
from holdfast.subscriptions import Progress, Settings, Stand, Subscription
from holdfast.subscriptions.rules import TYPES_MAX

TARGET_CHARACTERS_MAX: Final = 400
"""The ARN of a topic may have some 330."""

# What is asked for is recorded, where reads are, before it is looked at: so it is bounded here.
Target = Annotated[str, msgspec.Meta(max_length=TARGET_CHARACTERS_MAX)]
Type = Annotated[str, msgspec.Meta(max_length=TEXT_BYTES_MAX)]
Types = Annotated[list[Type], msgspec.Meta(max_length=TYPES_MAX)]
Prefix = Annotated[str, msgspec.Meta(max_length=STREAM_NAME_MAX)]


class SubscriptionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"begins": "from"}):
    target: Target
    """The ARN of an SQS queue or an SNS topic that this deployment may send to."""
    types: Types = []
    """Of the events that are sent; all of them if there are none."""
    stream_prefix: Prefix = ""
    """What the names of their streams begin with."""
    begins: Literal["now", "start"] = "now"
    """Where a new subscription begins; one that exists goes on from where it is."""


class ProgressItem(msgspec.Struct, frozen=True):
    partition: int
    position: int
    """Up to there everything was sent, or stands still."""
    head: int
    lag_events: int
    lag_seconds: float
    standing: int
    """Streams that stand still, each behind an event that the target has refused."""
    parked: int
    """Those of them that were refused five times: they go on when they are redriven."""

    @classmethod
    def of(cls, progress: Progress) -> "ProgressItem":
        return cls(
            partition=progress.partition,
            position=progress.position,
            head=progress.head,
            lag_events=progress.lag_events,
            lag_seconds=progress.lag_seconds,
            standing=progress.standing,
            parked=progress.parked,
        )


class SubscriptionAnswer(msgspec.Struct, frozen=True, rename={"begins": "from"}):
    name: str
    target: str
    types: list[str]
    stream_prefix: str
    begins: str
    created_at: str
    created_by: str
    parked: int
    partitions: list[ProgressItem]


class StandItem(msgspec.Struct, frozen=True):
    """A stream that stands still: the event to be sent next."""

    stream: str
    version: int
    partition: int
    position: int
    attempts: int
    is_parked: bool
    due_at: str | None
    """When it is tried again by itself; null where it is parked."""
    reason: str

    @classmethod
    def of(cls, stand: Stand) -> "StandItem":
        return cls(
            stream=stand.stream,
            version=stand.version,
            partition=stand.partition,
            position=stand.position,
            attempts=stand.attempts,
            is_parked=stand.is_parked,
            due_at=None if stand.is_parked else to_text(stand.due_at),
            reason=stand.reason,
        )


class StandsAnswer(msgspec.Struct, frozen=True):
    items: list[StandItem]


class RedriveQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stream: str | None = None
    """The one to let go on; all of them if not said."""


class FreedAnswer(msgspec.Struct, frozen=True):
    redriven: list[str]
    """Streams that go on, within a minute."""


FOUND_ERRORS = {**STORE_ERRORS, 400: ["invalid_subscription"], 404: ["subscription_not_found"]}
CHANGE_ERRORS = {503: [*STORE_UNAVAILABLE, "contended", "outcome_unknown"]}
PUT_ERRORS = {
    **STORE_ERRORS,
    503: [*CHANGE_ERRORS[503], "not_recorded"],
    400: ["invalid_subscription", "invalid_target"],
    403: ["target_not_allowed"],
    409: ["too_many_subscriptions"],
}
DELETE_ERRORS = {**FOUND_ERRORS, **CHANGE_ERRORS}
REDRIVE_ERRORS = {
    **DELETE_ERRORS,
    400: ["invalid_subscription", "invalid_stream"],
    404: ["subscription_not_found", "not_parked"],
}


@app.put("/v1/subscriptions/{name}", scope="audit:subscribe", raises=PUT_ERRORS)
@recorded("subscription")
def put_subscription(caller: Caller, name: str, body: SubscriptionBody) -> SubscriptionAnswer:
    """Make a subscription, or change one."""
    settings = Settings(body.target, tuple(body.types), body.stream_prefix)
    made = adapters.subscriptions_of(caller.tenant).put(name, settings, begins=body.begins, by=caller.subject)
    with once_done():
        return answer_of(made)


@app.get("/v1/subscriptions/{name}", scope="audit:subscribe", raises=FOUND_ERRORS)
def get_subscription(caller: Caller, name: str) -> SubscriptionAnswer:
    """Say how far a subscription has come."""
    return answer_of(adapters.subscriptions_of(caller.tenant).get(name))


@app.delete("/v1/subscriptions/{name}", scope="audit:subscribe", status=204, raises=DELETE_ERRORS)
def delete_subscription(caller: Caller, name: str) -> Answer[None]:
    """End a subscription. One that is made anew under its name begins anew."""
    adapters.subscriptions_of(caller.tenant).delete(name)
    return Answer(None)


@app.get("/v1/subscriptions/{name}/parked", scope="audit:subscribe", raises=FOUND_ERRORS)
def get_parked(caller: Caller, name: str) -> StandsAnswer:
    """List the streams that stand still, those that are tried again by themselves among them."""
    subscriptions = adapters.subscriptions_of(caller.tenant)
    return StandsAnswer([StandItem.of(stand) for stand in subscriptions.stands(subscriptions.get(name))])


@app.post("/v1/subscriptions/{name}/redrive", scope="audit:subscribe", status=202, raises=REDRIVE_ERRORS)
def post_redrive(caller: Caller, name: str, query: RedriveQuery) -> FreedAnswer:
    """Let parked streams go on, each in its order from the event at which it stands."""
    subscriptions = adapters.subscriptions_of(caller.tenant)
    stream = None if query.stream is None else stream_named(query.stream)
    redriven = subscriptions.redrive(subscriptions.get(name), stream)
    return FreedAnswer([stand.stream for stand in redriven])


def answer_of(subscription: Subscription) -> SubscriptionAnswer:
    progress = adapters.subscriptions_of(subscription.tenant).progress(subscription)
    settings = subscription.settings
    return SubscriptionAnswer(
        name=subscription.name,
        target=settings.target,
        types=list(settings.types),
        stream_prefix=settings.stream_prefix,
        begins=subscription.begins,
        created_at=to_text(subscription.created_at),
        created_by=subscription.created_by,
        parked=sum(each.parked for each in progress),
        partitions=[ProgressItem.of(each) for each in progress],
    )
