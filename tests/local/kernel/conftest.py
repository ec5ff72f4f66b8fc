"""Tables on the running engine, for tests that bring their own."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from holdfast.aws import client
from holdfast.dynamodb import BotocoreTransport, Transport
from tests.dynamo_tables import REGION, TestTables, UndatedTransport, create_tables, delete_tables


@dataclass
class Engine:
    """The engine's DynamoDB, asked as the kernel asks it."""

    dynamodb: Any
    dated: Transport
    prefixes: list[str] = field(default_factory=list)

    def make_tables(self) -> TestTables:
        prefix = f"test-{uuid.uuid4().hex[:8]}"
        tables = create_tables(self.dynamodb, prefix)
        self.prefixes.append(prefix)
        return TestTables(UndatedTransport(self.dated), tables)

    def delete_tables(self) -> None:
        """Delete all that were made."""
        while self.prefixes:
            delete_tables(self.dynamodb, self.prefixes.pop())


@pytest.fixture(scope="module")
def engine(stack: Any) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        client.cache_clear()
        made = Engine(stack.client("dynamodb"), BotocoreTransport(REGION, stack.running.engine.dynamodb_endpoint_url))
        yield made
        client.cache_clear()
    made.delete_tables()
