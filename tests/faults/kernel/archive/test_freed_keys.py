"""Keys that become free: nobody writes to one who should not."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.transport import Answer
from holdfast.streams import StaleStream
from tests.archive_lab import archive_lab
from tests.faults.kernel.archive.runs import BUSY, archive, world


def a_commit_that_is_changed_while_it_is_archived_stays() -> None:
    lab = world()
    first = lab.hot(BUSY)[0]["sk"]
    tampered = lab.raw(BUSY, first) | to_item({"hash": b"x" * 32})

    class Tampering:
        def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
            if operation == "DeleteItem" and request["Key"] == {"pk": tampered["pk"], "sk": tampered["sk"]}:
                lab.put_raw(tampered)
            return lab.transport.call(operation, request)

    lab.archiver(Tampering()).run()

    assert [stuck.reason.split(":")[0] for stuck in lab.stuck] == ["Tampered"]
    assert lab.raw(BUSY, first) == tampered


def test_a_commit_that_is_changed_while_it_is_archived_stays():
    a_commit_that_is_changed_while_it_is_archived_stays()


def a_writer_who_slept_does_not_write_to_a_freed_key() -> None:
    lab = archive_lab()
    lab.append(BUSY)
    store = lab.store()
    newest = store.last(BUSY)
    assert newest is not None
    for _ in range(4):
        lab.append(BUSY)
    lab.index()
    lab.age()
    assert archive(lab)
    assert lab.raw(BUSY, 2) == {}  # where the writer would write

    with pytest.raises(StaleStream):
        store.append(BUSY, newest.boundary, [b"{}"], commit_id="late")

    lab.check()


def test_a_writer_who_slept_does_not_write_to_a_freed_key():
    a_writer_who_slept_does_not_write_to_a_freed_key()


def a_reader_who_stopped_early_does_not_write_to_a_freed_key() -> None:
    """In the same minute the commit was read, gone on from in the table, and archived with what stood behind it."""
    lab = world()
    store = lab.store()
    first = next(iter(store.read(BUSY, 4, until=5)))
    assert archive(lab)
    assert lab.raw(BUSY, first.version + 1) == {}

    with pytest.raises(StaleStream):
        store.append(BUSY, first.boundary, [b"{}"], commit_id="late")

    lab.check()


def test_a_reader_who_stopped_early_does_not_write_to_a_freed_key():
    a_reader_who_stopped_early_does_not_write_to_a_freed_key()


def test_ages_are_judged_by_the_clock_that_is_given(lab):
    young = world()
    young.clock.jump(-timedelta(days=50))

    assert archive(young) is None
    assert archive(lab)
