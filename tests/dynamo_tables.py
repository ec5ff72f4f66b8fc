"""Tables for the event store's tests, on whatever DynamoDB is given."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import boto3
from moto import mock_aws

from holdfast.aws import client
from holdfast.clock import Clock
from holdfast.dynamodb import BotocoreTransport, Database, DynamoEventStores, Tables, Transport
from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.dynamodb.tables import ROLES
from holdfast.dynamodb.transport import Answer, Told
from holdfast.streams import RawCodec
from tests.memory_dynamodb import MemoryTransport
from tests.memory_dynamodb.tables import KeyKind

REGION = "us-east-1"


@dataclass(frozen=True)
class TestTables:
    """The tables of a service that keeps streams, and one for companions, behind a transport."""

    __test__ = False

    transport: Transport
    tables: Tables

    def stores(self, clock: Clock | None = None, transport: Transport | None = None) -> DynamoEventStores[bytes]:
        return DynamoEventStores(Database.connect(transport or self.transport, clock), RawCodec(), self.tables)


class UndatedTransport:
    """A store whose answers bear no date, so that a test's own clock is not held against it."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    def call(self, operation: str, request: Mapping[str, Any]) -> Any:
        try:
            return Answer(self._inner.call(operation, request).body, None)
        except Told as told:
            told.date = None
            raise


KINDS: Final[Mapping[str, KeyKind]] = {"commits": "N", "operations": "N", "log": "S", "views": "S", "balances": "N"}
"""The sort key's kind in the table of each role; `balances` is for companions."""


def tables_named(prefix: str) -> Tables:
    names = {role: f"{prefix}-{role}" for role in KINDS}
    return Tables(**{role: names[role] for role in ROLES}, companions={"balances": names["balances"]})


def create_tables(dynamodb: Any, prefix: str) -> Tables:
    for role, kind in KINDS.items():
        dynamodb.create_table(
            TableName=f"{prefix}-{role}",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": kind},
            ],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        )
    return tables_named(prefix)


def delete_tables(dynamodb: Any, prefix: str) -> None:
    """Delete them, however long that takes: it may be done after its answer was given up."""
    for role in KINDS:
        with contextlib.suppress(dynamodb.exceptions.ResourceNotFoundException):
            dynamodb.delete_table(TableName=f"{prefix}-{role}")


def memory_stores() -> TestTables:
    """Make the tables in memory: in microseconds, for a world of its own in every example."""
    transport = MemoryTransport()
    for role, kind in KINDS.items():
        transport.create_table(f"test-{role}", kind)
    return TestTables(transport, tables_named("test"))


@contextlib.contextmanager
def moto_stores() -> Iterator[TestTables]:
    with mock_aws():
        client.cache_clear()
        tables = create_tables(boto3.client("dynamodb", region_name=REGION), "test")
        yield TestTables(UndatedTransport(BotocoreTransport(REGION)), tables)
        client.cache_clear()


def row_reader(database: TestTables) -> Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None]:
    def row(table: str, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
        request = {"TableName": database.tables.of_role(table), "Key": to_item(key), "ConsistentRead": True}
        item = database.transport.call("GetItem", request).body.get("Item")
        return from_item(item) if item else None

    return row
