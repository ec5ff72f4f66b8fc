from pathlib import Path
from typing import Any

import pytest

from stacks import BuildFailed, fragments
from stacks.fragments import Template

# Reading


def test_cloudformations_short_forms_are_read(tmp_path: Path):
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "x.yaml").write_text(
        "a: !Ref X\nb: !GetAtt X.Arn\nc: !Sub '${X}'\nd: !If [C, !Ref X, 1]\ne: !Condition C\nf: !GetAtt [X, Arn]\n"
    )

    assert fragments.read("x", tmp_path) == {
        "a": {"Ref": "X"},
        "b": {"Fn::GetAtt": ["X", "Arn"]},
        "c": {"Fn::Sub": "${X}"},
        "d": {"Fn::If": ["C", {"Ref": "X"}, 1]},
        "e": {"Condition": "C"},
        "f": {"Fn::GetAtt": ["X", "Arn"]},
    }


def test_a_template_cannot_run_code_when_it_is_read(tmp_path: Path):
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "x.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")

    with pytest.raises(Exception, match="python/object"):
        fragments.read("x", tmp_path)


# Making a service's file whole


def role(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::IAM::Role", "Properties": properties}


def asking(resources: Template | None = None, **asked: Any) -> Template:
    """A stacks/echo.yaml that asks for something."""
    return {"Metadata": {"Holdfast": asked}, "Resources": resources or {}}


STREAM_FUNCTIONS = ("Indexer", "Projector", "Repair")


def test_a_service_that_does_not_ask_gets_its_own_file():
    own = {"Resources": {"A": {"Type": "AWS::SQS::Queue"}}}

    assert fragments.whole(own, "echo", []) == own


def test_a_service_that_keeps_streams_gets_four_tables_of_its_own_name_and_every_function_learns_them():
    whole = fragments.whole(asking(KeepsStreams=True), "echo", STREAM_FUNCTIONS)

    tables = {
        name: each["Properties"]["TableName"]
        for name, each in whole["Resources"].items()
        if each["Type"] == "AWS::DynamoDB::Table"
    }
    assert tables == {
        f"{kept.capitalize()}Table": f"holdfast-echo-{kept}" for kept in ("commits", "operations", "log", "views")
    }
    variables = whole["Globals"]["Function"]["Environment"]["Variables"]
    for name in tables:
        assert variables[f"HOLDFAST_{name.removesuffix('Table').upper()}_TABLE"] == {"Ref": name}
    assert "Service" not in str(whole["Parameters"])


def test_numbers_in_the_key_of_the_log_and_the_views_are_text():
    resources = fragments.whole(asking(KeepsStreams=True), "echo", STREAM_FUNCTIONS)["Resources"]

    kinds = {
        name: [each["AttributeType"] for each in resources[f"{name}Table"]["Properties"]["AttributeDefinitions"]]
        for name in ("Commits", "Operations", "Log", "Views")
    }
    assert kinds == {"Commits": ["S", "N"], "Operations": ["S", "N"], "Log": ["S", "S"], "Views": ["S", "S"]}


def test_a_service_that_keeps_streams_needs_the_functions_that_carry_them():
    with pytest.raises(BuildFailed, match=r"comes with ProjectorRole, RepairRole, and functions/echo has no such"):
        fragments.whole(asking(KeepsStreams=True), "echo", ["Indexer"])


def test_what_both_define_is_an_error_that_says_where():
    own = asking({"CommitsTable": {"Type": "AWS::DynamoDB::Table"}}, KeepsStreams=True)

    with pytest.raises(
        BuildFailed, match=r"Resources CommitsTable: both in stacks/echo.yaml and made by stacks/streams"
    ):
        fragments.whole(own, "echo", STREAM_FUNCTIONS)


def test_a_variable_that_both_define_is_an_error_too():
    own = asking(KeepsStreams=True)
    own["Globals"] = {"Function": {"Environment": {"Variables": {"HOLDFAST_LOG_TABLE": "mine"}}}}

    with pytest.raises(BuildFailed, match="Variables HOLDFAST_LOG_TABLE"):
        fragments.whole(own, "echo", STREAM_FUNCTIONS)


def test_both_may_ask_for_the_same_parameter_but_not_for_two_of_one_name():
    own = asking(KeepsStreams=True) | {"Parameters": {"AlarmTopic": {"Type": "String"}}}
    assert fragments.whole(own, "echo", STREAM_FUNCTIONS)["Parameters"]["AlarmTopic"] == {"Type": "String"}

    own["Parameters"]["AlarmTopic"] = {"Type": "Number"}
    with pytest.raises(BuildFailed, match="Parameters AlarmTopic"):
        fragments.whole(own, "echo", STREAM_FUNCTIONS)


@pytest.mark.parametrize("asked", [{"KeepStreams": True}, {"KeepsStreams": "yes"}, {"Awaits": "Indexer"}])
def test_what_cannot_be_asked_for_is_refused(asked: dict[str, Any]):
    with pytest.raises(BuildFailed, match=r"stacks/echo.yaml asks under Metadata.Holdfast for what there is not"):
        fragments.whole(asking(**asked), "echo", [])


# Functions that are awaited


AHEAD: Template = {
    "AnchorRole": role(),
    "AnchorMore": {"Type": "AWS::IAM::Policy", "Properties": {"Roles": [{"Ref": "AnchorRole"}]}},
    "Every": {"Type": "AWS::Events::Rule", "Properties": {"Targets": [{"Arn": {"Fn::GetAtt": ["Anchor", "Arn"]}}]}},
    "MayCall": {
        "Type": "AWS::Lambda::Permission",
        "Properties": {"FunctionName": "x", "SourceArn": {"Fn::Sub": "${Every.Arn}/more"}},
    },
    "After": {"Type": "AWS::SNS::Topic", "DependsOn": "Every"},
    "Bucket": {"Type": "AWS::S3::Bucket"},
}
"""What stands beside a function; the bucket stands by itself."""


def test_a_function_that_is_awaited_takes_all_that_speaks_of_it_along():
    own = asking(AHEAD, Awaits=["Anchor"]) | {"Outputs": {"A": {"Value": {"Ref": "Every"}}, "B": {"Value": "b"}}}

    whole = fragments.whole(own, "echo", [])

    assert whole["Resources"].keys() == {"Bucket"}
    assert whole["Outputs"].keys() == {"B"}


def test_nothing_is_left_out_once_the_function_is_there():
    assert fragments.whole(asking(AHEAD, Awaits=["Anchor"]), "echo", ["Anchor"])["Resources"] == AHEAD


def test_a_role_whose_function_is_neither_there_nor_awaited_is_refused():
    with pytest.raises(BuildFailed, match=r"AnchorRole.*\n.*Metadata.Holdfast.Awaits"):
        fragments.whole(asking(AHEAD), "echo", [])


def test_the_role_of_the_api_goes_with_chalices_name_for_its_function():
    own = {"Resources": {"ApiHandlerRole": role()}}

    assert fragments.whole(own, "echo", ["APIHandler"]) == own


# Parameters


def test_a_pattern_with_nothing_left_to_fill_in_becomes_its_text():
    template = {"Name": {"Fn::Sub": "logs-${AWS::AccountId}-${Name}"}, "Other": {"Fn::Sub": "${Name}-${Rows.Arn}"}}

    assert fragments.with_parameters(template, {"AWS::AccountId": "1", "Name": "a"}) == {
        "Name": "logs-1-a",
        "Other": {"Fn::Sub": "a-${Rows.Arn}"},
    }
