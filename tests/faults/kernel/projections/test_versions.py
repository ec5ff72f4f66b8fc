"""Versions of a view: each generation is made by one of them, from its first row to its last."""

import random
from typing import Any

import pytest

from holdfast.errors import Conflict
from holdfast.log import PARTITIONS
from holdfast.projections import Generation, Projector
from tests.faults.kernel.projections.work import Work, indexed, positions
from tests.log_lab import LogLab, PerStream, log_lab


class PerStreamBetter(PerStream):
    """The next version of the view."""

    version = 2

    def change(self, key: Any, row: Any, event: Any) -> Any:
        return {**super().change(key, row, event), "better": True}


NEXT = [PerStreamBetter()]


BOTH = [PerStream(), PerStreamBetter()]


def project(lab: LogLab, views: Any) -> list[Any]:
    """Move along the log with some versions registered; return which live generations were told to stand still."""
    told: list[Any] = []
    plain = lab.projector(views=views)
    projector = Projector(
        plain.database, plain.tables, plain.bodies, views, {}, on_outdated=lambda *outdated: told.append(outdated)
    )
    for partition in range(PARTITIONS):
        projector.project(lab.tenant, partition)
    return told


def made_by(lab: LogLab, number: int) -> set[bool]:
    """Say by which versions the rows of a generation were made."""
    generation = Generation("per-stream", number, lab.tenant)
    rows = [row for partition in range(PARTITIONS) for _, row in lab.views().rows(generation, str(partition))]
    return {"better" in row for row in rows}


def test_a_generation_is_not_carried_on_by_another_version_of_its_view(lab):
    indexed(lab, 1)
    project(lab, [PerStream()])
    before = positions(lab)
    indexed(lab, 2)

    told = project(lab, NEXT)

    assert told == [(Generation("per-stream", 1, lab.tenant), 1)] * PARTITIONS
    assert positions(lab) == before
    assert made_by(lab, 1) == {False}
    assert lab.projector(views=NEXT).survey(lab.log().heads()).behind

    work = Work(lab, random.Random(1), views=NEXT)
    assert work.start().version == 2
    work.drain()
    assert work.state() == "flipped"
    assert project(lab, NEXT) == []
    assert positions(lab) == {head.partition: head.position for head in lab.log().heads()}
    assert made_by(lab, 2) == {True}


def test_a_version_that_stays_registered_moves_its_generation_until_the_next_one_has_taken_its_place(lab):
    indexed(lab, 1)
    project(lab, [PerStream()])
    work = Work(lab, random.Random(1), views=BOTH)
    work.start()
    indexed(lab, 2)
    assert project(lab, BOTH) == []
    lab.check_views_of("per-stream", 1)
    work.drain()
    indexed(lab, 3)
    project(lab, BOTH)
    assert (lab.views().pointer("per-stream").live, made_by(lab, 2)) == (2, {True})

    with pytest.raises(Conflict) as refused:
        Work(lab, random.Random(1), views=NEXT).rebuilds().rollback(lab.tenant, "r1")
    assert refused.value.code == "rebuild_not_live"
    work.rebuilds().rollback(lab.tenant, "r1")
    indexed(lab, 4)
    assert project(lab, BOTH) == []
    lab.check_views_of("per-stream", 1)


def test_the_first_generation_is_made_by_the_newest_version(lab):
    indexed(lab, 1)
    project(lab, BOTH)
    assert made_by(lab, 1) == {True}

    other = log_lab()
    Work(other, random.Random(1), views=NEXT).start()
    indexed(other, 1)
    assert project(other, [PerStream()]) != []
