"""Who keeps snapshots, and when: as a stream grows, until all that are due are made; and where no hint tells of any."""

from typing import Any

import msgspec
import pytest

from functions.audit import domain
from functions.audit.app import workers
from holdfast import snapshots
from holdfast.errors import Unavailable
from holdfast.folds import MERGE_PATCH, Reducer
from holdfast.log import LogReader
from holdfast.snapshots import Kept, Snapshots
from tests.audit_lab import AuditLab
from tests.log_lab import log_lab

STREAM = "orders/1"
BATCH = 300
COMMITS = 6


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    """A stream of which everything was appended at once, and is in the log."""
    audit = AuditLab(log_lab(), monkeypatch)
    for _ in range(COMMITS - 1):
        audit.lab.append(STREAM, BATCH)
    audit.lab.indexer().index([audit.lab.append(STREAM, BATCH)])
    return audit


def kept(audit: AuditLab, label: str = MERGE_PATCH.label) -> list[int]:
    rows = audit.lab.transport.call("Scan", {"TableName": "log"}).body["Items"]
    pk = f"N#{audit.lab.tenant}#{label}#{STREAM}"
    return sorted(int(row["sk"]["S"]) for row in rows if row["pk"]["S"] == pk)


def refuse(*_: Any) -> None:
    raise Unavailable("store_unavailable", "no answer")


def test_a_snapshot_that_there_was_no_time_for_holds_up_nothing_and_is_made_by_repair(audit, monkeypatch):
    monkeypatch.setattr(snapshots, "KEPT_AT_ONCE_MAX", 2)

    workers.projector(audit.segments(), None)
    assert kept(audit) == [600, 1_200]
    workers.repair({}, None)
    assert kept(audit) == [600, 1_200, 1_800]


def test_a_snapshot_that_cannot_be_made_holds_up_nothing(audit, monkeypatch):
    monkeypatch.setattr(Snapshots, "keep", refuse)

    workers.projector(audit.segments(), None)

    assert audit.get("/v1/streams")[1]["items"][0]["version"] == COMMITS * BATCH


def test_nor_does_a_segment_that_cannot_be_looked_at_for_one(audit, monkeypatch):
    monkeypatch.setattr(LogReader, "segment", refuse)

    workers.projector(audit.segments(), None)

    assert audit.get("/v1/streams")[1]["items"][0]["version"] == COMMITS * BATCH
    assert kept(audit) == []


def test_when_a_reducer_has_changed_streams_that_no_longer_grow_get_their_snapshots(audit, monkeypatch):
    workers.projector(audit.segments(), None)
    newer = msgspec.structs.replace(MERGE_PATCH, version=2)
    monkeypatch.setattr(domain, "reducers", type("Changed", (), {"of": staticmethod(lambda _stream: newer)}))

    assert kept(audit, newer.label) == []
    workers.repair({}, None)

    assert kept(audit, newer.label) == kept(audit) == [600, 1_200, 1_800]


def test_repair_looks_after_a_bounded_number_of_long_streams(audit, monkeypatch):
    for number in range(4):
        audit.lab.append(f"orders/{number}", BATCH)
        audit.lab.append(f"orders/{number}", BATCH)
        audit.lab.append(f"orders/{number}", BATCH)
    audit.lab.append("orders/short", 20)
    looked_at: list[str] = []
    keep = Snapshots.keep

    def look(self: Snapshots, stream: str, reducer: Reducer) -> Kept:
        looked_at.append(stream)
        return keep(self, stream, reducer)

    monkeypatch.setattr(Snapshots, "keep", look)

    workers.repair({}, None)
    assert sorted(looked_at) == [f"orders/{number}" for number in range(4)]

    monkeypatch.setattr(workers, "LONG_STREAMS_MAX", 3)
    looked_at.clear()
    workers.repair({}, None)
    assert len(set(looked_at)) == 3
