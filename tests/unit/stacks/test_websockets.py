import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stacks import differences, fragments, layers, template, websockets
from stacks.bundle import FUNCTION, Bundle
from stacks.fragments import Template

FUNCTIONS = ("Tail", "Indexer", "Projector", "Repair")


@pytest.fixture(scope="module")
def merged() -> Template:
    """A service that keeps streams and speaks over WebSockets, and does nothing else."""
    properties = {"Runtime": "python3.11", "Handler": "app.x", "Timeout": 28}
    functions = {name: {"Type": FUNCTION, "Properties": dict(properties)} for name in FUNCTIONS}
    own = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Transform": "AWS::Serverless-2016-10-31",
        "Metadata": {"Holdfast": {"KeepsStreams": True, "SpeaksWebsockets": True}},
    }
    code = layers.Archive("functions/echo", "d1", Path("d1.zip"))
    return template.merge(Bundle("echo", code, {"Resources": functions, "Outputs": {}}), {**own, "Resources": {}})


def resources(merged: Template, resource_type: str) -> list[dict[str, Any]]:
    return [each["Properties"] for each in merged["Resources"].values() if each["Type"] == resource_type]


def test_every_route_of_the_api_leads_to_the_one_function(merged: Template):
    routes = resources(merged, "AWS::ApiGatewayV2::Route")

    assert {route["RouteKey"] for route in routes} == {"$connect", "$default", "$disconnect"}
    assert {json.dumps(route["Target"]) for route in routes} == {'{"Fn::Sub": "integrations/${WebsocketIntegration}"}'}
    [integration] = resources(merged, "AWS::ApiGatewayV2::Integration")
    assert "${Tail.Arn}" in integration["IntegrationUri"]["Fn::Sub"]


def test_the_api_may_call_the_function_and_the_function_may_speak_to_its_connections_alone(merged: Template):
    permissions = [
        each for each in resources(merged, "AWS::Lambda::Permission") if each["FunctionName"] == {"Ref": "Tail"}
    ]
    [role] = [each for name, each in merged["Resources"].items() if name == "TailRole"]
    statements = [each for policy in role["Properties"]["Policies"] for each in policy["PolicyDocument"]["Statement"]]
    [sending] = [each for each in statements if each["Sid"] == "SendToConnections"]

    assert [each["Principal"] for each in permissions] == ["apigateway.amazonaws.com"]
    assert "${WebsocketAPI}/" in permissions[0]["SourceArn"]["Fn::Sub"]
    assert sending["Action"] == "execute-api:ManageConnections"
    assert "${WebsocketAPI}/live/" in sending["Resource"]["Fn::Sub"]


def test_every_function_learns_where_clients_connect_and_where_it_sends(merged: Template):
    variables = merged["Globals"]["Function"]["Environment"]["Variables"]

    assert {"HOLDFAST_WEBSOCKET_URL", "HOLDFAST_WEBSOCKET_ENDPOINT"} <= variables.keys()


def test_the_stage_deploys_by_itself_and_has_limits(merged: Template):
    [stage] = resources(merged, "AWS::ApiGatewayV2::Stage")

    assert stage["AutoDeploy"] is True
    assert stage["DefaultRouteSettings"].keys() >= {"ThrottlingRateLimit", "ThrottlingBurstLimit"}
    assert not resources(merged, "AWS::ApiGatewayV2::Deployment")


def test_a_service_that_does_not_ask_has_no_websockets():
    whole = fragments.whole({"Resources": {}}, "echo", [])

    assert "WebsocketAPI" not in whole["Resources"]


def test_the_template_is_clean_on_aws_and_locally(merged: Template, tmp_path: Path):
    files = []
    for kind, variant in (("aws", merged), ("local", differences.for_local_engine(merged))):
        path = tmp_path / f"{kind}.json"
        path.write_text(template.text(variant))
        files.append(str(path))

    done = subprocess.run(
        [sys.executable, "-c", "import sys; from cfnlint.runner import main; sys.exit(main())", *files],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("", 0)


def test_locally_clients_connect_to_the_gateway_and_functions_send_through_the_engine():
    assert websockets.parameters("audit", "http://127.0.0.1:4701", "http://127.0.0.1:4700") == {
        "WebsocketUrl": "ws://127.0.0.1:4700/audit/ws",
        "WebsocketEndpoint": "http://127.0.0.1:4701/_aws/execute-api",
    }


def test_the_engine_answers_by_the_id_of_the_api():
    ids = {"WebsocketAPI": "a1b2", "Other": "x"}

    assert websockets.upstream(ids, "http://127.0.0.1:4701") == "ws://127.0.0.1:4701/_aws/execute-api/a1b2/live"
    assert websockets.upstream({"Other": "x"}, "http://127.0.0.1:4701") is None
