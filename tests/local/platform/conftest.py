"""An engine for these tests alone, with the fixture deployed on it: what they try must not disturb the shared stack."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stacks.local import clients, engine
from stacks.local.deployment import Deployed, physical_ids
from stacks.local.dispatcher import Dispatcher
from stacks.local.profile import StreamSource
from tests.local.conftest import Printed, free_ports, share_installed
from tests.local.platform import fixture_stack

PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Platform:
    """A bare engine with the fixture on it, and nothing beside it: each test brings what it tries."""

    endpoint_url: str
    deployed: Deployed
    names: dict[str, str]
    """Physical names by logical id."""

    def client(self, service: str) -> Any:
        return clients.factory(self.endpoint_url)(service)

    def make_table(self, view: str = "NEW_AND_OLD_IMAGES") -> str:
        """Make a table with a stream, for one test alone."""
        name = f"source-{uuid.uuid4()}"
        self.client("dynamodb").create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": view},
        )
        return name

    def source(self, table: str, **settings: Any) -> StreamSource:
        return StreamSource(table=table, function_name=self.names["Consumer"], **settings)

    def put(self, table: str, *ids: str, wish: str | None = None) -> None:
        """Write rows, one after the other; a wish is what the consumer shall do when it sees the row."""
        for pk in ids:
            item = {"pk": {"S": pk}} | ({"wish": {"S": wish}} if wish else {})
            self.client("dynamodb").put_item(TableName=table, Item=item)

    def batches(self, table: str) -> list[list[str]]:
        """Give what the consumer was handed, batch by batch, in order."""
        return [json.loads(row["ids"]["S"]) for row in self.seen(table)]

    def seen(self, table: str) -> list[dict[str, Any]]:
        answer = self.client("dynamodb").query(
            TableName=self.names["SeenTable"],
            KeyConditionExpression="#table = :table",
            ExpressionAttributeNames={"#table": "table"},
            ExpressionAttributeValues={":table": {"S": table}},
            ConsistentRead=True,
        )
        rows: list[dict[str, Any]] = answer["Items"]
        return rows


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("platform")
    share_installed(home)
    running = engine.start(home, free_ports(), Printed())
    try:
        deployed = fixture_stack.deploy(home, running.endpoint_url, [fixture_stack.SERVICE], Printed())
        cloudformation = clients.factory(running.endpoint_url)("cloudformation")
        yield Platform(running.endpoint_url, deployed, physical_ids(cloudformation, fixture_stack.NAME))
    finally:
        running.stop()


@pytest.fixture
def dispatcher(platform: Platform, tmp_path: Path) -> Iterator[Dispatcher]:
    made = Dispatcher(clients.factory(platform.endpoint_url), tmp_path / "checkpoints")
    yield made
    made.stop()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"Not within {PATIENCE_SECONDS:.0f} s: {what}"
        time.sleep(0.02)
