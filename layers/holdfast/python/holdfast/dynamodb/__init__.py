"""DynamoDB as the kernel uses it: a narrow transport, the three safe writes, and the event store on them."""

from holdfast.dynamodb.event_store import DynamoEventStore, DynamoEventStores
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.transport import Answer, BotocoreTransport, Transport
from holdfast.dynamodb.writes import Database, put_new, transact_once, update_guarded

__all__ = [
    "Answer",
    "BotocoreTransport",
    "Database",
    "DynamoEventStore",
    "DynamoEventStores",
    "Tables",
    "Transport",
    "put_new",
    "transact_once",
    "update_guarded",
]
