"""Events that a view cannot take: their streams stand still, all others go on, and a redrive counts nothing twice."""

from collections.abc import Set as AbstractSet
from typing import Any

import pytest

from holdfast.errors import Unavailable
from holdfast.log import PARTITIONS, partition_of
from holdfast.projections import Generation, Projector, redrive
from holdfast.projections.batches import Parked
from holdfast.projections.redrive import Redrive
from holdfast.retry import deadline
from holdfast.testing import Crash, Fuse, at_every_crash
from tests.archive_lab import streams_together
from tests.faults.kernel.projections.work import Slow
from tests.log_lab import LogLab, PerStream


class Picky(PerStream):
    """A counting view that cannot take some events, and cannot say which rows others change."""

    def __init__(self, refused: set[tuple[str, int]], unnamed: AbstractSet[tuple[str, int]] = frozenset()) -> None:
        self.refused = refused
        self.unnamed = unnamed

    def keys(self, event: Any) -> Any:
        if (event.stream, event.version) in self.unnamed:
            raise ValueError(f"no rows of {event.version}")
        return super().keys(event)

    def change(self, key: Any, row: Any, event: Any) -> Any:
        if (event.stream, event.version) in self.refused:
            raise ValueError(f"no {event.version}")
        return super().change(key, row, event)


def picky(
    lab: LogLab,
    refused: set[tuple[str, int]],
    transport: Any = None,
    told: list[Any] | None = None,
    unnamed: AbstractSet[tuple[str, int]] = frozenset(),
) -> tuple[Projector, Picky]:
    view = Picky(refused, unnamed)
    plain = lab.projector(transport)
    heard: list[Any] = [] if told is None else told
    views = [plain.views[0], view]
    return Projector(plain.database, plain.tables, plain.bodies, views, {}, lambda *parked: heard.append(parked)), view


def test_an_event_that_cannot_be_taken_stops_its_stream_and_no_other(lab):
    for _ in range(4):
        lab.indexer().index([lab.append("s/1", 2), lab.append("s/2", 2)])
    told: list[Any] = []
    projector, _ = picky(lab, {("s/1", 3)}, told=told)
    for _ in range(2):
        for partition in range(PARTITIONS):
            projector.project(lab.tenant, partition)

    assert [(generation.view, parked.stream) for generation, parked in told] == [("per-stream", "s/1")]
    generation = Generation("per-stream", 1, lab.tenant)
    rows = {stream: dict(lab.views().rows(generation, str(partition_of(stream))))[stream] for stream in lab.written}
    assert rows["s/1"] == {"events": 2, "sum": 3}
    assert rows["s/2"]["events"] == 8
    (parked,) = Redrive(projector).parked(generation, partition_of("s/1"))
    assert (parked.stream, parked.version, parked.reason) == ("s/1", 3, "ValueError: no 3")


def test_redriven_a_stream_goes_on_in_order_and_nothing_is_counted_twice_wherever_it_is_killed(lab):
    for _ in range(4):
        lab.indexer().index([lab.append("s/1", 2), lab.append("s/2", 2)])
    projector, _ = picky(lab, {("s/1", 3)})
    for partition in range(PARTITIONS):
        projector.project(lab.tenant, partition)
    lab.indexer().index([lab.append("s/1", 3)])
    for partition in range(PARTITIONS):
        projector.project(lab.tenant, partition)
    generation, partition = Generation("per-stream", 1, lab.tenant), partition_of("s/1")

    def redrive(world: LogLab, fuse: Fuse) -> Parked | None:
        mended, view = picky(world, set(), fuse.wrap(world.transport))
        return Redrive(mended).stream(view, generation, partition, "s/1")

    def then(crash: Crash[LogLab]) -> None:
        assert redrive(crash.world, Fuse()) is None
        assert list(Redrive(crash.world.projector()).parked(generation, partition)) == []
        crash.world.check_views()

    assert at_every_crash(lab.fork, redrive, then) >= 14


def test_a_stream_that_is_still_poisoned_stands_still_again_further_on(lab):
    for _ in range(4):
        lab.indexer().index([lab.append("s/1", 2)])
    projector, _ = picky(lab, {("s/1", 3)})
    partition, generation = partition_of("s/1"), Generation("per-stream", 1, lab.tenant)
    projector.project(lab.tenant, partition)

    second, view = picky(lab, {("s/1", 7)})
    parked = Redrive(second).stream(view, generation, partition, "s/1")
    assert parked is not None
    assert parked.version == 7
    assert dict(lab.views().rows(generation, str(partition)))["s/1"] == {"events": 6, "sum": 21}

    third, view = picky(lab, set())
    assert Redrive(third).stream(view, generation, partition, "s/1") is None
    lab.check_views()


@pytest.mark.parametrize("unnamed_at_first", [{("s/1", 4)}, set()], ids=["by both", "by one"])
def test_a_stream_that_two_events_stop_in_two_ways_stands_still_at_the_first(lab, unnamed_at_first):
    lab.indexer().index([lab.append("s/1") for _ in range(5)])
    partition, generation = partition_of("s/1"), Generation("per-stream", 1, lab.tenant)
    projector, _ = picky(lab, {("s/1", 2)}, unnamed=unnamed_at_first)
    projector.project(lab.tenant, partition)

    second, view = picky(lab, {("s/1", 2)}, unnamed={("s/1", 4)})
    again = Redrive(second).stream(view, generation, partition, "s/1")

    (parked,) = Redrive(second).parked(generation, partition)
    assert (again, parked.version) == (parked, 2)
    assert second.checkpoint(generation, partition).parked == 1
    third, view = picky(lab, set(), unnamed={("s/1", 4)})
    further = Redrive(third).stream(view, generation, partition, "s/1")
    assert further is not None
    assert (further.version, further.reason) == (4, "ValueError: no rows of 4")
    assert [further] == list(Redrive(third).parked(generation, partition))
    fourth, view = picky(lab, set())
    assert Redrive(fourth).stream(view, generation, partition, "s/1") is None
    lab.check_views()


@pytest.mark.parametrize("poisoned", [1, 3])
def test_a_redrive_that_is_cut_off_has_come_further_by_what_it_looked_through(lab, monkeypatch, poisoned):
    """However much of other streams lies between the events of the one that is redriven."""
    monkeypatch.setattr(redrive, "COMMITS_MAX", 5, raising=False)
    ours, *others = streams_together(6)
    for _ in range(3):
        for stream in (ours, *others, *others, *others):
            lab.indexer().index([lab.append(stream)])
    partition, generation = partition_of(ours), Generation("per-stream", 1, lab.tenant)
    projector, _ = picky(lab, {(ours, poisoned)})
    projector.project(lab.tenant, partition)
    mended, view = picky(lab, set(), Slow(lab))

    ends: list[Any] = ["unfinished"]
    while ends[-1] == "unfinished" and len(ends) < 30:
        try:
            with deadline(8, lab.clock):
                ends.append(Redrive(mended).stream(view, generation, partition, ours))
        except Unavailable as error:
            ends.append(error.code)

    assert len(ends) > 2
    assert ends[-1] is None
    assert list(Redrive(mended).parked(generation, partition)) == []
    lab.project()
    lab.check_views()


def test_more_poison_than_one_batch_parks_is_parked_in_the_next(lab):
    lab.indexer().index([lab.append(f"s/{n}") for n in range(80)])
    projector, _ = picky(lab, {(f"s/{n}", 1) for n in range(80)})
    for partition in range(PARTITIONS):
        projector.project(lab.tenant, partition)

    generation = Generation("per-stream", 1, lab.tenant)
    parked = [each for partition in range(PARTITIONS) for each in Redrive(projector).parked(generation, partition)]
    assert len(parked) == 80
