"""What the local stack tells whoever started it: progress, and failures that name the next command."""

from typing import Protocol

from stacks import StackError


class Report(Protocol):
    """Where progress goes: a terminal, a log, or both."""

    def step(self, text: str) -> None: ...


class CannotStart(StackError):
    """The local stack cannot run: what happened and why, and what to do next."""
