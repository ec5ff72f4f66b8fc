"""
Who a process is, who holds a port, and how a process is ended.

A process id alone names nobody for long: the kernel hands it out again. An `Identity` adds the moment
the process began, and nothing is ever signalled whose identity does not match.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

LOOPBACK = "127.0.0.1"
ASK_TIMEOUT_SECONDS = 5.0
"""How long `ps` or `lsof` may take."""
POLL_SECONDS = 0.02
COMMAND_CHARACTERS_MAX = 120
PORT_HELD_TIMEOUT_SECONDS = 0.5

LISTEN_STATE = "0A"
"""TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)."""

PROC = Path("/proc")


class Identity(msgspec.Struct, frozen=True):
    """One process and no other: its id, and when it began as the operating system tells it."""

    pid: int
    began: str


def identify(pid: int) -> Identity | None:
    """Say who *pid* is now; None if there is no such process, or it has ended and only waits to be reaped."""
    if PROC.is_dir():
        return _identify_by_proc(pid)
    return _identify_by_ps(pid)


def _identify_by_proc(pid: int) -> Identity | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, a parenthesis included, so count from the last one (proc(5)).
    fields = stat.rpartition(")")[2].split()
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else Identity(pid, start_ticks)


def _identify_by_ps(pid: int) -> Identity | None:
    answer = _ask(["ps", "-o", "stat=,lstart=", "-p", str(pid)])
    state, _, began = answer.strip().partition(" ")
    return Identity(pid, began.strip()) if began and not state.startswith("Z") else None


def is_alive(identity: Identity) -> bool:
    """Tell whether this very process still runs; a stranger who got its number later does not count."""
    return identify(identity.pid) == identity


def stop(identity: Identity, *, patience_seconds: float, with_group: bool = False) -> bool:
    """
    Ask a process to end (SIGTERM) and make it end (SIGKILL) when its time is up.

    *with_group* asks the processes that it started too, if it leads a group of its own. Returns whether it
    ended by itself. A process that is gone already has ended by itself.
    """
    send = os.killpg if with_group else os.kill
    if _signal(identity, signal.SIGTERM, send) and not wait_until_gone(identity, patience_seconds):
        _signal(identity, signal.SIGKILL, send)
        wait_until_gone(identity, patience_seconds)
        return False
    return True


def _signal(identity: Identity, number: signal.Signals, send: Callable[[int, int], None]) -> bool:
    if not is_alive(identity):
        return False
    with contextlib.suppress(ProcessLookupError):
        send(identity.pid, number)
    return True


def wait_until_gone(identity: Identity, timeout_seconds: float) -> bool:
    """Wait for a process to end, at most *timeout_seconds*; say whether it did."""
    deadline = time.monotonic() + timeout_seconds
    while is_alive(identity):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def is_listening(port: int) -> bool:
    """Tell whether anybody accepts connections on this loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(PORT_HELD_TIMEOUT_SECONDS)
        return probe.connect_ex((LOOPBACK, port)) == 0


def port_holder(port: int) -> tuple[int, str] | None:
    """
    Find the process that listens on a port: its id and its command line.

    None when it cannot be told, as for another user's process: the port is held all the same.
    """
    pid = _holder_by_proc(port) if PROC.is_dir() else _holder_by_lsof(port)
    return None if pid is None else (pid, command_of(pid))


def describe_holder(port: int) -> str:
    """Name the holder of a port in half a sentence, for an error message."""
    match port_holder(port):
        case (pid, command):
            return f"process {pid} ({command})"
        case _:
            return "a process that this user may not see"


def command_of(pid: int) -> str:
    """Give a process's command line, cut to a length that fits a message."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
        command = raw.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        command = _ask(["ps", "-o", "command=", "-p", str(pid)]).strip()
    return command[:COMMAND_CHARACTERS_MAX] or "unknown command"


def _holder_by_proc(port: int) -> int | None:
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for directory in PROC.iterdir():
        # Processes come and go while we look, and those of others are closed to us.
        if directory.name.isdigit():
            with contextlib.suppress(OSError):
                if not inodes.isdisjoint(map(_link, (directory / "fd").iterdir())):
                    return int(directory.name)
    return None


def _link(handle: Path) -> str:
    try:
        return str(handle.readlink())
    except OSError:
        return ""


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == LISTEN_STATE and int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{columns[9]}]")
    return inodes


def _holder_by_lsof(port: int) -> int | None:
    answer = _ask(["lsof", "-nP", "-t", f"-iTCP:{port}", "-sTCP:LISTEN"])
    first = answer.split()[:1]
    return int(first[0]) if first else None


def _ask(command: list[str]) -> str:
    """Run one of the system's own tools; an empty answer if it is missing, slow or refuses."""
    try:
        # The names are ours and the numbers are integers; the tools lie where the system's PATH says.
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=ASK_TIMEOUT_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
