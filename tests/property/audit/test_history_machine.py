"""Whatever is done to a history, in whatever order and cut off wherever, it answers as a plain list would."""

from tests.history_machine import run
from tests.soak import examples


def test_a_history_answers_as_a_plain_list_would():
    run(examples(25, soak=2_000))
