"""
What of a template the local engine drops or does wrongly: left out of what it is sent, and told to stacks.local.

`for_local_engine` is the first half, `local_differences` the second; neither changes the template that it is given.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from stacks import BuildFailed
from stacks.fragments import Template
from stacks.local.profile import LocalProfile, StreamSource, TtlAttribute
from stacks.template import ALARM, FUNCTION

TABLE = "AWS::DynamoDB::Table"
EVENT_SOURCE = "AWS::Lambda::EventSourceMapping"


def local_differences(template: Template) -> LocalProfile:
    """Read out of a template what the local engine drops, for stacks.local to put right beside it."""
    tables = {i: r["Properties"] for i, r in template["Resources"].items() if r["Type"] == TABLE}
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
    )


def for_local_engine(template: Template) -> Template:
    """
    Leave out what the local engine does wrongly, or refuses.

    * Functions' triggers on table streams: its stream mapping drops failed records, retries without end and lets one
      slow function hold up all others. stacks.local does it instead.
    * Alarms over metric math, which it refuses; it has no such metrics anyway.
    """
    local: Template = json.loads(json.dumps(template))
    local["Resources"] = {
        logical_id: resource
        for logical_id, resource in local["Resources"].items()
        if not (resource["Type"] == ALARM and "Metrics" in resource["Properties"])
    }
    for owner, event, _ in list(_stream_sources(local)):
        if event is None:
            del local["Resources"][owner]
        else:
            del local["Resources"][owner]["Properties"]["Events"][event]
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
