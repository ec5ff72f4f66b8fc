"""Read, decide, append: the one loop by which a service changes anything."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from holdfast.clock import Clock, SystemClock
from holdfast.errors import Unavailable
from holdfast.ids import uuid7
from holdfast.retry import Budget, repeat
from holdfast.streams.packing import fingerprint_of
from holdfast.streams.store import EventStore
from holdfast.streams.values import Commit, StaleStream

E = TypeVar("E")
S = TypeVar("S")

DECISIONS = Budget(attempts_max=8, seconds_max=10.0)
"""How often one call decides again when others keep getting ahead of it."""


def transact(
    store: EventStore[E],
    stream: str,
    fold: Callable[[Iterable[E]], S],
    decide: Callable[[S], Sequence[E]],
    *,
    commit_id: str | None = None,
    budget: Budget = DECISIONS,
    clock: Clock | None = None,
) -> S:
    """
    Decide on the state of *stream* and append what was decided; return the state that results.

    When somebody else has appended meanwhile, read on and decide again. A decision of no events appends
    nothing. With a *commit_id* of the caller's own (derived from an idempotency key) the call may be repeated: once
    that commit is in the stream, nothing is decided again. Whose commit it is says what was asked, not what was
    decided: a repeat that decides before the first call's commit has arrived may decide otherwise, and meets it. Only
    a definite refusal is decided again: an unknown outcome travels on as `Uncertain`, because deciding on it could do
    the thing twice.

    Raises:
        Unavailable: `contended`, others got ahead *budget* times; nothing was written.
    """
    clock = clock or SystemClock()
    author = commit_id or uuid7(clock.now())

    asked = fingerprint_of([author.encode()])
    history: list[E] = []
    newest: Commit[E] | None = None
    is_done = False

    def read_on() -> S:
        nonlocal newest, is_done
        for commit in store.read(stream, newest.version if newest else 0):
            newest, is_done = commit, is_done or commit.commit_id == author
            history.extend(commit.events)
        return fold(tuple(history))

    def attempt() -> S:
        state = read_on()
        if is_done:
            return state
        events = decide(state)
        if not events:
            return state
        end = newest.boundary if newest else 0
        if store.append(stream, end, events, commit_id=author, fingerprint=asked).is_replay:
            return read_on()
        return fold((*history, *events))

    try:
        return repeat(attempt, on=StaleStream, budget=budget, clock=clock)
    except StaleStream as error:
        raise Unavailable(
            "contended", f"Others kept writing to {stream!r} first. Nothing happened; repeat.", retry_after_seconds=1
        ) from error
