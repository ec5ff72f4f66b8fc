"""An account of its own for each test on the shared engine, and a small service to deploy there."""

import random
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from stacks import ROOT, cloudformation, deploy
from stacks.changes import StackPlan, StackSource
from stacks.local.engine import REGION, SECRET_KEY
from stacks.target import Target
from tests.local.conftest import LocalStack

ECHO = """
import json, os
import boto3
from chalice import Chalice

app = Chalice(app_name="echo")

def tried(call, **arguments):
    try:
        call(**arguments)
    except Exception as error:
        return getattr(error, "response", {}).get("Error", {}).get("Code", repr(error))
    return "allowed"

@app.route("/who", methods=["GET"])
def who():
    table, rows = boto3.client("dynamodb"), os.environ["HOLDFAST_ROWS_TABLE"]
    return {
        "arn": boto3.client("sts").get_caller_identity()["Arn"],
        "put": tried(table.put_item, TableName=rows, Item={"pk": {"S": "a"}}),
        "scan": tried(table.scan, TableName=rows),
        "delete_table": tried(table.delete_table, TableName=rows),
        "keys": tried(boto3.client("ssm").get_parameter, Name=os.environ["HOLDFAST_JWKS_PARAMETER"]),
        "other_parameter": tried(boto3.client("ssm").get_parameter, Name="/holdfast/other"),
        "settings": {name: value for name, value in os.environ.items() if name.startswith("HOLDFAST_")},
        "kernel": __import__("holdfast").__file__,
        "boto3": boto3.__file__,
    }
"""

ECHO_STACK = """
Transform: AWS::Serverless-2016-10-31
Globals:
  Function:
    Environment:
      Variables:
        HOLDFAST_ROWS_TABLE: !Ref RowsTable
Resources:
  RowsTable:
    Type: AWS::DynamoDB::Table
    DeletionPolicy: Retain
    UpdateReplacePolicy: Retain
    Properties:
      TableName: holdfast-echo-rows
      BillingMode: PAY_PER_REQUEST
      DeletionProtectionEnabled: true
      AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
      KeySchema: [{AttributeName: pk, KeyType: HASH}]
      PointInTimeRecoverySpecification: {PointInTimeRecoveryEnabled: true}
  ApiHandlerRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: "sts:AssumeRole"}]
      Policies:
        - PolicyName: api
          PolicyDocument:
            Statement:
              - {Effect: Allow, Action: ["dynamodb:PutItem"], Resource: !GetAtt RowsTable.Arn}
              - Effect: Allow
                Action: ssm:GetParameter
                Resource: !Sub "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter/holdfast/auth/jwks"
"""


@dataclass
class Steps:
    """Progress, kept to be looked at."""

    texts: list[str] = field(default_factory=list)

    def step(self, text: str) -> None:
        self.texts.append(text)


@dataclass(frozen=True)
class Account:
    """An empty account on the engine, and a repository whose only service is `echo`."""

    target: Target
    home: Path
    root: Path
    steps: Steps = field(default_factory=Steps)

    def deploy(self) -> str:
        """Deploy the repository as it is, and give the address of `echo` on this engine."""
        deploy.deploy(self.target, ["echo"], self.steps, home=self.home, root=self.root)
        stack = cloudformation.find_stack(self.target, "holdfast-echo")
        assert stack is not None
        return f"{self.target.endpoint_url}/_aws/execute-api/{stack.outputs['RestAPIId']}/live"

    def get(self, url: str) -> httpx.Response:
        """Ask the API; signed, because that is how the engine knows whose API it is. The route itself is open."""
        request = AWSRequest("GET", url)
        credentials = self.target.session.get_credentials()
        assert credentials is not None
        SigV4Auth(credentials, "execute-api", REGION).add_auth(request)
        return httpx.get(url, headers=dict(request.headers), timeout=10)

    def plan(self) -> list[StackPlan]:
        """Plan the repository as it is; what is left of it at the test's end goes with the account."""
        return deploy.plan(self.target, ["echo"], self.steps, home=self.home, root=self.root)

    def plan_of(self, stack: str) -> StackPlan:
        return next(each for each in self.plan() if each.stack == stack)

    def rewrite(self, name: str, before: str, after: str) -> None:
        """Change a file of the repository."""
        path = self.root / name
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))

    def stacks(self) -> dict[str, str]:
        """List the stacks that there are, with their status."""
        listed = self.target.client("cloudformation").list_stacks()["StackSummaries"]
        return {each["StackName"]: each["StackStatus"] for each in listed if each["StackStatus"] != "DELETE_COMPLETE"}

    def tables(self) -> list[str]:
        names: list[str] = self.target.client("dynamodb").list_tables()["TableNames"]
        return names

    def put_row(self, pk: str) -> None:
        self.target.client("dynamodb").put_item(TableName="holdfast-echo-rows", Item={"pk": {"S": pk}})

    def has_row(self, pk: str) -> bool:
        key = {"pk": {"S": pk}}
        return "Item" in self.target.client("dynamodb").get_item(TableName="holdfast-echo-rows", Key=key)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "layers", root / "layers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "chalice.json", root)
    for name in ("artifacts", "base"):
        (root / "stacks").mkdir(exist_ok=True)
        shutil.copy(ROOT / "stacks" / f"{name}.yaml", root / "stacks")
    (root / "stacks" / "echo.yaml").write_text(ECHO_STACK)
    (root / "functions" / "echo").mkdir(parents=True)
    (root / "functions" / "echo" / "app.py").write_text(textwrap.dedent(ECHO))
    return root


@pytest.fixture
def account(stack: LocalStack, repository: Path, tmp_path: Path) -> Iterator[Account]:
    # On the engine a 12-digit access key is the root of the account of that number.
    number = str(random.SystemRandom().randrange(10**11, 10**12))
    session = boto3.Session(aws_access_key_id=number, aws_secret_access_key=SECRET_KEY, region_name=REGION)
    target = Target(session, stack.running.engine.endpoint_url, is_local=True)
    yield Account(target, stack.home, Path(shutil.copytree(repository, tmp_path / "repository")))
    for name in ("echo", "scenario"):
        if cloudformation.find_stack(target, f"holdfast-{name}"):
            deploy.destroy(target, [name], Steps())


def scenario(resources: Mapping[str, Any], **parameters: str) -> StackSource:
    """A stack of its own with just these resources."""
    return StackSource("holdfast-scenario", None, {"Resources": dict(resources)}, parameters)


def applied(account: Account, source: StackSource, typed: Sequence[str] = ()) -> StackPlan:
    """Plan and apply one stack, and give what was planned."""
    plans = deploy.plan_sources(account.target, [source], account.steps)
    deploy.apply(account.target, plans, account.steps, typed=typed)
    return plans[0]
