"""
The fault laboratory: how the kernel's promises are tested, for whoever builds on it to aim at code of their own.

    ports            calls that are watched: something may happen at each
    faults           what can happen between a program and its store, put there by a plan
    crash_points     a process that ends before or after each of its calls
    turns            threads that take turns, in an order that a seed decides
    history          what clients asked at the same time, and what they were told
    linearizability  whether all of it could have happened one after the other

Nothing here needs a test runner. Whatever is drawn at random is drawn from a `random.Random` that the caller made, so
the same seed gives the same run.
"""

from holdfast.testing.crash_points import Crash, Fuse, Killed, at_every_crash
from holdfast.testing.faults import FAULTS, FaultyTransport, at_random
from holdfast.testing.history import Operation, Recorder
from holdfast.testing.linearizability import NotLinearizable, Undecided, linearize
from holdfast.testing.ports import watched
from holdfast.testing.turns import Turns

__all__ = [
    "FAULTS",
    "Crash",
    "FaultyTransport",
    "Fuse",
    "Killed",
    "NotLinearizable",
    "Operation",
    "Recorder",
    "Turns",
    "Undecided",
    "at_every_crash",
    "at_random",
    "linearize",
    "watched",
]
