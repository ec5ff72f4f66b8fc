"""
Every crash point of a scenario: the process ends before or after each of its calls, and somebody takes up the work.

    def act(world, fuse):                   # what the scenario calls is wrapped, so that the fuse sees each call
        Anchors(fuse.wrap(world.transport), fuse.wrap(world.objects)).run()

    def then(crash):                        # the world is as the crash left it
        act(crash.world, Fuse())            # another process goes on
        crash.world.check()

    assert at_every_crash(World, act, then) > 4
"""

from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from holdfast.testing.ports import watched

CALLS_MAX: Final = 1_000
"""Calls of one scenario; one that makes more is too long to be killed at each of them."""

W = TypeVar("W")
P = TypeVar("P")


class Killed(BaseException):
    """A process that ends between two instructions; nothing catches it."""


class Crash(NamedTuple, Generic[W]):
    """A world in which a process has ended."""

    world: W
    call: str
    """What was called, such as `call PutItem`."""
    number: int
    after: bool

    def __str__(self) -> str:
        return f"crashed {'after' if self.after else 'before'} call {self.number}: {self.call}"


class Fuse:
    """Counts the calls on whatever it wraps, and ends the process at one of them; without a number, at none."""

    def __init__(self, number: int | None = None, *, after: bool = False) -> None:
        self._number = number
        self._after = after
        self._is_burnt = False
        self.calls: list[str] = []

    def wrap(self, port: P) -> P:
        """Give a stand-in for *port* of which every method call is a place to die."""
        return watched(port, self.burn)

    def burn(self, name: str, call: Callable[[], Any]) -> Any:
        """Make a call, unless this is where the process ends; one that has ended calls nothing any more."""
        if self._is_burnt:
            raise Killed
        self.calls.append(name)
        is_last = len(self.calls) == self._number
        self._is_burnt = is_last and not self._after
        if self._is_burnt:
            raise Killed
        answer = call()
        self._is_burnt = is_last
        if self._is_burnt:
            raise Killed
        return answer


def at_every_crash(make: Callable[[], W], act: Callable[[W, Fuse], object], then: Callable[[Crash[W]], object]) -> int:
    """
    Run *act* once whole; then for each of its calls on a world of its own, killed before it and after it, and *then*.

    Returns how many crash points there were. What *then* raises says at which of them.

    Raises:
        AssertionError: the scenario calls nothing, too much, something else each time, or survives its end.
    """
    whole = Fuse()
    act(make(), whole)
    if not 0 < len(whole.calls) <= CALLS_MAX:
        raise AssertionError(f"a scenario of {len(whole.calls)} calls")
    for number, name in enumerate(whole.calls, start=1):
        for after in (False, True):
            world, fuse = make(), Fuse(number, after=after)
            crash = Crash(world, name, number, after)
            try:
                act(world, fuse)
            except Killed:
                pass
            else:
                raise AssertionError(f"never {crash}: the scenario is not the same each time, or survives its end")
            try:
                then(crash)
            except BaseException as error:
                error.add_note(str(crash))
                raise
    return 2 * len(whole.calls)
