"""One stream, four clients at once, any faults: all of it could have happened one after the other."""

import random

import pytest

from holdfast.dynamodb.stream_reader import Hole
from holdfast.testing import Turns
from tests.dynamo_tables import memory_stores
from tests.faults.kernel import test_planted_bugs as planted
from tests.soak import examples
from tests.stream_histories import EVERYTHING, History, outcomes


def judged(seed: int) -> History:
    """Let a seed decide what is asked, what meets which fault, and who goes on at each call to the store."""
    turns = Turns(random.Random(seed))
    history = History(memory_stores(), "t", seed, turns.wrap)
    history.run(turns.run)
    history.order()
    return history


def test_every_history_of_a_stream_is_linearizable():
    histories = [judged(seed) for seed in range(examples(60, soak=200))]

    assert outcomes(histories).keys() >= EVERYTHING


def test_the_same_seed_gives_the_same_history():
    assert judged(1).recorder.operations == judged(1).recorder.operations


@pytest.mark.parametrize(
    "plant",
    [
        planted.no_boundary_check,
        planted.unconditional_put,
        planted.own_commit_taken_for_anothers,
        planted.unknown_told_as_unavailable,
        planted.any_without_operation_row,
    ],
)
def test_the_histories_of_a_mistaken_store_are_not(monkeypatch, plant):
    """Or the stream that they leave behind is broken."""
    plant(monkeypatch)

    with pytest.raises((AssertionError, Hole)):
        _ = [judged(seed) for seed in range(20)]
