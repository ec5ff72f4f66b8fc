"""The archiver killed at every call, and again and again."""

import random

from holdfast.testing import Crash, Fuse, Killed, at_every_crash
from tests.archive_lab import ArchiveLab
from tests.faults.kernel.archive.runs import act, finish, world
from tests.soak import until_delivered


def test_killed_before_or_after_any_call_nothing_is_lost_and_the_next_goes_on():
    def then(crash: Crash[ArchiveLab]) -> None:
        crash.world.check()
        finish(crash.world)

    assert at_every_crash(world, act, then) > 40


def test_killed_again_and_again_it_comes_to_an_end():
    """Each time it is begun again it meets what stands there once more."""

    def run(seed: int) -> int:
        lab, noise, met = world(), random.Random(seed), 0
        for _ in range(200):
            met += lab.hot_commits()
            fuse = Fuse(noise.randrange(1, 15), after=noise.random() < 0.5)
            try:
                act(lab, fuse)
            except Killed:
                lab.check()
                continue
            break

        finish(lab)
        return met

    until_delivered(run)
