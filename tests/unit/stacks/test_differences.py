import json
from typing import Any

import pytest

from stacks import differences
from stacks.fragments import Template
from stacks.local.profile import LocalProfile, ObjectLock, Schedule, StreamSource, TtlAttribute


def function(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::Serverless::Function", "Properties": {"Role": "arn:placeholder", **properties}}


def table(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::DynamoDB::Table", "Properties": properties}


STREAM = {"Fn::GetAtt": ["CommitsTable", "StreamArn"]}


def test_a_functions_trigger_on_a_table_stream_is_left_to_the_dispatcher():
    event = {"Stream": STREAM, "BatchSize": 10, "StartingPosition": "TRIM_HORIZON"}
    sam = {
        "Resources": {
            "Index": function(Events={"Stream": {"Type": "DynamoDB", "Properties": event}}),
            "CommitsTable": table(),
        }
    }

    assert differences.local_differences(sam).streams == (
        StreamSource(table="CommitsTable", function_name="Index", batch_size=10, starting_position="TRIM_HORIZON"),
    )
    assert differences.for_local_engine(sam)["Resources"]["Index"]["Properties"]["Events"] == {}
    assert "Stream" in sam["Resources"]["Index"]["Properties"]["Events"], "the template itself stays whole"


def test_an_event_source_mapping_is_left_to_the_dispatcher_with_all_it_promises():
    mapping = {
        "Type": "AWS::Lambda::EventSourceMapping",
        "Properties": {
            "EventSourceArn": STREAM,
            "FunctionName": {"Ref": "Index"},
            "BatchSize": 100,
            "StartingPosition": "LATEST",
            "BisectBatchOnFunctionError": True,
            "MaximumRetryAttempts": 3,
            "DestinationConfig": {"OnFailure": {"Destination": {"Fn::GetAtt": ["Parked", "Arn"]}}},
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "FilterCriteria": {"Filters": [{"Pattern": '{"eventName":["INSERT"]}'}]},
        },
    }
    sam = {"Resources": {"Mapping": mapping}}

    assert differences.local_differences(sam).streams == (
        StreamSource(
            table="CommitsTable",
            function_name="Index",
            batch_size=100,
            starting_position="LATEST",
            bisect=True,
            retries_max=3,
            on_failure_arn="Parked",
            reports_item_failures=True,
            filters=('{"eventName":["INSERT"]}',),
        ),
    )
    assert differences.for_local_engine(sam)["Resources"] == {}


def test_a_queue_trigger_stays_with_the_engine():
    mapping = {
        "Type": "AWS::Lambda::EventSourceMapping",
        "Properties": {"EventSourceArn": {"Fn::GetAtt": ["Queue", "Arn"]}, "FunctionName": {"Ref": "Index"}},
    }
    sam = {
        "Resources": {
            "Mapping": mapping,
            "Index": function(Events={"Q": {"Type": "SQS", "Properties": {"Queue": "q"}}}),
        }
    }

    assert differences.local_differences(sam).streams == ()
    assert differences.for_local_engine(sam) == sam


def test_a_trigger_on_a_table_by_its_arn_names_the_table():
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/holdfast-audit-commits/stream/2026-01-01T00:00:00.000"
    event = {"Type": "DynamoDB", "Properties": {"Stream": arn}}

    [source] = differences.local_differences({"Resources": {"Index": function(Events={"S": event})}}).streams

    assert source.table == "holdfast-audit-commits"


def test_the_settings_of_a_table_that_the_engine_drops_are_told():
    sam = {
        "Resources": {
            "Rows": table(
                TimeToLiveSpecification={"AttributeName": "expires", "Enabled": True},
                PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
                DeletionProtectionEnabled=True,
            ),
            "Plain": table(TimeToLiveSpecification={"AttributeName": "expires", "Enabled": False}),
        }
    }

    assert differences.local_differences(sam) == LocalProfile(
        ttl=(TtlAttribute(table="Rows", attribute="expires"),), pitr=("Rows",), deletion_protection=("Rows",)
    )


def test_alarms_over_metric_math_are_left_out_locally_and_others_are_not():
    sam = {
        "Resources": {
            "Math": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"Metrics": []}},
            "Plain": {"Type": "AWS::CloudWatch::Alarm", "Properties": {"MetricName": "Errors"}},
        }
    }

    assert differences.for_local_engine(sam)["Resources"].keys() == {"Plain"}


def test_what_a_bucket_refuses_over_plain_http_is_left_out_and_nothing_else():
    refusal = {"Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    other = {"Effect": "Deny", "Condition": {"Bool": {"aws:MultiFactorAuthPresent": "false"}}}

    def policy(*statements: Any) -> dict[str, Any]:
        return {"Type": "AWS::S3::BucketPolicy", "Properties": {"PolicyDocument": {"Statement": list(statements)}}}

    sam = {"Resources": {"Only": policy(refusal), "Both": policy(refusal, other), "Other": policy(other)}}

    assert differences.for_local_engine(sam)["Resources"] == {"Both": policy(other), "Other": policy(other)}


def test_the_lock_of_a_bucket_that_the_engine_drops_is_told():
    retention = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": "1"}}
    bucket = {
        "Type": "AWS::S3::Bucket",
        "Properties": {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled", "Rule": retention}},
    }

    profile = differences.local_differences({"Resources": {"Locked": bucket, "Open": {**bucket, "Properties": {}}}})

    assert profile.object_locks == (ObjectLock(bucket="Locked", mode="COMPLIANCE", days=1),)


# Schedules


def scheduled(*targets: dict[str, Any], expression: str = "rate(1 minute)", **properties: Any) -> Template:
    """A function, a rule, and the permission that goes with it."""
    return {
        "Resources": {
            "Anchor": function(),
            "Often": {
                "Type": "AWS::Events::Rule",
                "Properties": {"ScheduleExpression": expression, "Targets": list(targets), **properties},
            },
            "MayCall": {
                "Type": "AWS::Lambda::Permission",
                "Properties": {"FunctionName": {"Ref": "Anchor"}, "SourceArn": {"Fn::GetAtt": ["Often", "Arn"]}},
            },
            "OtherMayCall": {"Type": "AWS::Lambda::Permission", "Properties": {"FunctionName": {"Ref": "Anchor"}}},
        }
    }


ANCHOR = {"Id": "anchor", "Arn": {"Fn::GetAtt": ["Anchor", "Arn"]}}


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [("rate(1 minute)", 60), ("rate(5 minutes)", 300), ("rate(2 hours)", 7_200), ("rate(1 day)", 86_400)],
)
def test_a_function_that_is_invoked_at_a_rate_is_left_to_the_ticker(expression: str, seconds: float):
    sam = scheduled(ANCHOR, expression=expression)
    before = json.dumps(sam)

    assert differences.local_differences(sam).schedules == (
        Schedule(rule="Often", function_name="Anchor", every_seconds=seconds),
    )
    assert differences.for_local_engine(sam)["Resources"].keys() == {"Anchor", "OtherMayCall"}
    assert json.dumps(sam) == before


def test_each_target_ticks_with_what_it_shall_get():
    sam = scheduled(ANCHOR, {**ANCHOR, "Input": '{"sweep":true}'})

    assert [each.payload for each in differences.local_differences(sam).schedules] == [None, '{"sweep":true}']


def test_a_rule_that_is_off_does_not_tick():
    sam = scheduled(ANCHOR, State="DISABLED")

    assert differences.local_differences(sam).schedules == ()
    assert "Often" not in differences.for_local_engine(sam)["Resources"]


@pytest.mark.parametrize(
    "sam",
    [
        scheduled(ANCHOR, expression="cron(0 3 * * ? *)"),
        scheduled({"Id": "queue", "Arn": {"Fn::GetAtt": ["MayCall", "Arn"]}}),
        scheduled({**ANCHOR, "InputPath": "$.time"}),
        scheduled(ANCHOR, {"Id": "elsewhere", "Arn": "arn:aws:lambda:us-east-1:1:function:other"}),
    ],
    ids=["a time of day", "no function", "a part of the event", "a function of another stack"],
)
def test_a_rule_that_does_anything_else_stays_with_the_engine(sam: Template):
    assert differences.local_differences(sam).schedules == ()
    assert differences.for_local_engine(sam) == sam
