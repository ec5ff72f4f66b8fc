import dataclasses
import json
from typing import Any

import boto3
import pytest

from stacks import DeployFailed, Outdated, Refused, changes, cloudformation, deploy, template
from stacks.changes import Kind
from stacks.deploy import Kept
from stacks.services import ARTIFACTS_STACK, BASE_STACK
from stacks.target import Target
from tests.local.deploy.conftest import Account, Steps, applied, scenario

ECHO = "holdfast-echo"
TABLE: dict[str, Any] = {
    "Type": "AWS::DynamoDB::Table",
    "DeletionPolicy": "Retain",
    "UpdateReplacePolicy": "Retain",
    "Properties": {
        "TableName": "holdfast-echo-rows",
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    },
}
TOPIC = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "holdfast-scenario"}}


# From nothing


def test_a_plan_of_nothing_shows_that_all_is_added_and_leaves_nothing_behind(account: Account):
    with deploy.planned(account.target, ["echo"], account.steps, home=account.home, root=account.root) as plans:
        assert [each.stack for each in plans] == [ARTIFACTS_STACK, BASE_STACK, ECHO]
        assert all(each.is_new for each in plans)
        assert {change.kind for each in plans for change in each.changes} == {Kind.ADD}
        assert "RowsTable" in {change.logical_id for change in plans[-1].changes}

    assert account.stacks() == {}
    assert account.tables() == []
    assert account.target.client("s3").list_buckets()["Buckets"] == []


def test_what_is_deployed_runs_under_its_own_role_on_its_own_layers(account: Account):
    told = account.get(account.deploy() + "/who").json()

    assert ":assumed-role/holdfast-echo-ApiHandlerRole-" in told["arn"]
    assert told["put"] == told["keys"] == "allowed"
    assert told["scan"] == told["delete_table"] == "AccessDeniedException"
    assert told["other_parameter"] == "AccessDeniedException"
    assert told["kernel"].endswith("/layer_0/python/holdfast/__init__.py")
    assert told["boto3"].endswith("/layer_1/python/boto3/__init__.py")
    assert told["settings"] == {
        "HOLDFAST_SERVICE": "echo",
        "HOLDFAST_JWKS_PARAMETER": "/holdfast/auth/jwks",
        "HOLDFAST_CURSOR_KEY_PARAMETER": "/holdfast/auth/cursor-key",
        "HOLDFAST_REVOCATIONS_TABLE": "holdfast-base-revocations",
        "HOLDFAST_ROWS_TABLE": "holdfast-echo-rows",
    }


def test_a_route_that_does_not_exist_is_a_problem_like_all_others(account: Account):
    answer = account.get(account.deploy() + "/nowhere")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "not_found"
    assert problem["request_id"]


def test_deploying_again_changes_nothing(account: Account):
    account.deploy()

    plans = account.plan()

    assert not changes.has_changes(plans)
    assert [each.change_set_id for each in plans] == [None, None, None]
    assert set(account.stacks().values()) == {"CREATE_COMPLETE"}


# What changes


def test_a_change_of_code_changes_one_function_and_nothing_else(account: Account):
    account.deploy()
    account.rewrite("functions/echo/app.py", "import json, os", "import json, os  # changed")

    plans = account.plan()

    assert [each.stack for each in plans if each.changes] == [ECHO]
    changed = plans[-1].changes
    assert {change.kind for change in changed} == {Kind.CHANGE}
    assert [c.logical_id for c in changed if "Code through a parameter (CodeKey)" in c.why] == ["APIHandler"]
    assert plans[-1].permissions_widened == ()
    assert plans[-1].data_at_risk == ()


def test_a_change_of_the_kernel_is_planned_exactly_before_its_layer_exists(account: Account):
    account.deploy()
    (account.root / "layers" / "holdfast" / "python" / "holdfast" / "new.py").write_text("")

    plans = account.plan()
    [planned_arn] = [each.source.parameters["KernelLayerArn"] for each in plans if each.stack == ECHO]
    deploy.apply(account.target, plans, account.steps)

    base = cloudformation.find_stack(account.target, BASE_STACK)
    assert base is not None
    assert base.outputs["KernelLayerArn"] == planned_arn
    function = account.target.client("lambda").get_function_configuration(FunctionName="holdfast-echo-api")
    assert planned_arn in [layer["Arn"] for layer in function["Layers"]]


def test_a_widened_permission_is_shown(account: Account):
    account.deploy()
    account.rewrite("stacks/echo.yaml", '["dynamodb:PutItem"]', '["dynamodb:PutItem", "dynamodb:Scan"]')

    [widening] = account.plan_of(ECHO).permissions_widened

    assert (widening.logical_id, widening.grant) == ("ApiHandlerRole", "dynamodb:Scan on ${RowsTable.Arn}")
    assert widening.why == "new action"


def test_lost_protections_are_shown(account: Account):
    account.deploy()
    account.rewrite("stacks/echo.yaml", "      DeletionProtectionEnabled: true\n", "")
    account.rewrite("stacks/echo.yaml", "PointInTimeRecoveryEnabled: true", "PointInTimeRecoveryEnabled: false")

    risks = account.plan_of(ECHO).data_at_risk

    assert {risk.logical_id for risk in risks} == {"RowsTable"}
    assert len(risks) == 2
    assert changes.names_to_type([account.plan_of(ECHO)]) == ()


# What would lose data


def test_another_table_key_is_a_replacement_that_is_refused_without_the_stacks_name(account: Account):
    account.deploy()
    account.put_row("kept")
    account.rewrite("stacks/echo.yaml", "AttributeName: pk", "AttributeName: id")

    plans = account.plan()
    [table] = plans[-1].of_kind(Kind.REPLACE)

    assert table.logical_id == "RowsTable"
    assert changes.names_to_type(plans) == (ECHO,)
    for typed in ([], [BASE_STACK], ["holdfast"]):
        with pytest.raises(Refused, match="holdfast-echo would lose data"):
            deploy.apply(account.target, plans, account.steps, typed=typed)
    assert account.has_row("kept")


def test_a_deploy_that_nobody_watches_refuses_to_lose_data(account: Account):
    account.deploy()
    account.rewrite("stacks/echo.yaml", "AttributeName: pk", "AttributeName: id")

    with pytest.raises(Refused):
        account.deploy()

    waiting = account.target.client("cloudformation").list_change_sets(StackName=ECHO)["Summaries"]
    assert [each for each in waiting if each["ExecutionStatus"] == "AVAILABLE"] == []


def test_a_removed_table_is_a_loss_and_stays_itself_even_when_it_is_confirmed(account: Account):
    applied(account, scenario({"Rows": TABLE, "Topic": TOPIC}))
    account.put_row("kept")
    without = scenario({"Topic": TOPIC})

    with pytest.raises(Refused):
        applied(account, without)
    planned = applied(account, without, typed=["holdfast-scenario"])

    [removed] = planned.of_kind(Kind.DELETE)
    assert removed.physical_id == "holdfast-echo-rows"
    assert "what is there now is kept, and no stack owns it any more" in removed.why
    assert [risk.is_loss for risk in planned.data_at_risk] == [True]
    assert account.has_row("kept")


# What fails


REFUSED_BY_THE_ENGINE = {
    "Type": "AWS::CloudWatch::Alarm",
    "Properties": {"Metrics": [], "EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold"},
}
"""Fails when it is made, not when it is planned. A plan would leave it out, so it goes straight to CloudFormation."""


def execute_with_failure(account: Account, *, is_new: bool, adopts: bool = False) -> None:
    source = scenario({"Rows": TABLE, "Alarm": {**REFUSED_BY_THE_ENGINE, "DependsOn": "Rows"}})
    change_set_id = cloudformation.create_change_set(account.target, source, is_new=is_new, adopts=adopts)
    assert change_set_id is not None
    cloudformation.execute(account.target, source.stack, change_set_id)


def test_a_new_stack_that_fails_gives_the_reason_and_leaves_nothing_behind(account: Account):
    with pytest.raises(
        DeployFailed, match=r"(?s)could not be deployed.*\n  Alarm \(AWS::CloudWatch::Alarm\): .*MetricName"
    ):
        execute_with_failure(account, is_new=True)

    assert account.stacks() == {}
    assert account.tables() == [], "it would be in the next attempt's way, and held nothing yet"


def test_an_update_that_fails_gives_the_reason_and_leaves_what_was(account: Account):
    applied(account, scenario({"Rows": TABLE}))
    account.put_row("kept")

    with pytest.raises(DeployFailed, match=r"(?s)\(UPDATE_ROLLBACK_COMPLETE\):\n  Alarm \(AWS::CloudWatch::Alarm\): "):
        execute_with_failure(account, is_new=False)

    assert account.has_row("kept")
    assert not changes.has_changes(deploy.plan_sources(account.target, [scenario({"Rows": TABLE})], Steps()))


def test_a_template_that_cloudformation_refuses_is_told_before_anything_happens(account: Account):
    with pytest.raises(DeployFailed, match=r"refuses the template of holdfast-scenario.*AWS::Nothing::AtAll"):
        applied(account, scenario({"X": {"Type": "AWS::Nothing::AtAll"}}))

    assert account.stacks() == {}


def test_a_plan_that_fails_half_way_leaves_nothing_of_its_first_half(account: Account):
    bad = dataclasses.replace(scenario({"X": {"Type": "AWS::Nothing::AtAll"}}), stack="holdfast-second")

    with pytest.raises(DeployFailed):
        deploy.plan_sources(account.target, [scenario({"Topic": TOPIC}), bad], Steps())

    assert account.stacks() == {}


def test_a_plan_that_has_been_overtaken_is_not_applied(account: Account):
    applied(account, scenario({"Topic": TOPIC}))
    source = scenario({"Topic": TOPIC, "Rows": TABLE})
    first = deploy.plan_sources(account.target, [source], Steps())
    applied(account, source)

    with pytest.raises(Outdated, match="holdfast-scenario has been deployed since it was planned"):
        deploy.apply(account.target, first, account.steps)


def test_a_layer_that_is_not_where_it_was_foreseen_stops_the_services(account: Account):
    plans = account.plan()
    elsewhere = {**plans[-1].source.parameters, "KernelLayerArn": "arn:aws:lambda:us-east-1:1:layer:x:1"}
    plans[-1] = dataclasses.replace(plans[-1], source=dataclasses.replace(plans[-1].source, parameters=elsewhere))

    with pytest.raises(Outdated, match="KernelLayerArn"):
        deploy.apply(account.target, plans, account.steps)

    assert account.stacks()[ECHO] == "REVIEW_IN_PROGRESS"


def test_a_layer_that_was_removed_by_hand_is_published_again_and_found(account: Account):
    account.deploy()
    deploy.destroy(account.target, ["echo"], account.steps)

    # The name's next version is 2, which the first plan cannot know.
    assert account.get(account.deploy() + "/who").status_code == 200
    assert "holdfast-base: no changes" in account.steps.texts


def test_credentials_that_are_wrong_show_before_anything_is_built(account: Account):
    session = boto3.Session(aws_access_key_id="nobody", aws_secret_access_key="x", region_name="us-east-1")

    with pytest.raises(DeployFailed, match="cannot be used") as failed:
        deploy.plan(Target(session, account.target.endpoint_url), ["echo"], account.steps, root=account.root)

    assert "aws sts get-caller-identity" in failed.value.next_step
    assert account.steps.texts == []


# Large templates


LARGE = {**TOPIC, "Metadata": {"Why": "x" * template.INLINE_BYTES_MAX}}


def test_a_large_template_travels_by_the_bucket_and_does_not_stay_there(account: Account):
    account.deploy()
    bucket = account.plan_of(ECHO).source.parameters["ArtifactBucket"]
    source = dataclasses.replace(scenario({"Topic": LARGE}), parameters={"ArtifactBucket": bucket})
    source.template["Parameters"] = {"ArtifactBucket": {"Type": "String"}}
    assert template.is_large(source.template)

    assert len(applied(account, source).of_kind(Kind.ADD)) == 1

    keys = [each["Key"] for each in account.target.client("s3").list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys
    assert not [key for key in keys if key.startswith("templates/")]


def test_a_large_template_can_be_planned_before_there_is_a_bucket(account: Account):
    path = account.root / "stacks" / "echo.yaml"
    path.write_text(path.read_text() + f"  Topic: {json.dumps(LARGE)}\n")

    planned = account.plan_of(ECHO)

    assert planned.change_set_id is None
    assert {change.kind for change in planned.changes} == {Kind.ADD}
    assert account.get(account.deploy() + "/who").status_code == 200


# The end


def test_destroying_keeps_what_holds_data_and_says_so(account: Account):
    account.deploy()
    account.put_row("kept")
    remote = dataclasses.replace(account.target, is_local=False)

    kept = deploy.destroy(remote, ["echo"], account.steps)

    assert account.stacks() == {}
    assert Kept("AWS::DynamoDB::Table", "holdfast-echo-rows") in kept
    assert {each.type for each in kept} == {
        "AWS::DynamoDB::Table",
        "AWS::KMS::Key",
        "AWS::Lambda::LayerVersion",
        "AWS::S3::Bucket",
        "AWS::SSM::Parameter",
    }
    assert account.has_row("kept")


def test_what_was_kept_is_taken_over_by_the_next_deployment(account: Account):
    account.deploy()
    account.put_row("kept")
    deploy.destroy(dataclasses.replace(account.target, is_local=False), ["echo"], account.steps)

    [table] = [change for change in account.plan_of(ECHO).changes if change.logical_id == "RowsTable"]
    account.deploy()

    assert table.why == ("exists already: it is taken over with all that it holds",)
    assert account.has_row("kept")
    assert not changes.has_changes(account.plan())


def test_what_was_taken_over_survives_a_deployment_that_fails(account: Account):
    account.target.client("dynamodb").create_table(**TABLE["Properties"])
    account.put_row("kept")

    with pytest.raises(DeployFailed, match="MetricName"):
        execute_with_failure(account, is_new=True, adopts=True)

    assert account.has_row("kept")


def test_what_fails_before_anything_is_touched_gives_its_reason_too(account: Account):
    # A bucket's name is taken in every account, and so in every later run on this engine.
    name = f"holdfast-taken-{account.target.place().account}"
    account.target.client("s3").create_bucket(Bucket=name)
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name}}

    with pytest.raises(DeployFailed, match=r"Bucket \(AWS::S3::Bucket\): .*already exists"):
        applied(account, scenario({"Bucket": bucket}))


def test_destroying_the_data_too_leaves_nothing(account: Account):
    account.deploy()
    remote = dataclasses.replace(account.target, is_local=False)

    assert deploy.destroy(remote, ["echo"], account.steps, data=True) == []

    assert account.tables() == []
    assert account.target.client("s3").list_buckets()["Buckets"] == []
    assert account.target.client("ssm").describe_parameters()["Parameters"] == []


def test_destroying_nothing_is_done_at_once(account: Account):
    assert deploy.destroy(account.target, ["echo"], account.steps) == []


def test_the_local_engine_keeps_nothing(account: Account):
    account.deploy()

    deploy.destroy(account.target, ["echo"], account.steps)

    assert account.tables() == []
