"""What is read of the archive, what that costs, and that nothing of it is invented or left out."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from holdfast.archive import ArchiveReader
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.stream_reader import Hole
from holdfast.dynamodb.transport import Answer
from holdfast.errors import Invalid
from holdfast.log import partition_of
from holdfast.log.bodies import Bodies, Lost
from holdfast.objects import Damaged, MemoryObjects
from tests.archive_lab import ArchiveLab, streams_together
from tests.unit.kernel.archive.streams import standing, written

DAY = timedelta(days=1)


def archived(lab: ArchiveLab, commits: int, streams: list[str]) -> ArchiveLab:
    for _ in range(commits):
        for stream in streams:
            lab.append(stream, 2)
    lab.index()
    lab.age()
    lab.archiver().run()
    return lab


class Counting:
    """A transport and a bucket whose calls are counted."""

    def __init__(self, lab: ArchiveLab) -> None:
        self._transport, self._objects = lab.transport, lab.objects
        self.calls: Counter[str] = Counter()

    def put_new(self, key: str, body: bytes) -> bool:
        return self._objects.put_new(key, body)

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        return self._objects.keys(prefix, after)

    def call(self, operation: str, request: Any) -> Answer:
        self.calls[operation] += 1
        return self._transport.call(operation, request)

    def get(self, key: str) -> bytes | None:
        self.calls["get"] += 1
        return self._objects.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.calls["get_range"] += 1
        return self._objects.get_range(key, offset, length)


def test_a_few_archived_versions_cost_three_queries_and_one_part_of_an_object(lab):
    archived(lab, 300, ["s/1"])
    counting = Counting(lab)
    reader = ArchiveReader(lab.database(counting), lab.tables, counting)
    store = lab.store_with(reader, counting)

    found = list(store.read("s/1", 300, until=306))

    assert [commit.first_version for commit in found] == [301, 303, 305]
    assert counting.calls == {"Query": 3, "get_range": 1}


def test_a_bounded_read_of_what_stands_in_the_table_asks_no_archive(lab):
    written(lab, *[2] * 20)
    counting = Counting(lab)
    store = lab.store_with(ArchiveReader(lab.database(counting), lab.tables, counting), counting)

    assert len(list(store.read("s/1", 10, until=20))) == 5
    assert counting.calls == {"Query": 1}
    # From within a commit: it is looked for before the others.
    assert len(list(store.read("s/1", 11, until=20))) == 5
    assert counting.calls == {"Query": 3}


def test_who_walks_over_the_log_fetches_each_object_once(lab):
    archived(lab, 60, streams_together(3))
    lab.age()
    counting = Counting(lab)
    bodies = Bodies(lab.database(counting), lab.tables, ArchiveReader(lab.database(counting), lab.tables, counting))

    found = list(bodies.of(lab.tenant, lab.log().entries(0)))

    assert len(found) == 180
    assert (counting.calls["get"], counting.calls["get_range"]) == (1, 0)


def test_who_wants_a_few_old_commits_fetches_parts(lab):
    archived(lab, 60, streams_together(3))
    counting = Counting(lab)
    bodies = Bodies(lab.database(counting), lab.tables, ArchiveReader(lab.database(counting), lab.tables, counting))
    few = list(lab.log().entries(0))[3:100:33]

    assert [entry for entry, _ in bodies.of(lab.tenant, few)] == few
    assert (counting.calls["get"], counting.calls["get_range"]) == (0, 3 - 1)  # two of them share a frame


def test_entries_of_several_partitions_and_objects_are_found_in_any_order(lab):
    streams = [f"s/{number}" for number in range(8)]
    for _ in range(3):
        archived(lab, 4, streams)
    entries = [entry for partition in lab.entries().values() for entry in partition]
    gone = [each for each in reversed(entries) if each.reference.first_version not in standing_of(lab, each)]

    found = {(one.stream, one.first_version) for one in lab.reader().commits(lab.tenant, gone)}

    assert found == {(entry.reference.stream, entry.reference.first_version) for entry in gone}
    assert len(found) == 3 * 4 * 8 - 8


def standing_of(lab: ArchiveLab, entry: Any) -> list[int]:
    return standing(lab, entry.reference.stream)


def test_what_the_archive_does_not_hold_it_does_not_invent(lab):
    archived(lab, 4, ["s/1"])
    young = written(lab, 1)
    entry = list(young.log().entries(partition_of("s/1")))[-1]

    assert list(lab.reader().commits(lab.tenant, [entry])) == []
    assert list(lab.reader().read(lab.tenant, "s/1", 20, 30)) == []
    assert list(lab.reader().read_back(lab.tenant, "none/1", 1, 30)) == []


def by_log(lab: ArchiveLab) -> list[Any]:
    return list(Bodies(lab.database(), lab.tables, lab.reader()).of(lab.tenant, lab.log().entries(partition_of("s/1"))))


def by_stream(lab: ArchiveLab) -> list[Any]:
    return list(lab.store().read("s/1"))


@pytest.mark.parametrize("read", [by_log, by_stream])
@pytest.mark.parametrize("damage", ["gone", "cut short", "changed"])
def test_an_object_that_is_not_what_was_written_is_never_read_from(lab, damage, read):
    archived(lab, 20, ["s/1"])
    (key,) = lab.objects.keys("archive/")
    body = lab.objects._bodies.pop(key)
    if damage != "gone":
        lab.objects._bodies[key] = body[:100] if damage == "cut short" else body[:500] + b"!" + body[501:]

    with pytest.raises(Damaged):
        read(lab)


def test_without_its_archive_a_service_does_not_take_the_rest_for_the_whole(lab):
    archived(lab, 5, ["s/1"])
    bare = lab.store_with(None)

    for read in (lambda: bare.read("s/1"), lambda: bare.read_back("s/1")):
        with pytest.raises(Hole):
            list(read())
    with pytest.raises(Lost):
        list(Bodies(lab.database(), lab.tables).of(lab.tenant, lab.log().entries(partition_of("s/1"))))


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_piece_that_is_lost_leaves_a_hole_and_not_a_shorter_stream(lab, lost):
    for _ in range(3):
        archived(lab, 3, ["s/1"])
    rows = lab.log_rows(f"A#{lab.tenant}#s/1")
    key = {"pk": rows[lost - 1]["pk"], "sk": rows[lost - 1]["sk"]}
    lab.transport.call("DeleteItem", {"TableName": "log", "Key": to_item(key)})

    for read in (
        lambda: lab.store().read("s/1"),
        lambda: lab.store().read_back("s/1"),
        lambda: lab.store().read("s/1", 1 if lost == 1 else 0, until=18),
    ):
        with pytest.raises(Hole):
            list(read())


def test_a_name_that_is_no_streams_is_refused_as_ever(lab):
    with pytest.raises(Invalid):
        list(lab.store().read("a#b"))


def test_frames_and_objects_in_memory_are_few(lab):
    for _ in range(5):
        archived(lab, 130, ["s/1"])
    counting = Counting(lab)
    reader = ArchiveReader(lab.database(counting), lab.tables, counting)
    entries = list(lab.log().entries(partition_of("s/1")))

    for _ in range(2):
        list(reader.read(lab.tenant, "s/1", 1, 1_300))
        list(reader.commits(lab.tenant, entries[:500]))

    assert len(reader._wholes._values) == 2
    assert len(reader._frames._values) == 8


def test_objects_are_kept_apart_by_tenant(lab):
    other = ArchiveLab(lab.transport, lab.tables, objects=lab.objects, clock=lab.clock)
    for each in (lab, other):
        written(each, 1, 1)
    lab.age()
    lab.archiver().run()

    assert {key.split("/")[1] for key in lab.objects.keys("archive/")} == {lab.tenant, other.tenant}
    assert isinstance(lab.objects, MemoryObjects)
    lab.check()
    other.check()
