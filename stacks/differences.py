"""
What of a template the local engine drops or does wrongly: left out of what it is sent, and told to stacks.local.

`for_local_engine` is the first half, `local_differences` the second; neither changes the template that it is given.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from stacks import BuildFailed
from stacks.bundle import FUNCTION
from stacks.fragments import Resource, Template, names_in
from stacks.local.profile import LocalProfile, ObjectLock, Schedule, StreamSource, TtlAttribute
from stacks.template import ALARM

TABLE = "AWS::DynamoDB::Table"
BUCKET = "AWS::S3::Bucket"
BUCKET_POLICY = "AWS::S3::BucketPolicy"
EVENT_SOURCE = "AWS::Lambda::EventSourceMapping"
RULE = "AWS::Events::Rule"
PERMISSION = "AWS::Lambda::Permission"

RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
SECONDS = {"minute": 60, "hour": 3_600, "day": 86_400}
"""EventBridge's `rate(<number> <unit>)`."""


def local_differences(template: Template) -> LocalProfile:
    """
    Read out of a template what the local engine drops, for stacks.local to put right beside it.

    The template has its parameters filled in (`fragments.with_parameters`).
    """
    tables = {i: r["Properties"] for i, r in template["Resources"].items() if r["Type"] == TABLE}
    buckets = {i: r["Properties"] for i, r in template["Resources"].items() if r["Type"] == BUCKET}
    return LocalProfile(
        streams=tuple(source for _, _, source in _stream_sources(template)),
        ttl=tuple(
            TtlAttribute(table=logical_id, attribute=table["TimeToLiveSpecification"]["AttributeName"])
            for logical_id, table in tables.items()
            if table.get("TimeToLiveSpecification", {}).get("Enabled")
        ),
        pitr=tuple(
            logical_id
            for logical_id, table in tables.items()
            if table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled")
        ),
        deletion_protection=tuple(
            logical_id for logical_id, table in tables.items() if table.get("DeletionProtectionEnabled")
        ),
        schedules=tuple(schedule for _, schedules in _schedules(template) for schedule in schedules),
        object_locks=tuple(
            ObjectLock(bucket=logical_id, mode=retention["Mode"], days=int(retention["Days"]))
            for logical_id, bucket in buckets.items()
            if (retention := bucket.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention"))
        ),
    )


def for_local_engine(template: Template) -> Template:
    """
    Leave out what the local engine does wrongly, or refuses.

    * Functions' triggers on table streams: its stream mapping drops failed records, retries without end and lets one
      slow function hold up all others. stacks.local does it instead.
    * Rules that invoke functions at a rate, and the permission to: nobody waits a minute on a laptop, and what fails
      there is told nowhere. stacks.local ticks instead.
    * What buckets refuse over plain HTTP: there is nothing else on loopback.
    * Alarms over metric math, which it refuses; it has no such metrics anyway.
    """
    local: Template = json.loads(json.dumps(template))
    local["Resources"] = {
        logical_id: resource
        for logical_id, resource in local["Resources"].items()
        if not (resource["Type"] == ALARM and "Metrics" in resource["Properties"])
    }
    for name, statements in list(_plain_http_refusals(local)):
        if statements:
            local["Resources"][name]["Properties"]["PolicyDocument"]["Statement"] = statements
        else:
            del local["Resources"][name]
    for owner, event, _ in list(_stream_sources(local)):
        if event is None:
            del local["Resources"][owner]
        else:
            del local["Resources"][owner]["Properties"]["Events"][event]
    for rule, _ in list(_schedules(local)):
        del local["Resources"][rule]
        for name in [name for name, each in local["Resources"].items() if _is_permission_of(each, rule)]:
            del local["Resources"][name]
    return local


def _stream_sources(template: Template) -> Iterator[tuple[str, str | None, StreamSource]]:
    """Find every trigger on a table's stream: its resource, its name in there if it is a function's event, itself."""
    for logical_id, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        if resource["Type"] == FUNCTION:
            for name, event in properties.get("Events", {}).items():
                if event["Type"] == "DynamoDB":
                    yield (
                        logical_id,
                        name,
                        _stream_source(logical_id, event["Properties"]["Stream"], event["Properties"]),
                    )
        elif resource["Type"] == EVENT_SOURCE and _is_table_stream(properties.get("EventSourceArn")):
            function = _name(properties["FunctionName"])
            yield logical_id, None, _stream_source(function, properties["EventSourceArn"], properties)


def _plain_http_refusals(template: Template) -> Iterator[tuple[str, list[Any]]]:
    """Find bucket policies that refuse plain HTTP, each with its other statements."""
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] == BUCKET_POLICY:
            statements = resource["Properties"]["PolicyDocument"]["Statement"]
            others = [each for each in statements if "aws:SecureTransport" not in json.dumps(each.get("Condition", {}))]
            if len(others) < len(statements):
                yield logical_id, others


def _schedules(template: Template) -> Iterator[tuple[str, list[Schedule]]]:
    """
    Find every rule that does nothing but invoke functions of the template at a rate; one that is off invokes none.

    Other rules (a time of day, a queue as target, an event that is rewritten) are the engine's.
    """
    for logical_id, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        rate = RATE.fullmatch(properties.get("ScheduleExpression", "")) if resource["Type"] == RULE else None
        targets = [_scheduled_function(target, template) for target in properties.get("Targets", [])] if rate else []
        if rate and all(targets):
            is_off = properties.get("State") == "DISABLED"
            every_seconds = float(int(rate[1]) * SECONDS[rate[2]])
            yield (
                logical_id,
                [
                    Schedule(rule=logical_id, function_name=function, every_seconds=every_seconds, payload=payload)
                    for function, payload in filter(None, targets)
                    if not is_off
                ],
            )


def _scheduled_function(target: Template, template: Template) -> tuple[str, str | None] | None:
    match target:
        case {"Id": _, "Arn": {"Fn::GetAtt": [str(function), "Arn"]}, **rest} if not rest.keys() - {"Input"}:
            is_function = template["Resources"].get(function, {}).get("Type") == FUNCTION
            return (function, rest.get("Input")) if is_function else None
    return None


def _is_permission_of(resource: Resource, rule: str) -> bool:
    return resource["Type"] == PERMISSION and rule in names_in(resource["Properties"].get("SourceArn"))


def _is_table_stream(arn: object) -> bool:
    return (isinstance(arn, dict) and arn.get("Fn::GetAtt", [None, None])[1] == "StreamArn") or (
        isinstance(arn, str) and ":dynamodb:" in arn
    )


def _stream_source(function: str, stream: Any, properties: Template) -> StreamSource:
    chosen = {
        field: properties[given]
        for field, given in (
            ("batch_size", "BatchSize"),
            ("starting_position", "StartingPosition"),
            ("bisect", "BisectBatchOnFunctionError"),
            ("retries_max", "MaximumRetryAttempts"),
        )
        if given in properties
    }
    destination = properties.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
    return StreamSource(
        table=_name(stream),
        function_name=function,
        on_failure_arn=_name(destination) if destination is not None else None,
        reports_item_failures="ReportBatchItemFailures" in properties.get("FunctionResponseTypes", []),
        filters=tuple(each["Pattern"] for each in properties.get("FilterCriteria", {}).get("Filters", [])),
        **chosen,
    )


def _name(value: Any) -> str:
    """Say which resource a value speaks of: its logical id, or the name itself if it is written out."""
    match value:
        case {"Ref": str(logical_id)} | {"Fn::GetAtt": [str(logical_id), *_]}:
            return logical_id
        case str():
            # arn:aws:dynamodb:<region>:<account>:table/<name>/stream/<label>
            table = re.search(r":table/([^/]+)/stream/", value)
            return table.group(1) if table else value
    raise BuildFailed(
        f"{value!r} names no resource that stacks/local can find.",
        "Write a trigger's table, function and destination as Ref, Fn::GetAtt or a literal ARN.",
    )
