"""Locks that end with their process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stacks.local import locks

HOLD = """
import sys
from pathlib import Path
from stacks.local import locks
with locks.held(Path(sys.argv[1])) as is_ours:
    print(is_ours, flush=True)
    sys.stdin.read()
"""


def test_a_lock_names_its_owner_only_while_it_is_held(tmp_path: Path):
    path = tmp_path / "lock"
    assert locks.owner(path) is None
    with locks.held(path) as is_ours:
        assert is_ours
        assert locks.owner(path) == os.getpid()
    assert locks.owner(path) is None


def test_a_held_lock_is_not_given_twice(tmp_path: Path):
    with locks.held(tmp_path / "lock"), locks.held(tmp_path / "lock") as is_ours:
        assert not is_ours


def test_a_lock_ends_with_the_process_that_was_killed(tmp_path: Path):
    roots = [str(Path(locks.__file__).parents[2]), *filter(None, sys.path)]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(roots)},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"True\n"
    assert locks.owner(tmp_path / "lock") == holder.pid

    holder.kill()
    holder.communicate()

    assert locks.owner(tmp_path / "lock") is None
    with locks.held(tmp_path / "lock") as is_ours:
        assert is_ours


def test_waiting_for_a_lock_has_an_end_that_names_the_owner(tmp_path: Path):
    with (
        locks.held(tmp_path / "lock"),
        pytest.raises(TimeoutError, match=str(os.getpid())),
        locks.waited_for(tmp_path / "lock", timeout_seconds=0.2),
    ):
        pass
