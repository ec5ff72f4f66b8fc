"""
A small service that speaks over WebSockets, deployed by our own code: the kernel's door and tail behind stacks/*.yaml.

Its streams are written, indexed and pushed by the test; the connections' side runs where it will run, in a Lambda.
"""

import inspect
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import msgspec

from holdfast.auth import Principal
from holdfast.broadcast import ApiGatewayPost, Broadcast, Tickets
from holdfast.clock import SystemClock, to_text
from holdfast.cloudevents import rendered
from holdfast.dynamodb import BotocoreTransport, Database, DynamoEventStores, Tables
from holdfast.dynamodb.tables import ROLES
from holdfast.log import Hint, Indexer, LogReader, partition_of
from holdfast.log.bodies import Bodies, Stored
from holdfast.streams import RawCodec
from holdfast.tailing import Tailing
from holdfast.tailing_log import IndexedLog
from holdfast_client.audit_queries import LogEntry, LogPage, Ticket
from holdfast_client.events import RecordedEvent
from stacks import ROOT, deploy
from stacks.local.engine import REGION, SECRET_KEY
from stacks.target import Target
from tests.promises import event

SERVICE = "wired"
TENANT = "acme"
ANN = Principal(TENANT, "ann", frozenset({"wired:read"}), "jti", expires=2**40)

APP = """
import functools, os
import msgspec
from chalice import Chalice
from holdfast.clock import to_text
from holdfast.broadcast import ApiGatewayPost, Broadcast, Door, Tickets
from holdfast.dynamodb import BotocoreTransport, Database, Tables
from holdfast.log.bodies import Bodies, Stored
from holdfast.tailing import Tailing
from holdfast.tailing_log import IndexedLog

app = Chalice("wired")

@app.route("/settings")
def settings():
    return {name: value for name, value in os.environ.items() if name.startswith("HOLDFAST_WEBSOCKET")}

@functools.cache
def door():
    tables, database = Tables.from_environment(), Database.connect(BotocoreTransport())
    post = ApiGatewayPost(os.environ["HOLDFAST_WEBSOCKET_ENDPOINT"], database.clock)
    broadcast = Broadcast(database, tables, post)
    log = IndexedLog(Bodies(database, tables), render)
    return Door(Tickets(database, tables), broadcast, Tailing(broadcast, log, scope="wired:read"))

@app.lambda_function(name="Tail")
def tail(event, context):
    return door()(event, context)
"""

STACK = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Metadata:
  Holdfast:
    KeepsStreams: true
    SpeaksWebsockets: true
    Awaits: [Indexer, Projector, Repair]
Resources:
  ApiHandlerRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: "sts:AssumeRole"}]
"""


def render(_tenant: str, commit: Stored) -> list[bytes]:
    """Write events as a reader of a stream sees them, as far as the client needs it."""
    return [
        msgspec.json.encode(
            {
                **msgspec.json.decode(stored),
                "streamversion": version,
                "commitid": commit.commit_id,
                "time": to_text(commit.recorded),
                "recordedat": to_text(commit.recorded),
            }
        )
        for version, stored in enumerate(commit.events, commit.first_version)
    ]


class Steps:
    def step(self, text: str) -> None:
        print(text)  # noqa: T201


def repository(root: Path) -> Path:
    """Lay out a repository whose only service is this one."""
    shutil.copytree(ROOT / "layers", root / "layers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "stacks", root / "stacks", ignore=shutil.ignore_patterns("__pycache__", "*.py", "local"))
    shutil.copy(ROOT / "chalice.json", root)
    (root / "stacks" / f"{SERVICE}.yaml").write_text(STACK)
    (root / "functions" / SERVICE).mkdir(parents=True)
    (root / "functions" / SERVICE / "app.py").write_text(APP + inspect.getsource(render))
    return root


@dataclass(frozen=True)
class Wired:
    """The service as it stands on an engine, from the side of what writes and pushes. It is a tail's `Source`, too."""

    target: Target
    api_id: str
    rest_id: str
    gateway_url: str
    database: Database
    tables: Tables

    @classmethod
    def deployed(cls, endpoint_url: str, gateway_url: str, home: Path, root: Path) -> "Wired":
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key=SECRET_KEY, region_name=REGION)
        target = Target(session, endpoint_url, is_local=True, gateway_url=gateway_url)
        deploy.deploy(target, [SERVICE], Steps(), home=home, root=root)
        [stack] = target.client("cloudformation").describe_stacks(StackName=f"holdfast-{SERVICE}")["Stacks"]
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
        commits, operations, log, views = (f"holdfast-{SERVICE}-{role}" for role in ROLES)
        database = Database.connect(BotocoreTransport(REGION, endpoint_url))
        return cls(
            target,
            outputs["WebsocketAPIId"],
            outputs["RestAPIId"],
            gateway_url,
            database,
            Tables(commits, operations, log, views),
        )

    @property
    def endpoint_url(self) -> str:
        assert self.target.endpoint_url is not None
        return self.target.endpoint_url

    @property
    def management_url(self) -> str:
        return f"{self.endpoint_url}/_aws/execute-api/{self.api_id}/live"

    @property
    def tickets(self) -> Tickets:
        return Tickets(self.database, self.tables)

    @property
    def broadcast(self) -> Broadcast:
        return Broadcast(self.database, self.tables, ApiGatewayPost(self.management_url, SystemClock()))

    def append(self, stream: str, count: int = 1) -> None:
        """Append a commit, have it indexed, and push it, as three functions would."""
        store = DynamoEventStores(self.database, RawCodec(), self.tables).of(TENANT, "ann")
        last = store.last(stream)
        version = last.version if last else 0
        events = [event(version + n, source=f"urn:{stream}") for n in range(1, count + 1)]
        appended = store.append(stream, version, events, commit_id=f"{stream}@{version}")
        Indexer(self.database, self.tables, broken).index([Hint(TENANT, stream, appended.first_version)])

    def push(self, stream: str) -> None:
        log = IndexedLog(Bodies(self.database, self.tables), render)
        Tailing(self.broadcast, log, scope="wired:read").push(TENANT, partition_of(stream))

    # What a tail asks for over HTTP

    def ticket(self) -> Ticket:
        ticket = self.tickets.issue(ANN)
        return Ticket(ticket, f"ws://{self.gateway_url.removeprefix('http://')}/{SERVICE}/ws?ticket={ticket}", 60)

    def head(self, partition: int) -> int:
        return LogReader(self.database, self.tables, TENANT).head(partition).position

    def log_page(self, partition: int, after: int) -> LogPage:
        entries = LogReader(self.database, self.tables, TENANT).entries(partition, after)
        at = SystemClock().now()
        return LogPage(
            partition,
            [
                LogEntry(e.position, r.events, e.leaf, r.stream, r.first_version, r.commit_id, "", at)
                for e in entries
                for r in (e.reference,)
            ],
        )

    def events(self, stream: str, after: int, limit: int) -> list[RecordedEvent]:
        store = DynamoEventStores(self.database, RawCodec(), self.tables).of(TENANT, "ann")
        found = [RecordedEvent.of(each) for commit in store.read(stream) for each in rendered(commit)]
        return found[after : after + limit]


def broken(_fault: Any) -> None:
    raise AssertionError("no stream is broken here")
