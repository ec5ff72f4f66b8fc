import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stacks import ROOT, BuildFailed, bundle, differences, fragments, layers, template
from stacks.bundle import FUNCTION, Bundle
from stacks.fragments import Template
from stacks.services import SERVICES

SHARED = ("artifacts", "base")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module", params=SERVICES)
def merged(request: pytest.FixtureRequest, home: Path) -> Template:
    return template.merge(bundle.bundle(request.param, home), fragments.read(request.param))


def chalice(**resources: Any) -> Bundle:
    """What Chalice makes of a service `echo` with these resources."""
    code = layers.Archive("functions/echo", "d1", Path("d1.zip"))
    return Bundle("echo", code, {"Resources": resources, "Outputs": {}})


def function(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::Serverless::Function", "Properties": {"Role": "arn:placeholder", **properties}}


def own(*functions: str, **resources: Any) -> Template:
    """A stacks/echo.yaml with what these functions need, and *resources*."""
    needed: Template = {}
    for logical_id in functions:
        needed[fragments.role_name(logical_id)] = {"Type": "AWS::IAM::Role", "Properties": {}}
    return {"Resources": {**needed, **resources}}


def table(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::DynamoDB::Table", "Properties": properties}


# Merging


def test_a_name_in_both_templates_is_an_error_that_says_which():
    with pytest.raises(BuildFailed, match=r"Resources CommitsTable: both in stacks/echo.yaml and made by Chalice"):
        template.merge(chalice(CommitsTable=table()), own(CommitsTable=table()))


def test_a_function_gets_its_role_its_name_its_layers_and_its_code():
    merged = template.merge(chalice(IndexCommits=function()), own("IndexCommits"))

    properties = merged["Resources"]["IndexCommits"]["Properties"]
    assert properties["Role"] == {"Fn::GetAtt": ["IndexCommitsRole", "Arn"]}
    assert properties["FunctionName"] == "holdfast-echo-index-commits"
    assert properties["Layers"] == [{"Ref": "KernelLayerArn"}, {"Ref": "DependenciesLayerArn"}]
    assert properties["CodeUri"] == {"Bucket": {"Ref": "ArtifactBucket"}, "Key": {"Ref": "CodeKey"}}
    assert properties["Environment"]["Variables"]["HOLDFAST_SERVICE"] == "echo"


def test_a_function_without_its_own_role_is_refused():
    with pytest.raises(BuildFailed, match="no IndexCommitsRole, which the function IndexCommits needs"):
        template.merge(chalice(IndexCommits=function()), own())


def test_a_function_gets_logs_with_an_end_the_right_to_write_them_and_its_alarms():
    resources = template.merge(chalice(IndexCommits=function()), own("IndexCommits"))["Resources"]

    assert resources["IndexCommitsLogs"]["Properties"] == {
        "LogGroupName": "/aws/lambda/holdfast-echo-index-commits",
        "RetentionInDays": template.LOGS_DAYS,
    }
    [telemetry] = resources["IndexCommitsRole"]["Properties"]["Policies"]
    logs, traces = telemetry["PolicyDocument"]["Statement"]
    assert logs["Resource"] == {"Fn::GetAtt": ["IndexCommitsLogs", "Arn"]}
    assert set(traces["Action"]) == template.ACTIONS_WITHOUT_RESOURCE.keys()
    alarms = {each["Properties"]["AlarmName"] for each in resources.values() if each["Type"] == template.ALARM}
    assert alarms == {"holdfast-echo-index-commits-errors", "holdfast-echo-index-commits-throttles"}


def test_what_is_made_for_a_function_may_not_be_in_the_yaml_file_too():
    logs = {"Type": "AWS::Logs::LogGroup", "Properties": {}}

    with pytest.raises(BuildFailed, match=r"IndexCommitsLogs is in stacks/echo.yaml and made for"):
        template.merge(chalice(IndexCommits=function()), own("IndexCommits", IndexCommitsLogs=logs))


def test_only_functions_that_somebody_waits_for_end_before_the_gateway_does():
    made = chalice(APIHandler=function(Timeout=28), Index=function(Timeout=28))

    resources = template.merge(made, own("APIHandler", "Index"))["Resources"]

    assert resources["APIHandler"]["Properties"]["Timeout"] == 28
    assert resources["Index"]["Properties"]["Timeout"] == template.BACKGROUND_SECONDS_MAX


def test_merging_leaves_what_chalice_made_as_it_was():
    made = chalice(IndexCommits=function())
    before = json.dumps(made.template)

    template.merge(made, own("IndexCommits"))

    assert json.dumps(made.template) == before


def test_only_declared_parameters_are_sent():
    assert template.parameters_of({"Parameters": {"A": {"Type": "String"}}}, {"A": "1", "B": "2"}) == {"A": "1"}
    assert template.parameters_of({}, {"A": "1"}) == {}


def test_a_template_is_written_shortly_and_always_the_same():
    assert template.text({"b": 1, "a": {"d": 1, "c": 2}}) == '{"a":{"c":2,"d":1},"b":1}'


def test_a_template_is_large_from_the_first_byte_that_a_request_does_not_take():
    def of_size(size: int) -> Template:
        return {"a": "x" * (size - len('{"a":""}'))}

    assert not template.is_large(of_size(51_200))
    assert template.is_large(of_size(51_201))


# The API's own refusals


def test_every_refusal_of_the_gateway_is_a_problem(merged: Template):
    responses = merged["Resources"]["RestAPI"]["Properties"]["GatewayResponses"]

    assert {"DEFAULT_4XX", "DEFAULT_5XX"} <= responses.keys()
    for response in responses.values():
        problem = json.loads(response["ResponseTemplates"]["application/json"])
        assert problem["status"] == response["StatusCode"]
        assert problem["request_id"] == "$context.requestId"
        assert problem["type"] == f"urn:holdfast:problem:{problem['code']}"
        assert problem.keys() == {"type", "title", "status", "detail", "code", "retryable", "request_id"}
        assert response["ResponseParameters"]["Headers"]["Content-Type"] == "'application/problem+json'"


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("MISSING_AUTHENTICATION_TOKEN", 404, "not_found"),
        ("REQUEST_TOO_LARGE", 413, "body_too_large"),
        ("UNSUPPORTED_MEDIA_TYPE", 415, "unsupported_media_type"),
        ("THROTTLED", 429, "throttled"),
    ],
)
def test_a_refusal_has_the_status_and_the_code_that_the_kernel_would_give(kind: str, status: int, code: str):
    assert template.GATEWAY_RESPONSES[kind][:2] == (status, code)


def test_waiting_helps_exactly_where_the_answer_says_how_long(merged: Template):
    responses = merged["Resources"]["RestAPI"]["Properties"]["GatewayResponses"]

    with_retry_after = {
        kind for kind, each in responses.items() if "Retry-After" in each["ResponseParameters"]["Headers"]
    }

    assert with_retry_after == {"THROTTLED", "QUOTA_EXCEEDED"}


# The templates that exist


def every_template(home: Path) -> Iterator[tuple[str, Template]]:
    """Give every template as it is, and those of services as they will be once no function is awaited."""
    for name in SHARED:
        yield name, fragments.read(name)
    for name in SERVICES:
        made, own = bundle.bundle(name, home), fragments.read(name)
        yield name, template.merge(made, own)
        if awaited := [each for each in own["Metadata"]["Holdfast"].get("Awaits", []) if each not in made.functions]:
            yield f"{name}-complete", template.merge(with_functions(made, awaited), own)


def with_functions(made: Bundle, names: list[str]) -> Bundle:
    """Have functions that do nothing yet, as Chalice would make them."""
    like = {**made.template["Resources"]["APIHandler"]["Properties"], "Events": {}}
    more = {name: {"Type": FUNCTION, "Properties": json.loads(json.dumps(like))} for name in names}
    return replace(made, template={**made.template, "Resources": {**made.template["Resources"], **more}})


def resources_of(home: Path, resource_type: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, each in every_template(home):
        for logical_id, resource in each["Resources"].items():
            if resource["Type"] == resource_type:
                yield f"{name}.{logical_id}", resource


def test_every_template_is_clean_alone_and_merged(home: Path, tmp_path: Path):
    files = [str(path) for path in (ROOT / "stacks").glob("*.yaml")]
    for name, each in every_template(home):
        for kind, variant in (("aws", each), ("local", differences.for_local_engine(each))):
            path = tmp_path / f"{name}-{kind}.json"
            path.write_text(template.text(variant))
            files.append(str(path))

    done = subprocess.run(
        [sys.executable, "-c", "import sys; from cfnlint.runner import main; sys.exit(main())", *files],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.stdout == ""
    assert done.returncode == 0


def test_every_template_is_one_that_cloudformation_takes_from_a_bucket(home: Path):
    for _, each in every_template(home):
        assert len(template.text(each).encode()) <= 1_000_000
        assert len(each["Resources"]) <= 500


def test_the_shared_templates_travel_in_the_request(home: Path):
    # There is no bucket yet when they are first sent.
    for name in SHARED:
        assert not template.is_large(fragments.read(name))


def test_every_table_is_kept_protected_recoverable_and_encrypted(home: Path):
    tables = dict(resources_of(home, "AWS::DynamoDB::Table"))

    assert tables
    for name, resource in tables.items():
        properties = resource["Properties"]
        assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain"
        assert properties["DeletionProtectionEnabled"] is True
        # Views are rebuilt from the log.
        is_recoverable = properties.get("PointInTimeRecoverySpecification") == {"PointInTimeRecoveryEnabled": True}
        assert is_recoverable != name.endswith(".ViewsTable")
        assert properties["SSESpecification"] == {"SSEEnabled": True}
        assert properties["BillingMode"] == "PAY_PER_REQUEST"


def test_every_log_group_ends(home: Path):
    groups = dict(resources_of(home, "AWS::Logs::LogGroup"))

    assert groups
    assert all(resource["Properties"]["RetentionInDays"] <= 365 for resource in groups.values())


def test_every_function_has_a_role_of_its_own(home: Path):
    for name, each in every_template(home):
        functions = [resource for resource in each["Resources"].values() if resource["Type"] == FUNCTION]
        roles = {str(resource["Properties"]["Role"]) for resource in functions}
        assert len(roles) == len(functions), name


def statements_of(home: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give everything that a function is allowed, by its role or by a policy that is added to it."""
    for name, role in resources_of(home, "AWS::IAM::Role"):
        assert "ManagedPolicyArns" not in role["Properties"], name
        for policy in role["Properties"]["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement
    for name, policy in resources_of(home, "AWS::IAM::Policy"):
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            yield name, statement


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


OBJECTS_OF_A_BUCKET = re.compile(r"\$\{\w+Bucket\.Arn\}/[\w/]*\*")


def test_no_role_allows_anything_on_everything_but_what_knows_no_resource(home: Path):
    for name, statement in statements_of(home):
        actions = listed(statement["Action"])
        assert not [action for action in actions if "*" in action], name
        for resource in listed(statement["Resource"]):
            match resource:
                case {"Fn::Sub": str(pattern)} if set(actions) == {"execute-api:ManageConnections"}:
                    # Connections come and go; they are those of one API.
                    assert pattern.endswith(":${WebsocketAPI}/live/*"), name
                case {"Fn::Sub": str(pattern)} if "*" in pattern:
                    # Objects have no resources of their own in a template.
                    assert OBJECTS_OF_A_BUCKET.fullmatch(pattern), name
                    assert {action.partition(":")[0] for action in actions} == {"s3"}, name
                case _ if "*" in json.dumps(resource):
                    assert set(actions) <= template.ACTIONS_WITHOUT_RESOURCE.keys(), name


def test_nobody_may_remove_what_is_anchored_or_archived_nor_weaken_its_keys(home: Path):
    never = (
        "s3:Delete",
        "s3:Bypass",
        "s3:PutBucket",
        "s3:PutObjectRetention",
        "kms:Schedule",
        "kms:Disable",
        "kms:Put",
    )

    allowed = {action for _, statement in statements_of(home) for action in listed(statement["Action"])}

    assert not [action for action in allowed if action.startswith(never)]


def test_only_the_archive_may_remove_a_commit(home: Path):
    removing = {
        name.partition(".")[2]
        for name, statement in statements_of(home)
        if "dynamodb:DeleteItem" in listed(statement["Action"])
        and {"Fn::GetAtt": ["CommitsTable", "Arn"]} in listed(statement["Resource"])
    }

    assert removing == {"ArchiverRole"}


def test_every_bucket_is_private_kept_versioned_and_encrypted(home: Path):
    buckets = dict(resources_of(home, "AWS::S3::Bucket"))

    assert buckets
    for resource in buckets.values():
        properties = resource["Properties"]
        assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain"
        assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
        assert properties["BucketEncryption"]
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}


def test_every_queue_ends_somewhere_that_an_alarm_watches(home: Path):
    queues = {name.partition(".")[2]: each for name, each in resources_of(home, "AWS::SQS::Queue")}
    watched = {
        dimension["Value"]["Fn::GetAtt"][0]
        for _, alarm in resources_of(home, template.ALARM)
        for dimension in alarm["Properties"].get("Dimensions", [])
        if dimension["Name"] == "QueueName"
    }

    assert queues
    for name, queue in queues.items():
        redrive = queue["Properties"].get("RedrivePolicy")
        assert (redrive["deadLetterTargetArn"]["Fn::GetAtt"][0] if redrive else name) in watched


def test_whatever_calls_a_function_by_schedule_is_allowed_to(home: Path):
    for name, each in every_template(home):
        rules = {rule for rule, resource in each["Resources"].items() if "ScheduleExpression" in str(resource)}
        allowed = {
            resource["Properties"]["SourceArn"]["Fn::GetAtt"][0]
            for resource in each["Resources"].values()
            if resource["Type"] == "AWS::Lambda::Permission" and "SourceArn" in resource["Properties"]
            if resource["Properties"]["Principal"] == "events.amazonaws.com"
        }
        assert rules == allowed, name


def test_no_function_is_awaited_that_is_there(home: Path):
    for name in SERVICES:
        awaited = set(fragments.read(name)["Metadata"]["Holdfast"].get("Awaits", []))
        assert not awaited & set(bundle.bundle(name, home).functions), f"stacks/{name}.yaml awaits what is there."


def test_every_alarm_tells_somebody(home: Path):
    alarms = dict(resources_of(home, template.ALARM))

    assert alarms
    assert all(each["Properties"]["AlarmActions"] == [{"Ref": "AlarmTopic"}] for each in alarms.values())


def test_every_function_has_alarms_on_its_errors_and_its_throttles(home: Path):
    watched = {
        (alarm["Properties"].get("MetricName"), str(dimension["Value"]))
        for _, alarm in resources_of(home, template.ALARM)
        for dimension in alarm["Properties"].get("Dimensions", [])
    }

    for _, each in resources_of(home, FUNCTION):
        name = each["Properties"]["FunctionName"]
        assert {("Errors", name), ("Throttles", name)} <= watched


def test_who_waits_for_an_answer_is_missed_at_once_and_what_is_called_again_only_if_it_goes_on_failing(home: Path):
    patience = {
        alarm["Properties"]["AlarmName"]: (alarm["Properties"]["Period"], alarm["Properties"]["EvaluationPeriods"])
        for _, alarm in resources_of(home, template.ALARM)
        if alarm["Properties"].get("MetricName") == "Errors"
    }

    assert patience
    assert {name: when for name, when in patience.items() if when != (300, 3)} == {
        f"holdfast-{name}-api-errors": (60, 1) for name in SERVICES
    }


def test_no_refusal_that_is_meant_for_a_client_wakes_anybody(home: Path):
    watched = {alarm["Properties"].get("MetricName") for _, alarm in resources_of(home, template.ALARM)}

    assert not watched & {"4XXError", "5XXError"}


def test_a_queue_is_emptied_by_a_few_at_once(home: Path):
    """Many at once meet at the ends of the same streams and at the same checkpoints, and lose there."""
    queues = {name.partition(".")[2] for name, _ in resources_of(home, "AWS::SQS::Queue")}
    triggers = [
        each["Properties"]
        for _, each in resources_of(home, "AWS::Lambda::EventSourceMapping")
        if each["Properties"]["EventSourceArn"]["Fn::GetAtt"][0] in queues
    ]

    assert triggers
    assert {trigger.get("ScalingConfig", {}).get("MaximumConcurrency") for trigger in triggers} == {4}


def test_a_dashboard_is_json(home: Path):
    for _, each in resources_of(home, "AWS::CloudWatch::Dashboard"):
        assert json.loads(each["Properties"]["DashboardBody"]["Fn::Sub"])["widgets"]
