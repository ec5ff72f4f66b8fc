"""Where the audit trail is kept: its streams in DynamoDB."""

import os
from functools import cache

from holdfast.dynamodb import DynamoEventStores, Tables
from holdfast.streams import EventStores, RawCodec


@cache
def event_stores() -> EventStores[bytes]:
    """Reach the tables that the stack's template names; made by the first request that needs it."""
    tables = Tables(
        commits=os.environ["HOLDFAST_COMMITS_TABLE"],
        operations=os.environ["HOLDFAST_OPERATIONS_TABLE"],
        companions={},
    )
    return DynamoEventStores.connect(RawCodec(), tables)
