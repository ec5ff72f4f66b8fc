"""The supervisor as a process: it starts everything, survives being killed, and stops everything with the data kept."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from stacks.local import clients, health, processes, stack
from stacks.local.errors import CannotStart
from stacks.local.processes import LOOPBACK
from stacks.local.running import Home, Running, load
from tests.local.conftest import ROOT, Printed, free_ports, share_installed
from tests.local.platform.conftest import Platform, wait_until


@dataclass
class Started:
    """A supervisor of the fixture in a process of its own."""

    home: Home
    port: int
    process: subprocess.Popen[str]

    def wait_until_ready(self) -> Running:
        wait_until(lambda: stack.status(self.home.path).ready or self.process.poll() is not None, "ready")
        running = load(self.home)
        assert running is not None, self.process.communicate()[0]
        return running

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        told, _ = self.process.communicate(timeout=30)
        return self.process.returncode, told


@dataclass
class Starter:
    """Starts the fixture in one home, as often as a test likes."""

    home: Home
    port: int
    started: list[Started]

    def start(self, *endpoint_url: str) -> Started:
        module = "tests.local.platform.fixture_stack"
        command = [sys.executable, "-m", module, str(self.home.path), str(self.port), *endpoint_url]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()
        )
        self.started.append(Started(self.home, self.port, process))
        return self.started[-1]


def _environment() -> dict[str, str]:
    roots = [ROOT, ROOT / "layers" / "holdfast" / "python"]
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(map(str, roots))}


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Starter]:
    share_installed(tmp_path)
    made = Starter(Home(tmp_path), free_ports(), [])
    yield made
    stack.down(tmp_path, Printed())
    for started in made.started:
        started.process.wait(30)
        assert started.process.stdout is not None
        started.process.stdout.close()


def put(running: Running, pk: str) -> None:
    tables = clients.factory(running.engine.endpoint_url)("dynamodb")
    tables.put_item(TableName=source_table(running), Item={"pk": {"S": pk}})


def rows(running: Running) -> set[str]:
    tables = clients.factory(running.engine.endpoint_url)("dynamodb")
    return {item["pk"]["S"] for item in tables.scan(TableName=source_table(running))["Items"]}


def source_table(running: Running) -> str:
    tables = clients.factory(running.engine.endpoint_url)("dynamodb")
    [name] = [name for name in tables.list_tables()["TableNames"] if "SourceTable" in name]
    return str(name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_by_signal_keeps_data_functions_and_addresses(starter: Starter, number: signal.Signals):
    first = starter.start()
    running = first.wait_until_ready()
    put(running, "kept")
    code, told = first.end(number)
    assert code == 0, told
    assert running.engine_pid is not None
    assert not processes.is_listening(starter.port)
    assert not processes.is_listening(starter.port + 1)
    assert load(starter.home) is None

    again = starter.start().wait_until_ready()

    assert rows(again) == {"kept"}
    assert httpx.get(f"{again.services['echo'].url}/openapi.json").json()["path"] == "/openapi.json"
    assert again.services == running.services


def test_what_streams_hold_at_a_stop_reaches_its_function_first(starter: Starter):
    first = starter.start()
    running = first.wait_until_ready()
    for number in range(20):
        put(running, str(number))
    assert first.end(signal.SIGTERM)[0] == 0

    again = starter.start().wait_until_ready()

    tables = clients.factory(again.engine.endpoint_url)("dynamodb")
    [seen] = [name for name in tables.list_tables()["TableNames"] if "SeenTable" in name]
    batches = [json.loads(item["ids"]["S"]) for item in tables.scan(TableName=seen)["Items"] if "ids" in item]
    assert sorted(pk for batch in batches for pk in batch) == sorted(map(str, range(20)))


def test_functions_with_a_rate_are_ticked_while_it_runs(starter: Starter):
    running = starter.start().wait_until_ready()

    wait_until(lambda: len(ticks(running)) >= 2, "two ticks")

    moments = sorted(int(item["at"]["N"]) for item in ticks(running))
    assert moments[1] - moments[0] > 0.4e9, "half a second lies between"


def ticks(running: Running) -> list[dict[str, Any]]:
    tables = clients.factory(running.engine.endpoint_url)("dynamodb")
    [seen] = [name for name in tables.list_tables()["TableNames"] if "SeenTable" in name]
    rows: list[dict[str, Any]] = tables.scan(TableName=seen)["Items"]
    return [row for row in rows if row["table"]["S"] == "ticks"]


def test_after_kill_9_of_the_supervisor_the_next_start_has_the_data(starter: Starter):
    first = starter.start()
    running = first.wait_until_ready()
    put(running, "kept")
    first.end(signal.SIGKILL)
    assert running.engine_identity is not None
    assert processes.is_alive(running.engine_identity)
    assert not stack.status(starter.home.path).ready

    again = starter.start().wait_until_ready()

    assert rows(again) == {"kept"}
    assert again.engine_pid != running.engine_pid
    assert not processes.is_alive(running.engine_identity)


def test_down_stops_the_engine_of_a_killed_supervisor_and_says_whether_there_was_one(starter: Starter):
    first = starter.start()
    running = first.wait_until_ready()
    first.end(signal.SIGKILL)

    assert stack.down(starter.home.path, Printed())

    assert running.engine_identity is not None
    assert not processes.is_alive(running.engine_identity)
    assert not stack.down(starter.home.path, Printed())


def test_a_signal_during_the_start_leaves_nothing_behind(starter: Starter):
    started = starter.start()
    wait_until(lambda: load(starter.home) is not None, "the engine to be named in run.json")

    code, told = started.end(signal.SIGTERM)

    assert code == 0, told
    assert load(starter.home) is None
    assert not processes.is_listening(starter.port + 1)


def test_an_engine_that_dies_takes_the_stack_down_with_a_word_about_it(starter: Starter):
    started = starter.start()
    running = started.wait_until_ready()
    assert running.engine_pid is not None
    os.kill(running.engine_pid, signal.SIGKILL)

    told, _ = started.process.communicate(timeout=30)

    assert started.process.returncode == 1
    assert "The local engine died" in told
    assert not processes.is_listening(starter.port)


def test_a_second_up_deploys_again_through_the_running_one(starter: Starter):
    running = starter.start().wait_until_ready()
    steps: list[str] = []

    class Kept:
        def step(self, text: str) -> None:
            steps.append(text)

    again = stack.up_detached(starter.home.path, services=["echo"], port=starter.port, endpoint_url=None, report=Kept())

    assert again.pid == running.pid
    assert "Deploying the fixture" in steps
    assert httpx.get(f"{again.services['echo'].url}/openapi.json").is_success


def test_a_second_up_on_another_port_is_told_where_the_first_runs(starter: Starter):
    running = starter.start().wait_until_ready()

    with pytest.raises(CannotStart, match=rf"already runs at {running.gateway_url} \(process {running.pid}\)"):
        stack.up_detached(starter.home.path, services=["echo"], port=1, endpoint_url=None, report=Printed())


def test_nobody_deploys_again_without_the_secret(starter: Starter):
    running = starter.start().wait_until_ready()

    for headers in ({}, {"Authorization": "Bearer guess"}):
        assert httpx.post(f"{running.gateway_url}/_holdfast/deploy", headers=headers, json={}).status_code == 403


@pytest.mark.parametrize("offset", [0, 1])
def test_a_held_port_is_told_with_the_process_that_holds_it(starter: Starter, offset: int):
    with socket.create_server((LOOPBACK, starter.port + offset)):
        started = starter.start()
        told, _ = started.process.communicate(timeout=30)

    assert started.process.returncode == 1
    assert f"held by process {os.getpid()} (" in told
    assert "./holdfast up --port" in told


def test_another_engine_is_used_as_it_is_and_outlives_the_stack(starter: Starter, platform: Platform):
    started = starter.start(platform.endpoint_url)
    running = started.wait_until_ready()
    assert (running.engine_pid, running.engine.endpoint_url) == (None, platform.endpoint_url)

    assert started.end(signal.SIGTERM)[0] == 0

    assert platform.client("dynamodb").list_tables()["TableNames"]


def test_an_engine_that_is_not_there_is_told_with_its_address(starter: Starter):
    started = starter.start(nowhere := f"http://{LOOPBACK}:{free_ports()}")
    told, _ = started.process.communicate(timeout=60)

    assert started.process.returncode == 1
    assert f"The engine at {nowhere} did not do what was asked" in told
    assert "Traceback" not in told


def test_a_service_that_hangs_is_not_healthy_and_does_not_make_status_hang():
    with socket.create_server((LOOPBACK, 0)) as silent:
        started = time.monotonic()
        assert not health.is_healthy(f"http://{LOOPBACK}:{silent.getsockname()[1]}/echo", 0.3)
        assert time.monotonic() - started < 2


def test_reset_forgets_the_data_and_keeps_what_was_installed(starter: Starter):
    running = starter.start().wait_until_ready()
    put(running, "forgotten")

    stack.reset(starter.home.path, Printed())
    again = starter.start().wait_until_ready()

    assert rows(again) == set()
    assert (starter.home.path / "engine" / "bin" / "python").exists()
