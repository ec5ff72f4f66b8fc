"""
What a template asks for that the local engine drops or gets wrong, as values.

`stacks.differences.local_differences` reads it out of a merged template; `dispatcher`, `ticker`,
`sweeper` and `settings` carry it out. A template speaks of its own resources by logical id, a running stack by
physical name, so a profile is made in logical ids and then `resolved` once the stack stands.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

BATCH_SIZE_DEFAULT = 100
"""What AWS::Lambda::EventSourceMapping takes for a stream when `BatchSize` is not given."""

RETRY_FOR_EVER = -1
"""`MaximumRetryAttempts` of -1, the default on AWS: a failed batch blocks its shard until it expires."""


class StreamSource(msgspec.Struct, frozen=True, kw_only=True):
    """
    One AWS::Lambda::EventSourceMapping on a DynamoDB stream.

    `table`, `function_name` and `on_failure_arn` are literal names (an ARN for the last) or logical ids
    of the template: `{"Ref": X}` and `{"Fn::GetAtt": [X, …]}` are both written as plain `X`.
    """

    table: str
    function_name: str
    batch_size: int = BATCH_SIZE_DEFAULT
    starting_position: Literal["TRIM_HORIZON", "LATEST"] = "TRIM_HORIZON"
    bisect: bool = False
    """`BisectBatchOnFunctionError`."""
    retries_max: int = RETRY_FOR_EVER
    """`MaximumRetryAttempts`."""
    on_failure_arn: str | None = None
    """`DestinationConfig.OnFailure.Destination`: a queue or a topic; once resolved, possibly a queue's URL."""
    reports_item_failures: bool = False
    """`FunctionResponseTypes` holds `ReportBatchItemFailures`."""
    filters: tuple[str, ...] = ()
    """`FilterCriteria.Filters[].Pattern`, JSON as it stands in the template; any one that matches is enough."""


class TtlAttribute(msgspec.Struct, frozen=True, kw_only=True):
    """The attribute, in epoch seconds, after which a table's rows may be collected."""

    table: str
    attribute: str


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """One AWS::Events::Rule with a rate, and one function that it invokes."""

    rule: str
    function_name: str
    every_seconds: float
    """As the template says; the ticker makes less of it."""
    payload: str | None = None
    """`Input` of the target: what the function gets in place of the event."""


class ObjectLock(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket whose objects are locked as they come."""

    bucket: str
    mode: str
    days: int


class LocalProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be put right beside the engine for the stacks that were deployed to it."""

    streams: tuple[StreamSource, ...] = ()
    ttl: tuple[TtlAttribute, ...] = ()
    pitr: tuple[str, ...] = ()
    """Tables with point-in-time recovery."""
    deletion_protection: tuple[str, ...] = ()
    """Tables that may not be deleted."""
    schedules: tuple[Schedule, ...] = ()
    object_locks: tuple[ObjectLock, ...] = ()

    def __add__(self, other: "LocalProfile") -> "LocalProfile":
        """Put two stacks' profiles together."""
        return LocalProfile(
            streams=self.streams + other.streams,
            ttl=self.ttl + other.ttl,
            pitr=self.pitr + other.pitr,
            deletion_protection=self.deletion_protection + other.deletion_protection,
            schedules=self.schedules + other.schedules,
            object_locks=self.object_locks + other.object_locks,
        )


def resolved(profile: LocalProfile, physical_ids: Mapping[str, str]) -> LocalProfile:
    """
    Replace logical ids by the names that the stack gave them.

    *physical_ids* is the stack's own list (logical id to physical id). A name that is not in it is
    taken for a literal name and left as it is.
    """

    def name(given: str) -> str:
        return physical_ids.get(given, given)

    return LocalProfile(
        streams=tuple(
            msgspec.structs.replace(
                source,
                table=name(source.table),
                function_name=name(source.function_name),
                on_failure_arn=name(source.on_failure_arn) if source.on_failure_arn else None,
            )
            for source in profile.streams
        ),
        ttl=tuple(msgspec.structs.replace(ttl, table=name(ttl.table)) for ttl in profile.ttl),
        pitr=tuple(name(table) for table in profile.pitr),
        deletion_protection=tuple(name(table) for table in profile.deletion_protection),
        schedules=tuple(
            msgspec.structs.replace(schedule, function_name=name(schedule.function_name))
            for schedule in profile.schedules
        ),
        object_locks=tuple(msgspec.structs.replace(lock, bucket=name(lock.bucket)) for lock in profile.object_locks),
    )
