from typing import Any

from stacks import differences
from stacks.local.profile import LocalProfile, StreamSource, TtlAttribute


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
