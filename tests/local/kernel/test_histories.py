"""Histories drawn at random, on the running engine; the threads of clients run as they like."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.testing import FAULTS
from tests import history_machine
from tests.archive_lab import ArchiveLab
from tests.history_world import HistoryWorld
from tests.soak import IS_SOAK, examples
from tests.stream_histories import EVERYTHING, History, outcomes

HISTORIES = examples(9, soak=200)


def side_by_side(acts: Sequence[Callable[[], object]]) -> None:
    with ThreadPoolExecutor(len(acts)) as pool:
        for done in [pool.submit(act) for act in acts]:
            done.result()


def test_every_history_of_a_stream_is_linearizable(engine):
    database = engine.make_tables()
    histories = [History(database, f"t{seed}", seed) for seed in range(HISTORIES)]
    for history in histories:
        history.run(side_by_side)
        history.order()

    # Few histories seldom leave an outcome unknown, and when they do is up to the threads.
    assert outcomes(histories).keys() >= (EVERYTHING if IS_SOAK else FAULTS.keys())


@pytest.mark.parametrize("part", range(examples(1, soak=4)))
def test_a_history_answers_as_a_plain_list_would(engine, part):
    numbers = itertools.count()

    def world() -> HistoryWorld:
        engine.delete_tables()
        made = engine.make_tables()
        return HistoryWorld(ArchiveLab(made.transport, made.tables, f"t{next(numbers)}"))

    history_machine.run(examples(2, soak=25), world, steps=examples(8, soak=20))
