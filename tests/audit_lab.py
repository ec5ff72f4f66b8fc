"""The audit trail whole, in process: its real routes over real streams, log and read models on one store."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from functions.audit import adapters
from functions.audit.app import app
from holdfast import telemetry
from holdfast.anchors import MemorySigner
from holdfast.archive import ArchiveReader
from holdfast.cursors import Cursors
from holdfast.dynamodb import Database, DynamoEventStores, Tables
from holdfast.envelope import MemoryKeyRing
from holdfast.errors import Unavailable
from holdfast.log import PARTITIONS, Hint
from holdfast.objects import MemoryObjects
from holdfast.outbox import MemoryOutbox
from holdfast.streams import RawCodec
from holdfast.subjects import KeyCache, SubjectKeys
from holdfast.switches import Switches
from tests.audit_door import Door
from tests.log_lab import LogLab

Answer = tuple[int, Any, dict[str, str]]


class AuditLab:
    """One tenant at the audit trail's door."""

    def __init__(self, lab: LogLab, patch: pytest.MonkeyPatch) -> None:
        self.lab = lab
        self.steps: list[tuple[str, str, int]] = []
        self.door = Door()
        self.door.principal = self._principal(lab.tenant)
        self._streams: set[str] = set()
        self.objects, self.anchored = MemoryObjects(), MemoryObjects()
        self.ring, self.signer = MemoryKeyRing(), MemorySigner()
        self.keys = KeyCache(lab.clock)
        patch.setitem(app.__dict__, "_authenticate", self.door.authenticate)
        self._archived = ArchiveReader(lab.database(), lab.tables, self.objects)
        for name in ("database", "tables", "archive", "event_stores", "cursors", "send_step", "subject_keys", "signer"):
            patch.setattr(adapters, name, getattr(self, f"_{name}"))
        patch.setattr(adapters, "archive_objects", lambda: self.objects)
        patch.setattr(adapters, "anchor_objects", lambda: self.anchored)
        patch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Holdfast")
        telemetry.metrics.cache_clear()
        self.outbox = MemoryOutbox()
        patch.setattr(adapters, "outbox", lambda: self.outbox)
        self.switches = Switches(lab.database(), lab.tables)
        patch.setattr(adapters, "switches", lambda: self.switches)

    def _database(self) -> Database:
        return self.lab.database()

    def _tables(self) -> Tables:
        return self.lab.tables

    def _event_stores(self) -> DynamoEventStores[bytes]:
        return DynamoEventStores(self.lab.database(), RawCodec(), self.lab.tables, self._archived)

    def _archive(self) -> ArchiveReader:
        return self._archived

    def _cursors(self) -> Cursors:
        return Cursors(b"k" * 32)

    def _send_step(self, *step: Any) -> None:
        self.steps.append(step)

    def _subject_keys(self, tenant: str) -> SubjectKeys:
        return SubjectKeys(self.lab.database(), self.lab.tables, self.ring, tenant, self.keys)

    def _signer(self) -> MemorySigner:
        return self.signer

    def _principal(self, tenant: str) -> Any:
        return msgspec.structs.replace(self.door.principal, tenant=tenant)

    def as_tenant(self, tenant: str) -> None:
        self.door.principal = self._principal(tenant)

    def forget_archived(self) -> None:
        """Read the archive anew, as another process does."""
        self._archived = ArchiveReader(self.lab.database(), self.lab.tables, self.objects)

    def append(self, stream: str, *events: dict[str, Any]) -> None:
        self.lab.clock.advance(timedelta(milliseconds=7))
        status, answer, _ = self.door.append(list(events), stream=stream.replace("/", "~"))
        assert status == 201, answer
        self._streams.add(stream)

    def index(self) -> None:
        self.lab.indexer().index(
            Hint(self.lab.tenant, stream, self._first_of_last(stream)) for stream in sorted(self._streams)
        )

    def settle(self) -> None:
        """Let the log and the read models catch up."""
        self.index()
        for partition in range(PARTITIONS):
            adapters.projector().project(self.lab.tenant, partition)

    def segments(self) -> dict[str, Any]:
        """Make the event that tells of all the log's segments."""
        rows = self.lab.transport.call("Scan", {"TableName": "log"}).body["Items"]
        found = [{"pk": row["pk"], "sk": row["sk"]} for row in rows if row["pk"]["S"].startswith("L#")]
        return {"Records": [{"eventName": "INSERT", "dynamodb": {"Keys": keys}} for keys in found]}

    def _first_of_last(self, stream: str) -> int:
        newest = adapters.event_stores().of(self.lab.tenant, "ann").last(stream)
        assert newest
        return newest.first_version

    def get(self, template: str, query: str = "", **more: Any) -> Answer:
        return self.door.call("GET", template, path=f"x?{query}", **more)

    def found(self, query: str, **more: Any) -> list[Any]:
        """Search to the end, page by page."""
        return [item for page in self.pages("/v1/events", query, **more) for item in page["items"]]

    def pages(self, template: str, query: str, **more: Any) -> Iterator[Any]:
        cursor = ""
        while True:
            status, answer, _ = self.get(template, query + cursor, **more)
            assert status == 200, answer
            yield answer
            if answer["cursor"] is None:
                return
            cursor = f"&cursor={answer['cursor']}"

    def work(self) -> None:
        """Do what workers were asked for, until nothing is asked any more."""
        for _ in range(100):
            if not self.steps:
                return
            step = self.steps.pop(0)
            if adapters.rebuilds().step(*step):
                self.steps.append(step)
        raise Unavailable("unfinished", "The rebuild never ends.")


def event(number: int | str, time: datetime | str | None = None, **more: Any) -> dict[str, Any]:
    timed = {} if time is None else {"time": time if isinstance(time, str) else time.isoformat()}
    return {"specversion": "1.0", "id": str(number), "source": "urn:test", "type": "t", **timed, **more}
