"""What the local stack tells whoever started it: progress, and failures that name the next command."""

from typing import Protocol


class Report(Protocol):
    """Where progress goes: a terminal, a log, or both."""

    def step(self, text: str) -> None: ...


class CannotStart(Exception):
    """The local stack cannot run: what happened and why, and what to do next."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(f"{what}\n{next_step}")
        self.what = what
        self.next_step = next_step
