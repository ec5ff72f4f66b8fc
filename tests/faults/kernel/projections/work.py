"""What tests of read models begin with: views that have been moved, and a rebuild's queue and workers."""

import random
from copy import copy
from datetime import timedelta
from typing import Any

from holdfast.projections.rebuilds import Rebuild, Rebuilds
from tests.log_lab import LogLab

STEPS_MAX = 200


def indexed(lab: LogLab, seed: int, commits: int = 14) -> LogLab:
    lab.indexer().index(lab.grow(random.Random(seed), commits))
    return lab


class Slow:
    """A transport whose every call takes a second."""

    def __init__(self, lab: LogLab) -> None:
        self._lab = lab

    def call(self, operation: str, request: Any) -> Any:
        self._lab.clock.advance(timedelta(seconds=1))
        return self._lab.transport.call(operation, request)


class Work:
    """The queue between a rebuild and its workers, which repeats and reorders."""

    def __init__(self, lab: LogLab, noise: random.Random, effects: Any = None, views: Any = None) -> None:
        self.lab = lab
        self.noise = noise
        self.effects = effects
        self.views = views
        self.messages: list[tuple[str, str, int]] = []

    def fork(self) -> "Work":
        """Make a world of its own that stands where this one does."""
        twin = Work(self.lab.fork(), copy(self.noise), self.effects, self.views)
        twin.messages = list(self.messages)
        return twin

    def rebuilds(self, transport: Any = None) -> Rebuilds:
        projector = self.lab.projector(transport, self.effects, self.views)
        return Rebuilds(projector.database, projector.tables, projector, lambda *step: self.messages.append(step))

    def drain(self, transport: Any = None) -> None:
        for _ in range(STEPS_MAX):
            if not self.messages:
                return
            step = self.messages.pop(self.noise.randrange(len(self.messages)))
            for _ in range(self.noise.choice((1, 1, 2))):
                if self.rebuilds(transport).step(*step):
                    self.messages.append(step)
        raise AssertionError(f"There is work after {STEPS_MAX} steps.")

    def start(self, rebuild_id: str = "r1", view: str = "per-stream", **more: Any) -> Rebuild:
        return self.rebuilds().start(self.lab.tenant, view, rebuild_id=rebuild_id, actor="ann", reason="a test", **more)

    def state(self, rebuild_id: str = "r1") -> str:
        return self.rebuilds().get(self.lab.tenant, rebuild_id).state


def replaced(lab: LogLab) -> Work:
    """Replace generation 1 by generation 2."""
    indexed(lab, 1)
    lab.project()
    work = Work(lab, random.Random(1))
    work.start()
    work.drain()
    assert work.state() == "flipped"
    return work


def positions(lab: LogLab) -> dict[int, int]:
    return lab.views().standing("per-stream").positions
