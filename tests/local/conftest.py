"""
One running stack for everything that is tested over the network.

`./holdfast test` starts it and names its home in HOLDFAST_TEST_HOME. Without that, the first test process to need
it starts one under pytest's own temporary directory, and the last to finish stops it.
"""

import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import stacks
from stacks.local import clients, locks, processes
from stacks.local.running import Home, Running, load
from stacks.local.stack import down, up_detached
from stacks.services import SERVICES

ROOT = Path(__file__).parents[2]
START_SECONDS_MAX = 300.0
PORTS = (20_000, 32_000)
PORT_TRIES_MAX = 100


@dataclass(frozen=True)
class LocalStack:
    """A running stack, as a test needs it."""

    home: Path
    running: Running
    token: str
    """Of the tenant `local`, with every service's scopes."""

    def url(self, service: str) -> str:
        return self.running.services[service].url

    def client(self, service: str) -> Any:
        """Make an AWS client that acts as the engine's root."""
        return clients.factory(self.running.engine.endpoint_url)(service)


class Printed:
    """Progress into the test's captured output."""

    def step(self, text: str) -> None:
        print(text)  # noqa: T201


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    given = os.environ.get("HOLDFAST_TEST_HOME")
    if given:
        yield local_stack(Path(given))
        return
    home = shared_directory(tmp_path_factory) / "stack"
    user = home / "users" / str(os.getpid())
    with locks.waited_for(home / "tests.lock", timeout_seconds=START_SECONDS_MAX):
        if load(Home(home)) is None:
            share_installed(home)
            up_detached(home, services=list(SERVICES), port=free_ports(), endpoint_url=None, report=Printed())
        user.parent.mkdir(exist_ok=True)
        user.touch()
    yield local_stack(home)
    with locks.waited_for(home / "tests.lock", timeout_seconds=START_SECONDS_MAX):
        user.unlink()
        if not any(user.parent.iterdir()):
            down(home, Printed())


def local_stack(home: Path) -> LocalStack:
    running = load(Home(home))
    assert running is not None, f"Nothing runs in {home}."
    return LocalStack(home, running, Path(running.token_file).read_text().strip())


def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the temporary directory that all of pytest-xdist's workers have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def share_installed(home: Path) -> None:
    """Let a home use what is installed and built for the developer's own; installing it again takes a minute."""
    Home(home).share_installed(Home(stacks.home()))


def free_ports() -> int:
    """
    Find a port that is free together with the one after it: the gateway's and the engine's.

    Below the range that the system takes outgoing connections' ports from, or one of those might be given the
    port between this look and its use.
    """
    for _ in range(PORT_TRIES_MAX):
        port = random.randrange(*PORTS, 2)
        if is_free(port) and is_free(port + 1):
            return port
    raise RuntimeError("No two free ports in a row.")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((processes.LOOPBACK, port))
        except OSError:
            return False
    return True
