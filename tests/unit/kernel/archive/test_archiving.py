"""What is archived when, what stays, and what is refused."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from holdfast.archive.partition import RANGE_COMMITS_MAX
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.stream_reader import Hole
from holdfast.dynamodb.transport import Answer
from holdfast.errors import Unavailable
from holdfast.log import PARTITIONS, partition_of
from tests.archive_lab import ArchiveLab, streams_together
from tests.unit.kernel.archive.streams import standing, written

DAY = timedelta(days=1)


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
