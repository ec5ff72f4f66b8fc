"""Which histories could have happened one after the other: those of honest clients, and not those of mistaken ones."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import pytest

from holdfast.errors import ServiceError, Unavailable, Uncertain
from holdfast.testing import NotLinearizable, Operation, Recorder, Turns, Undecided, linearizability, linearize
from holdfast.testing.linearizability import OPERATIONS_MAX

SEEDS = range(30)
CLIENTS = ("ann", "bob", "cai")


def step(balance: int, asked: int) -> Iterator[tuple[int, int]]:
    """An account: what is added is answered by the balance; adding nothing reads it."""
    yield balance + asked, balance + asked


def told(client: str, asked: int, invoked: int, ended: int, result: int | str) -> Operation[int, int]:
    if isinstance(result, int):
        return Operation(client, asked, invoked, ended, "answered", result)
    return Operation(client, asked, invoked, ended, "unknown" if result == "unknown" else "failed")


LINEARIZABLE = {
    "nothing": [],
    "one after the other": [told("ann", 5, 1, 2, 5), told("bob", 0, 3, 4, 5)],
    "at once, in either order": [told("ann", 5, 1, 4, 5), told("bob", 0, 2, 3, 0)],
    "at once, and answered in the other order": [told("ann", 5, 1, 3, 12), told("bob", 7, 2, 4, 7)],
    "unknown, and it happened": [told("ann", 5, 1, 2, "unknown"), told("bob", 0, 3, 4, 5)],
    "unknown, and it never happened": [told("ann", 5, 1, 2, "unknown"), told("bob", 0, 3, 4, 0)],
    "unknown, and it happened long after its end": [
        told("ann", 5, 1, 2, "unknown"),
        told("bob", 0, 3, 4, 0),
        told("bob", 0, 5, 6, 0),
        told("cai", 0, 7, 8, 5),
    ],
    "two unknown, of which one happened": [
        told("ann", 5, 1, 2, "unknown"),
        told("ann", 7, 3, 4, "unknown"),
        told("bob", 0, 5, 6, 7),
    ],
    "unknown, and it happened before what was asked in the meantime": [
        told("ann", 5, 1, 6, "unknown"),
        told("bob", 1, 2, 3, 6),
        told("bob", 0, 4, 5, 6),
    ],
    "failed, and it did not happen": [told("ann", 5, 1, 2, "failed"), told("bob", 0, 3, 4, 0)],
}
IMPOSSIBLE = {
    "an answer from the past": [told("ann", 5, 1, 2, 5), told("bob", 0, 3, 4, 0)],
    "an answer from the future": [told("bob", 0, 1, 2, 5), told("ann", 5, 3, 4, 5)],
    "two that overwrote each other": [told("ann", 1, 1, 4, 1), told("bob", 1, 2, 3, 1)],
    "one that was lost": [told("ann", 1, 1, 2, 1), told("bob", 1, 3, 4, 1), told("cai", 0, 5, 6, 1)],
    "one that happened twice": [told("ann", 5, 1, 2, 5), told("bob", 0, 3, 4, 10)],
    "failed, and it happened": [told("ann", 5, 1, 2, "failed"), told("bob", 0, 3, 4, 5)],
    "unknown, and it happened before it was asked": [told("bob", 0, 1, 2, 5), told("ann", 5, 3, 4, "unknown")],
    "unknown, and it was taken back": [
        told("ann", 5, 1, 2, "unknown"),
        told("bob", 0, 3, 4, 5),
        told("bob", 0, 5, 6, 0),
    ],
    "unknown, and it happened twice": [told("ann", 5, 1, 2, "unknown"), told("bob", 0, 3, 4, 10)],
    "seen and not seen any more, by others at once": [
        told("ann", 5, 1, 8, 5),
        told("bob", 0, 2, 3, 5),
        told("cai", 0, 4, 5, 0),
    ],
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_what_could_have_happened_is_accepted_with_an_order_that_explains_it(name):
    history = LINEARIZABLE[name]
    order = linearize(history, 0, step)

    balance = 0
    for operation in order:
        balance += operation.asked
        assert operation.outcome == "unknown" or operation.result == balance
    for at, one in enumerate(order):
        assert all(one.invoked < other.ended or other.outcome == "unknown" for other in order[at:])
    assert {one.invoked for one in history if one.outcome == "answered"} <= {one.invoked for one in order}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_could_not_have_happened_is_refused(name):
    with pytest.raises(NotLinearizable):
        linearize(IMPOSSIBLE[name], 0, step)


def test_a_refusal_shows_how_far_it_can_be_explained():
    history = [told("ann", 5, 1, 2, 5), told("bob", 7, 3, 4, 12), told("cai", 0, 5, 6, 5)]

    with pytest.raises(NotLinearizable) as refused:
        linearize(history, 0, step)

    assert refused.value.order == tuple(history[:2])
    assert str(refused.value).endswith("nothing of this can be next:\n  5-6 cai: 0 -> 5")


def test_a_model_may_leave_open_what_follows():
    def either(state: int, asked: int) -> Iterator[tuple[int, str]]:
        yield state, "no"
        yield state + asked, "yes"

    def answer(invoked: int, result: str) -> Operation[int, str]:
        return Operation("ann", 1, invoked, invoked + 1, "answered", result)

    assert len(linearize([answer(1, "no"), answer(3, "yes"), answer(5, "no")], 0, either)) == 3


def test_many_who_ask_at_once_and_are_not_answered_are_judged():
    """Orders of the same operations lead to the same state: without remembering that, this would take for ever."""
    unknown = [told(f"c{number}", 1, number, 100 + number, "unknown") for number in range(1, 31)]

    assert len(linearize([*unknown, told("ann", 0, 200, 201, 30)], 0, step)) == 31
    with pytest.raises(NotLinearizable):
        linearize([*unknown[:12], told("ann", 0, 200, 201, 31)], 0, step)


def test_a_history_beyond_the_bounds_is_not_judged(monkeypatch):
    monkeypatch.setattr(linearizability, "PLACES_MAX", 1_000)
    long = [told("ann", 1, 2 * number + 1, 2 * number + 2, number + 1) for number in range(OPERATIONS_MAX + 1)]
    wide = [told(f"c{number}", 2**number, number, 100 + number, "unknown") for number in range(1, 12)]

    with pytest.raises(Undecided):
        linearize(long, 0, step)
    with pytest.raises(Undecided):
        linearize([*wide, told("ann", 0, 200, 201, -1)], 0, step)
    assert len(linearize(long[:-1], 0, step)) == OPERATIONS_MAX


# ----- clients that take turns


@dataclass
class Account:
    """Each call happens at once; some replies are lost."""

    noise: random.Random
    balance: int = 0

    def read(self) -> int:
        return self.balance

    def write(self, balance: int) -> int:
        self.balance = balance
        return balance

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def add_over_a_bad_line(self, amount: int) -> int:
        answer = self.add(amount)
        if self.noise.random() < 0.3:
            raise TimeoutError
        return answer


def honest(account: Account) -> int:
    try:
        return account.add_over_a_bad_line(1)
    except TimeoutError as error:
        raise Uncertain("outcome_unknown", "Something may have happened.") from error


def reads_modifies_and_writes(account: Account) -> int:
    return account.write(account.read() + 1)


def takes_a_lost_reply_for_a_failure(account: Account) -> int:
    try:
        return account.add_over_a_bad_line(1)
    except TimeoutError as error:
        raise Unavailable("unavailable", "Nothing happened.") from error


@dataclass
class Run:
    """Three clients at one account, who ask three times each."""

    seed: int
    add: Callable[[Account], int]
    recorder: Recorder[int, int] = field(default_factory=Recorder)

    def __post_init__(self) -> None:
        noise = random.Random(self.seed)
        self.turns = Turns(noise)
        self.account = self.turns.wrap(Account(noise))

    def history(self) -> tuple[Operation[int, int], ...]:
        self.turns.run([partial(self.ask, name) for name in CLIENTS])
        self.recorder.ask("dan", 0, self.account.read)
        return self.recorder.operations

    def ask(self, name: str) -> None:
        for _ in range(3):
            with suppress(ServiceError):
                self.recorder.ask(name, 1, lambda: self.add(self.account))


def refused(add: Callable[[Account], int]) -> list[int]:
    """Give the seeds whose histories are not linearizable."""
    found = []
    for seed in SEEDS:
        try:
            linearize(Run(seed, add).history(), 0, step)
        except NotLinearizable:
            found.append(seed)
    return found


def test_honest_clients_are_never_suspected():
    outcomes = {each.outcome for seed in SEEDS for each in Run(seed, honest).history()}

    assert outcomes == {"answered", "unknown"}
    assert refused(honest) == []


@pytest.mark.parametrize("mistake", [reads_modifies_and_writes, takes_a_lost_reply_for_a_failure])
def test_mistaken_clients_are_found_out(mistake):
    assert len(refused(mistake)) > len(SEEDS) // 2


def test_the_same_seed_gives_the_same_history():
    histories = {seed: [Run(seed, honest).history() for _ in range(2)] for seed in SEEDS}

    assert all(first == second for first, second in histories.values())
    assert len({first for first, _ in histories.values()}) > len(SEEDS) // 2


# ----- the recorder, and turns


def test_what_a_call_raises_says_what_is_known_of_it():
    recorder = Recorder[str, None]()

    def fails_with(error: BaseException) -> Callable[[], None]:
        def call() -> None:
            raise error

        return call

    for error in (Unavailable("busy", ""), Uncertain("outcome_unknown", ""), KeyError("a bug"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            recorder.ask("ann", type(error).__name__, fails_with(error))

    assert {each.asked: each.outcome for each in recorder.operations} == {
        "Unavailable": "failed",
        "Uncertain": "unknown",
        "KeyError": "unknown",
        "KeyboardInterrupt": "unknown",
    }
    assert [(each.invoked, each.ended) for each in recorder.operations] == [(1, 2), (3, 4), (5, 6), (7, 8)]


def test_what_one_thread_raises_is_told_when_all_have_ended():
    turns = Turns(random.Random(1))
    account = turns.wrap(Account(random.Random(1)))

    def fail() -> None:
        account.add(1)
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        turns.run([fail, lambda: [account.add(1) for _ in range(5)]])

    assert account.read() == 6
