"""The search for an order finds one if, and only if, trying all orders does."""

import itertools
import random
from collections.abc import Iterator, Sequence

from holdfast.testing import NotLinearizable, Operation, linearize
from holdfast.testing.history import Outcome
from tests.soak import examples

OUTCOMES: Sequence[Outcome] = ("answered", "answered", "answered", "unknown", "failed")
OPERATIONS = 5
CLIENTS = 3


def step(state: int, asked: int) -> Iterator[tuple[int, int]]:
    """A register: 0 reads it, anything else is written, and the answer is what stands there."""
    yield (asked or state), (asked or state)


def drawn(noise: random.Random) -> list[Operation[int, int]]:
    """Draw a history of clients who do one thing after the other, with any answers."""
    moments = sorted(noise.sample(range(1, 100), 2 * OPERATIONS))
    begun: list[tuple[int, int]] = []
    operations: list[Operation[int, int]] = []
    for at in moments:
        busy = {client for client, _ in begun}
        idle = [client for client in range(CLIENTS) if client not in busy]
        is_over = len(operations) + len(begun) == OPERATIONS
        if idle and not is_over and (not begun or noise.random() < 0.5):
            begun.append((noise.choice(idle), at))
            continue
        client, invoked = begun.pop(noise.randrange(len(begun)))
        asked = noise.randrange(3)
        outcome = noise.choice(OUTCOMES)
        result = asked or noise.randrange(3)
        operations.append(
            Operation(f"{client}", asked, invoked, at, outcome, result if outcome == "answered" else None)
        )
    return operations


def is_explained_by_some_order(history: Sequence[Operation[int, int]]) -> bool:
    answered = [each for each in history if each.outcome == "answered"]
    unknown = [each for each in history if each.outcome == "unknown"]
    return any(
        explains(order)
        for count in range(len(unknown) + 1)
        for happened in itertools.combinations(unknown, count)
        for order in itertools.permutations([*answered, *happened])
    )


def explains(order: Sequence[Operation[int, int]]) -> bool:
    state = 0
    for at, operation in enumerate(order):
        if any(later.outcome == "answered" and later.ended < operation.invoked for later in order[at:]):
            return False
        state = operation.asked or state
        if operation.outcome == "answered" and operation.result != state:
            return False
    return True


def test_an_order_is_found_exactly_where_there_is_one():
    verdicts = []
    for seed in range(examples(2_000, soak=50_000)):
        history = drawn(random.Random(seed))
        try:
            assert explains(linearize(history, 0, step))
            verdicts.append(True)
        except NotLinearizable:
            verdicts.append(False)
        assert verdicts[-1] == is_explained_by_some_order(history), (seed, history)

    assert min(verdicts.count(True), verdicts.count(False)) > len(verdicts) // 5
