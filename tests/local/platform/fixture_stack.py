"""
A small stack to try the local platform with: an echoing API, a stream consumer that does as it is told, a queue.

It is deployed by the same supervisor as the real services, and can be run as a process of its own, to be killed:

    python -m tests.local.platform.fixture_stack HOME PORT [ENDPOINT_URL]
"""

import io
import json
import logging
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stacks.local import clients, locks
from stacks.local.deployment import Deployed, physical_ids
from stacks.local.errors import Report
from stacks.local.profile import LocalProfile, Schedule, StreamSource, TtlAttribute, resolved
from stacks.local.running import Home
from stacks.local.stack import run_logged
from stacks.local.supervisor import Supervisor

NAME = "platform-fixture"
SERVICE = "echo"
BUCKET = "platform-fixture-code"

CODE = '''
import base64, json, os, sys, time
import boto3

def api(event, context):
    print("asked", file=sys.stderr)
    path = event["path"]
    if path == "/boom":
        raise ValueError("an inner secret")
    if path == "/slow":
        time.sleep(40)
    if path == "/problem":
        return {"statusCode": 503, "headers": {"Content-Type": "application/problem+json"}, "body": '{"code": "x"}'}
    body = event.get("body") or ""
    told = {"path": path, "stream": (event.get("pathParameters") or {}).get("stream"),
            "query": event.get("multiValueQueryStringParameters"), "headers": event.get("headers"),
            "body": body if len(body) < 1000 else None, "body_length": len(body)}
    return {"statusCode": 200, "body": json.dumps(told),
            "headers": {"Content-Type": "application/json", "X-Echo": "yes"}}

dynamodb = boto3.client("dynamodb")

def consume(event, context):
    """Write down what came, then do what the first record that asks for anything asks for."""
    print("consuming", file=sys.stderr)
    records = event["Records"]
    table = records[0]["eventSourceARN"].split("/")[1]
    ids = [record["dynamodb"]["Keys"]["pk"]["S"] for record in records]
    dynamodb.put_item(TableName=os.environ["SEEN_TABLE"], Item={
        "table": {"S": table}, "at": {"N": str(time.time_ns())}, "ids": {"S": json.dumps(ids)},
        "first": {"S": json.dumps(records[0])}})
    for record in records:
        wish = record["dynamodb"].get("NewImage", {}).get("wish", {}).get("S")
        if wish == "raise":
            raise ValueError("poison")
        if wish == "report":
            return {"batchItemFailures": [{"itemIdentifier": record["dynamodb"]["SequenceNumber"]}]}
    return {"batchItemFailures": []}

def tick(event, context):
    """Write down that time has passed."""
    print("ticking", file=sys.stderr)
    dynamodb.put_item(TableName=os.environ["SEEN_TABLE"], Item={
        "table": {"S": "ticks"}, "at": {"N": str(time.time_ns())}, "first": {"S": json.dumps(event)}})
    if event.get("wish") == "raise":
        raise ValueError("out of tick")
'''

CONSUMER_ROLE = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "dynamodb:PutItem", "Resource": {"Fn::GetAtt": ["SeenTable", "Arn"]}},
    ],
}


def template(code_key: str) -> dict[str, Any]:
    """Write the stack: SAM, as Chalice's packages are."""
    return {
        "Transform": "AWS::Serverless-2016-10-31",
        "Resources": {
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "AssumeRolePolicyDocument": {
                        "Version": "2012-10-17",
                        "Statement": [
                            {
                                "Effect": "Allow",
                                "Principal": {"Service": "lambda.amazonaws.com"},
                                "Action": "sts:AssumeRole",
                            }
                        ],
                    },
                    "Policies": [{"PolicyName": "seen", "PolicyDocument": CONSUMER_ROLE}],
                },
            },
            "Api": _function("app.api", code_key),
            "Consumer": _function("app.consume", code_key),
            "Tick": _function("app.tick", code_key),
            "RestAPI": {
                "Type": "AWS::Serverless::Api",
                "Properties": {
                    "StageName": "api",
                    "DefinitionBody": {
                        "swagger": "2.0",
                        "info": {"version": "1", "title": "echo"},
                        "paths": {
                            "/v1/streams/{stream}/events": _methods("get", "post"),
                            "/boom": _methods("get"),
                            "/slow": _methods("get"),
                            "/problem": _methods("get"),
                            "/openapi.json": _methods("get"),
                        },
                    },
                },
            },
            "Permission": {
                "Type": "AWS::Lambda::Permission",
                "Properties": {
                    "FunctionName": {"Ref": "Api"},
                    "Action": "lambda:InvokeFunction",
                    "Principal": "apigateway.amazonaws.com",
                },
            },
            "SourceTable": _table("pk", None, stream=True),
            "SeenTable": _table("table", "at", stream=False),
            "Parked": {"Type": "AWS::SQS::Queue"},
        },
        "Outputs": {
            "Url": {"Value": {"Fn::Sub": "https://${RestAPI}.execute-api.${AWS::Region}.${AWS::URLSuffix}/api/"}}
        },
    }


def _function(handler: str, code_key: str) -> dict[str, Any]:
    return {
        "Type": "AWS::Serverless::Function",
        "Properties": {
            "Runtime": "python3.11",
            "Handler": handler,
            "CodeUri": f"s3://{BUCKET}/{code_key}",
            "Role": {"Fn::GetAtt": ["Role", "Arn"]},
            "Timeout": 60,
            "Environment": {"Variables": {"SEEN_TABLE": {"Ref": "SeenTable"}}},
        },
    }


def _methods(*names: str) -> dict[str, Any]:
    uri = "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${Api.Arn}/invocations"
    return {
        name: {
            "responses": {},
            "x-amazon-apigateway-integration": {"type": "aws_proxy", "httpMethod": "POST", "uri": {"Fn::Sub": uri}},
        }
        for name in names
    }


def _table(hash_key: str, range_key: str | None, *, stream: bool) -> dict[str, Any]:
    keys = [(hash_key, "S", "HASH"), *([(range_key, "N", "RANGE")] if range_key else [])]
    return {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": kind} for name, kind, _ in keys],
            "KeySchema": [{"AttributeName": name, "KeyType": role} for name, _, role in keys],
            **({"StreamSpecification": {"StreamViewType": "NEW_AND_OLD_IMAGES"}} if stream else {}),
        },
    }


PROFILE = LocalProfile(
    streams=(StreamSource(table="SourceTable", function_name="Consumer", reports_item_failures=True),),
    ttl=(TtlAttribute(table="SourceTable", attribute="expires"),),
    pitr=("SourceTable",),
    # Half a second here: see stacks/local/ticker.py.
    schedules=(Schedule(rule="Often", function_name="Tick", every_seconds=6),),
)


def deploy(home: Path, endpoint_url: str, services: Sequence[str], report: Report) -> Deployed:
    """Deploy the fixture, or leave it as it is if it stands."""
    report.step("Deploying the fixture")
    client = clients.factory(endpoint_url)
    cloudformation = client("cloudformation")
    if not _stands(cloudformation):
        client("s3").create_bucket(Bucket=BUCKET)
        client("s3").put_object(Bucket=BUCKET, Key="code.zip", Body=_zipped(CODE))
        cloudformation.create_stack(
            StackName=NAME,
            TemplateBody=json.dumps(template("code.zip")),
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
    stack = cloudformation.describe_stacks(StackName=NAME)["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    [url] = [output["OutputValue"] for output in stack["Outputs"]]
    return Deployed({SERVICE: url}, resolved(PROFILE, physical_ids(cloudformation, NAME)), "no-token")


def _stands(cloudformation: Any) -> bool:
    return any(stack["StackName"] == NAME for stack in cloudformation.describe_stacks()["Stacks"])


def _zipped(code: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", code)
    return packed.getvalue()


def main() -> int:
    home = Home(Path(sys.argv[1]).resolve())
    endpoint_url = sys.argv[3] if len(sys.argv) == 4 else None
    logging.basicConfig(level=logging.WARNING)

    def run(report: Report) -> None:
        with locks.held(home.lock) as is_ours:
            assert is_ours
            Supervisor(home, [SERVICE], int(sys.argv[2]), endpoint_url, report, deploy).run()

    return run_logged(run)


if __name__ == "__main__":
    sys.exit(main())
