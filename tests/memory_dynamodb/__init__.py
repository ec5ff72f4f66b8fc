"""A DynamoDB in memory, for tests that need many worlds: what the kernel uses of it, by DynamoDB's own rules."""

from tests.memory_dynamodb.tables import StreamRecord
from tests.memory_dynamodb.transport import MemoryTransport

__all__ = ["MemoryTransport", "StreamRecord"]
