"""How much is tried: the normal counts, or the specs' full ones under `./holdfast test --soak SERVICE`."""

import itertools
import os
from collections.abc import Callable

IS_SOAK = bool(os.environ.get("HOLDFAST_SOAK"))


def examples(normal: int, *, soak: int) -> int:
    return soak if IS_SOAK else normal


DELIVERIES = examples(1_000, soak=10_000)
"""Records that a consumer is given at random: lost, repeated, out of order, cut off."""


def until_delivered(run: Callable[[int], int]) -> None:
    """Run with seed after seed, each of which says how many records it delivered, until that is enough."""
    delivered = 0
    for seed in itertools.count():
        try:
            count = run(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        assert count > 0
        delivered += count
        if delivered >= DELIVERIES:
            return
