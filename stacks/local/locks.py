"""
Locks that end with the process that holds them, whatever ends it.

A lock is an flock(2) on a file that holds its owner's process id. Unlike a process id alone it cannot be stale,
and unlike run.json it cannot be forgotten.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

POLL_SECONDS = 0.1
LOOKS_MAX = 5
LOOK_SECONDS = 0.02
"""Who only looks holds the lock for a moment; whoever wants it tries again before calling it taken."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold a lock for as long as the block runs, if it is free; say whether it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened without truncating: until it is ours, the file names its owner.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        is_ours = _take_patiently(handle)
        if is_ours:
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        yield is_ours
    finally:
        os.close(handle)


@contextlib.contextmanager
def waited_for(path: Path, *, timeout_seconds: float) -> Iterator[None]:
    """
    Hold a lock for as long as the block runs, waiting for it at first.

    Raises:
        TimeoutError: it stayed with its owner; the message names the process.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        with held(path) as is_ours:
            if is_ours:
                yield
                return
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{path} is still held by process {owner(path) or 'unknown'}.")
        time.sleep(POLL_SECONDS)


def owner(path: Path) -> int | None:
    """Say which process holds a lock; None if nobody does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that two who only look do not take each other for owners.
        if _take(handle, fcntl.LOCK_SH):
            return None
        text = os.read(handle, 32).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(handle)


def _take_patiently(handle: int) -> bool:
    for _ in range(LOOKS_MAX):
        if _take(handle):
            return True
        time.sleep(LOOK_SECONDS)
    return False


def _take(handle: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
