"""Who a process is, who holds a port, how a process ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stacks.local import processes
from stacks.local.processes import LOOPBACK, Identity

OBEDIENT = "print('up', flush=True); import time; time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + OBEDIENT
PARENT = (
    "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "print(child.pid, flush=True); child.wait()"
)


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        child.kill()
        child.communicate()


def start(children: list[subprocess.Popen[str]], code: str) -> tuple[Identity, str]:
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    children.append(child)
    assert child.stdout is not None
    said = child.stdout.readline().strip()
    identity = processes.identify(child.pid)
    assert identity is not None
    return identity, said


def test_a_process_that_ended_and_waits_to_be_reaped_is_gone(children: list[subprocess.Popen[str]]):
    identity, _ = start(children, OBEDIENT)
    assert processes.is_alive(identity)

    os.kill(identity.pid, signal.SIGKILL)

    assert processes.wait_until_gone(identity, 5)


def test_a_stranger_with_the_same_number_is_not_signalled(children: list[subprocess.Popen[str]]):
    identity, _ = start(children, OBEDIENT)
    earlier = Identity(identity.pid, "1")

    assert processes.stop(earlier, patience_seconds=0.1)
    assert processes.is_alive(identity)


def test_an_obedient_process_ends_by_itself(children: list[subprocess.Popen[str]]):
    identity, _ = start(children, OBEDIENT)

    assert processes.stop(identity, patience_seconds=5)
    assert not processes.is_alive(identity)


def test_a_stubborn_process_is_killed_when_its_time_is_up(children: list[subprocess.Popen[str]]):
    identity, _ = start(children, STUBBORN)

    assert not processes.stop(identity, patience_seconds=0.3)
    assert not processes.is_alive(identity)


def test_what_a_process_started_ends_with_it_when_asked(children: list[subprocess.Popen[str]]):
    identity, grandchild_pid = start(children, PARENT)
    grandchild = processes.identify(int(grandchild_pid))
    assert grandchild is not None

    processes.stop(identity, patience_seconds=5, with_group=True)

    assert processes.wait_until_gone(grandchild, 5)


def test_the_holder_of_a_port_is_named():
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]

        assert processes.is_listening(port)
        assert processes.describe_holder(port).startswith(f"process {os.getpid()} (")

    assert not processes.is_listening(port)
    assert processes.port_holder(port) is None


def test_a_holder_that_cannot_be_told_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "PROC", tmp_path)
    with socket.create_server((LOOPBACK, 0)) as server:
        assert "may not see" in processes.describe_holder(server.getsockname()[1])


def test_without_proc_the_systems_tools_are_asked(
    children: list[subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    identity, _ = start(children, OBEDIENT)
    monkeypatch.setattr(processes, "PROC", tmp_path / "absent")
    answers = {"ps": "S    Tue Nov 24 00:00:00 2026\n", "lsof": f"{identity.pid}\n"}
    monkeypatch.setattr(processes, "_ask", lambda command: answers[command[0]])

    assert processes.identify(identity.pid) == Identity(identity.pid, "Tue Nov 24 00:00:00 2026")
    assert processes.port_holder(1) == (identity.pid, answers["ps"].strip())


def test_a_tool_that_is_missing_answers_nothing():
    assert processes._ask(["no-such-tool-on-any-machine"]) == ""
