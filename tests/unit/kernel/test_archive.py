"""What is archived when, what stays, what is refused, and what reading it costs."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from holdfast.archive import ArchiveReader
from holdfast.archive.partition import RANGE_COMMITS_MAX
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.stream_reader import Hole
from holdfast.dynamodb.transport import Answer
from holdfast.errors import Invalid, Unavailable
from holdfast.log import PARTITIONS, partition_of
from holdfast.log.bodies import Bodies, Lost
from holdfast.objects import Damaged, MemoryObjects
from tests.archive_lab import ArchiveLab, archive_lab, streams_together

DAY = timedelta(days=1)


@pytest.fixture
def lab() -> ArchiveLab:
    return archive_lab()


def written(lab: ArchiveLab, *sizes: int, stream: str = "s/1") -> ArchiveLab:
    for size in sizes:
        lab.append(stream, size)
    lab.index()
    return lab


def standing(lab: ArchiveLab, stream: str = "s/1") -> list[int]:
    return [row["sk"] for row in lab.hot(stream)]


# ----- what is archived, and when


def test_nothing_is_archived_before_its_oldest_is_a_day_older_than_it_must_be(lab):
    written(lab, 2, 2, 2)
    lab.age(timedelta(days=90, hours=23))
    assert lab.archiver().run().commits == 0

    lab.age(timedelta(hours=2))

    assert lab.archiver().run().commits == 3
    lab.check()


def test_a_range_ends_where_commits_are_too_young(lab):
    written(lab, 1, 1)
    lab.age(2 * DAY)
    written(lab, 1)
    lab.age(timedelta(days=90, seconds=-10))

    assert lab.archiver().run().commits == 2
    assert standing(lab) == [3]


def test_the_newest_commit_stays_however_old_it_is(lab):
    written(lab, 1, 1, 1)
    for _ in range(3):
        lab.age()
        lab.archiver().run()
        assert standing(lab) == [3]
    lab.check()


def test_what_stayed_as_the_newest_goes_when_its_stream_has_gone_on(lab):
    written(lab, 1, 1)
    lab.age()
    lab.archiver().run()
    written(lab, 1, 1)
    lab.age()

    report = lab.archiver().run()

    assert (report.commits, report.removed) == (2, 2)
    assert standing(lab) == [4]
    lab.check()


def test_a_commit_that_the_log_does_not_know_yet_is_the_newest_all_the_same(lab):
    written(lab, 1, 1)
    lab.age()
    lab.append("s/1")

    lab.archiver().run()

    assert standing(lab) == [3]
    lab.index()
    lab.check()


def test_a_range_is_as_large_as_one_object_may_be(lab):
    written(lab, *[3] * 12)
    lab.age()

    report = lab.archiver(range_bytes=300).run()

    keys = list(lab.objects.keys("archive/"))
    assert (report.commits, report.is_done) == (12, True)
    assert 2 < len(keys) < 12
    spans = [tuple(map(int, key.rsplit("/", 1)[1].split("-"))) for key in keys]
    assert [first for first, _ in spans] == [1, *[last + 1 for _, last in spans[:-1]]]
    lab.check()


def test_a_range_is_no_more_than_one_call_can_remove(lab, monkeypatch):
    monkeypatch.setattr("holdfast.archive.partition.RANGE_COMMITS_MAX", 5)
    written(lab, *[1] * 12)
    lab.age()

    lab.archiver().run()

    assert len(list(lab.objects.keys("archive/"))) == 3
    assert RANGE_COMMITS_MAX > 5
    lab.check()


def test_all_partitions_of_all_tenants_are_archived(lab):
    other = ArchiveLab(lab.transport, lab.tables, objects=lab.objects, clock=lab.clock)
    for each in (lab, other):
        for stream in range(12):
            each.append(f"s/{stream}")
            each.append(f"s/{stream}")
        each.index()
    lab.age()

    report = lab.archiver().run()

    assert (report.commits, report.removed, report.is_done) == (48, 24, True)
    lab.check()
    other.check()


def test_only_so_many_seconds_are_worked_and_the_next_call_goes_on(lab):
    written(lab, *[1] * 30)
    lab.age()
    slow = Slow(lab)

    reports = [lab.archiver(slow).run(seconds=30)]
    while not reports[-1].is_done:
        reports.append(lab.archiver(slow).run(seconds=30))
        assert len(reports) < 10

    assert len(reports) > 2
    assert standing(lab) == [30]
    lab.check()


class Slow:
    """A transport whose every call takes a second."""

    def __init__(self, lab: ArchiveLab) -> None:
        self._lab = lab

    def call(self, operation: str, request: Any) -> Answer:
        self._lab.clock.advance(timedelta(seconds=1))
        return self._lab.transport.call(operation, request)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_several_may_remove_at_once(lab, workers):
    for number in range(40):
        written(lab, 1, 2, 1, stream=f"s/{number}")
    lab.age()

    assert lab.archiver(workers=workers).run().removed == 80
    lab.check()


def test_who_goes_on_does_not_begin_again_with_what_was_removed(lab, monkeypatch):
    monkeypatch.setattr("holdfast.archive.partition.STREAMS_AT_ONCE", 5)
    streams = streams_together(20)
    for stream in streams:
        written(lab, 1, 1, stream=stream)
    lab.age()
    partition = lab.archiver().partition(lab.tenant, 0)
    deletes = Counter[str]()

    class Stopping:
        def call(self, operation: str, request: Any) -> Answer:
            deletes[operation] += 1
            if deletes["DeleteItem"] == 13:
                raise KeyboardInterrupt
            return lab.transport.call(operation, request)

    with pytest.raises(KeyboardInterrupt):
        lab.archiver(Stopping()).partition(lab.tenant, 0).archive()

    assert partition._cursor().freed == 10
    moved = partition.archive()
    assert (moved and moved.removed) == 20 - 12
    lab.check()


# ----- what is refused


@pytest.mark.parametrize("days", [0, 0.99, -1])
def test_no_setting_lets_a_commit_go_that_is_younger_than_a_day(lab, days):
    with pytest.raises(ValueError, match="a day at least"):
        lab.archiver(hot_days=days)


def test_a_range_that_was_begun_by_a_clock_far_ahead_is_not_removed(lab):
    written(lab, 1, 1, 1)
    ahead = lab.fork()
    ahead.age()
    partition = ahead.archiver().partition(ahead.tenant, partition_of("s/1"))
    partition._move(partition._cursor(), type(partition._cursor())(0, 3))
    late = ArchiveLab(ahead.transport, lab.tables, lab.tenant, lab.clock, objects=ahead.objects)

    assert late.archiver().run().removed == 0
    assert standing(late) == [1, 2, 3]
    late.check()

    late.age(DAY)
    assert late.archiver().run().removed == 2
    late.check()


def test_a_clock_that_is_not_the_stores_removes_nothing(lab):
    written(lab, 1, 1, 1)
    truth = lab.clock.now()
    lab.age()

    class Dated:
        def call(self, operation: str, request: Any) -> Answer:
            return Answer(lab.transport.call(operation, request).body, truth)

    with pytest.raises(Unavailable) as refused:
        lab.archiver(Dated()).run()

    assert refused.value.code == "clock_skew"
    assert standing(lab) == [1, 2, 3]
    assert list(lab.objects.keys("")) == []


def changed(lab: ArchiveLab, stream: str, first_version: int, **attributes: Any) -> None:
    lab.put_raw(lab.raw(stream, first_version) | to_item(attributes))


def check_only_its_partition_stays(lab: ArchiveLab, damage: Callable[[str], None]) -> None:
    ours, *others = (next(f"x/{n}" for n in range(99) if partition_of(f"x/{n}") == each) for each in range(PARTITIONS))
    for stream in (ours, *others):
        written(lab, 1, 1, 1, stream=stream)
    damage(ours)
    lab.age()

    lab.archiver().run()

    assert [(stuck.tenant, stuck.partition) for stuck in lab.stuck] == [(lab.tenant, 0)]
    assert standing(lab, ours) == [1, 2, 3]
    assert [standing(lab, other) for other in others] == [[3]] * 3


@pytest.mark.parametrize(
    "attributes",
    [
        {"ev": b"x"},
        {"actor": "mallory"},
        {"commit_id": "other"},
        {"rt": 5},
        {"hash": b"x" * 32},
        {"n": 2},
        {"n": 10**12},
        {"rt": "text"},
        {"rt": 10**30},
        {"tlo": None},
        {"ev": "text"},
        {"commit_id": 5},
        {"added": 10**30},
    ],
    ids=repr,
)
def test_a_commit_that_is_not_what_the_log_says_is_told_of_and_its_partition_stays(lab, attributes):
    check_only_its_partition_stays(lab, lambda stream: changed(lab, stream, 2, **attributes))


@pytest.mark.parametrize("name", ["ev", "n", "commit_id", "fp", "actor", "rt", "tlo", "thi", "prev", "root", "hash"])
def test_a_commit_that_has_lost_an_attribute_is_told_of_and_its_partition_stays(lab, name):
    def lose(stream: str) -> None:
        item = lab.raw(stream, 2)
        del item[name]
        lab.put_raw(item)

    check_only_its_partition_stays(lab, lose)


@pytest.mark.parametrize("attributes", [{"actor": "mallory"}, {"n": 10**12}, {"tlo": "text"}], ids=repr)
def test_once_a_commit_is_mended_its_partition_goes_on(lab, attributes):
    written(lab, 1, 1, 1)
    sound = lab.raw("s/1", 3)
    changed(lab, "s/1", 3, **attributes)
    lab.age()
    lab.archiver().run()
    assert [*lab.objects.keys("")] == []
    assert standing(lab) == [1, 2, 3]

    lab.put_raw(sound)
    lab.stuck.clear()

    assert lab.archiver().run().commits == 3
    lab.check()


@pytest.mark.parametrize("name", ["hash", "ev"])
def test_what_stayed_as_the_newest_and_has_lost_an_attribute_stays(lab, name):
    written(lab, 1, 1)
    lab.age()
    lab.archiver().run()
    item = lab.raw("s/1", 2)
    written(lab, 1, 1)
    del item[name]
    lab.put_raw(item)
    lab.age()

    lab.archiver().run()

    assert len(lab.stuck) == 1
    assert standing(lab) == [2, 3, 4]


def test_a_commit_that_is_nowhere_stops_its_partition(lab):
    written(lab, 1, 1, 1)
    key = {"pk": f"S#{lab.tenant}#s/1", "sk": 2}
    lab.transport.call("DeleteItem", {"TableName": "commits", "Key": to_item(key)})
    lab.age()

    lab.archiver().run()

    assert [stuck.reason.split(":")[0] for stuck in lab.stuck] == ["Lost"]
    assert standing(lab) == [1, 3]
    with pytest.raises(Hole):
        list(lab.store().read("s/1"))
    with pytest.raises(Hole):
        list(lab.store().read_back("s/1"))


# ----- reading


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
