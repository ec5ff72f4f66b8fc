"""What only the account's owner can do on the running stack: look into tables, and archive as if months had passed."""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import pytest

from functions.audit.domain.states import reducers
from holdfast.archive import Archiver, ArchiveReader, Stuck
from holdfast.aws import client
from holdfast.clock import ManualClock, SystemClock
from holdfast.dynamodb import BotocoreTransport, Database, DynamoEventStores, Tables
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.reads import query
from holdfast.log import PARTITIONS, LogReader
from holdfast.objects import S3Objects
from holdfast.snapshots import Snapshots
from holdfast.streams import RawCodec
from tests.dynamo_tables import REGION, UndatedTransport
from tests.local.conftest import LocalStack
from tests.log_lab import memory_sealer

LATER = timedelta(days=100)
TABLES = Tables("holdfast-audit-commits", "holdfast-audit-operations", "holdfast-audit-log", "holdfast-audit-views")
ARCHIVE = "holdfast-audit-archive-000000000000-us-east-1"
RANGES_MAX = 100
MARK: Final = "made-of-a-snapshot"


@dataclass(frozen=True)
class Owner:
    """Works on one tenant of the deployed service, from outside, with the kernel's own parts."""

    tenant: str
    transport: UndatedTransport
    objects: S3Objects

    def logged(self, stream: str) -> int:
        """Say up to which version the log holds a stream."""
        return LogReader(Database.connect(self.transport), TABLES, self.tenant).watermark(stream).version

    def keep(self, stream: str) -> None:
        """Make the snapshots that are due and that the service has not made yet."""
        database = Database.connect(self.transport)
        archive = ArchiveReader(database, TABLES, self.objects)
        store = DynamoEventStores(database, RawCodec(), TABLES, archive).of(self.tenant, "holdfast:audit")
        sealer = memory_sealer(database, TABLES, self.tenant)
        kept = Snapshots(database, TABLES, self.tenant, store, self.objects, sealer).keep(stream, reducers.of(stream))
        assert kept.is_done

    def snapshots(self, stream: str) -> list[int]:
        """List the versions at which snapshots of a stream are kept."""
        return [int(row["sk"]) for row in self._snapshots(stream)]

    @contextmanager
    def marked(self, stream: str) -> Iterator[None]:
        """
        Let every snapshot of a stream hold a member that no event brought: what is made of one shows it.

        None may be due meanwhile, or it would be made of these.
        """
        rows = self._snapshots(stream)
        for row in rows:
            folded = json.loads(zlib.decompress(row["state"]))
            folded["state"][MARK] = True
            self._put(row | {"state": zlib.compress(json.dumps(folded).encode())})
        yield
        for row in rows:
            self._put(row)

    def _snapshots(self, stream: str) -> list[dict[str, Any]]:
        pk = f"N#{self.tenant}#{reducers.of(stream).label}#{stream}"
        return list(query(Database.connect(self.transport), TABLES.log, pk))

    def _put(self, row: dict[str, Any]) -> None:
        self.transport.call("PutItem", {"TableName": TABLES.log, "Item": to_item(row)})

    def archive(self) -> int:
        """Archive the tenant's whole log, with a clock that is months ahead; return how many commits were removed."""
        stuck: list[Stuck] = []
        database = Database.connect(self.transport, ManualClock(SystemClock().now() + LATER))
        archiver = Archiver(database, TABLES, self.objects, stuck.append)
        removed = 0
        for number in range(PARTITIONS):
            for _ in range(RANGES_MAX):
                moved = archiver.partition(self.tenant, number).archive()
                if moved is None:
                    break
                removed += moved.removed
        assert stuck == []
        return removed

    def hot(self, stream: str) -> list[int]:
        """List the versions at which the commits begin that stand in the table."""
        rows = query(Database.connect(self.transport), TABLES.commits, f"S#{self.tenant}#{stream}")
        return [row["sk"] for row in rows]


@contextmanager
def owner_of(stack: LocalStack, tenant: str) -> Iterator[Owner]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        client.cache_clear()
        endpoint = stack.running.engine.endpoint_url
        transport = UndatedTransport(BotocoreTransport(REGION, stack.running.engine.dynamodb_endpoint_url))
        yield Owner(tenant, transport, S3Objects(ARCHIVE, SystemClock(), region=REGION, endpoint_url=endpoint))
        client.cache_clear()
