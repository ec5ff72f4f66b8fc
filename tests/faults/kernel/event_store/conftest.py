"""A store without faults, with a few commits in it."""

import pytest

from holdfast.dynamodb import DynamoEventStore
from tests.dynamo_tables import TestTables, memory_stores
from tests.faults.kernel.event_store.acts import TENANT, begun


@pytest.fixture
def database() -> TestTables:
    return memory_stores()


@pytest.fixture
def tenant() -> str:
    return TENANT


@pytest.fixture
def calm(database: TestTables, tenant: str) -> DynamoEventStore[bytes]:
    return begun(database, tenant)
