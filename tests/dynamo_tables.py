"""Tables for the event store's tests, on whatever DynamoDB is given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from moto import mock_aws

from holdfast.aws import client
from holdfast.clock import Clock
from holdfast.dynamodb import BotocoreTransport, Database, DynamoEventStores, Tables, Transport
from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.dynamodb.transport import Answer, Told
from holdfast.streams import RawCodec

REGION = "us-east-1"


@dataclass(frozen=True)
class TestTables:
    """Commits, operations and one table for companions, behind a transport."""

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


def create_tables(dynamodb: Any, prefix: str) -> Tables:
    names = {role: f"{prefix}-{role}" for role in ("commits", "operations", "balances")}
    for name in names.values():
        dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "N"},
            ],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        )
    return Tables(names["commits"], names["operations"], companions={"balances": names["balances"]})


@contextmanager
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
