"""The end of a stack: what whoever stops it is told, in the terminal that ran it and in another one."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stacks.local import dispatcher, processes, stack, supervisor
from stacks.local.dispatcher import Dispatcher
from stacks.local.engine import Engine
from stacks.local.forgetter import Forgetter
from stacks.local.gateway import Gateway
from stacks.local.profile import StreamSource
from stacks.local.running import Home
from stacks.local.supervisor import Supervisor, _Parts, last_word
from stacks.local.sweeper import Sweeper
from stacks.local.ticker import Ticker
from tests.unit.stacks.local.stream_cloud import PATIENCE_SECONDS, Cloud, Shard

ROOT = Path(__file__).parents[4]

SUPERVISOR = """
import signal, sys
from pathlib import Path
from stacks.local import files, locks
from stacks.local.running import Home

home = Home(Path(sys.argv[1]))
with locks.held(home.lock):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        print("ready", flush=True)
        signal.pause()
    finally:
        if sys.argv[2:]:
            files.write(home.last_word_file, sys.argv[2])
"""
"""What `down` sees of one: who holds the lock, ends when it is told to, and leaves its last word."""


@dataclass
class Told:
    steps: list[str] = field(default_factory=list)

    def step(self, text: str) -> None:
        self.steps.append(text)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A process that ends when it is told to, as an engine does that has written its state."""
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    identity = processes.identify(child.pid)
    assert identity is not None
    made = Engine(identity, 1, tmp_path / "engine.log", child)
    yield made
    made.stop()


def test_a_stop_that_leaves_records_undelivered_says_so_here_and_to_whoever_asked_for_it(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dispatcher, "STOP_SECONDS_MAX", 0.01)
    monkeypatch.setattr(supervisor, "DRAIN_SECONDS_MAX", 0.05)
    home, told, released = Home(tmp_path), Told(), threading.Event()
    cloud = Cloud({"c": Shard(records=[1])}, then=lambda _function: released.wait(PATIENCE_SECONDS))
    following = Dispatcher(cloud.client, home.checkpoints)
    following.follow([StreamSource(table="t", function_name="f")])
    gateway = Gateway(0)
    gateway.start()
    parts = _Parts("", gateway, following, Ticker(cloud.client), Sweeper(cloud), Forgetter(cloud))

    Supervisor(home, [], 1, None, told, _engine=engine, _parts=parts)._stop()
    released.set()

    assert told.steps == [last_word(home, is_written=True, is_drained=False)]
    assert home.last_word_file.exists()


def test_the_last_word_tells_what_may_be_missing_and_where_to_look(tmp_path: Path):
    home = Home(tmp_path)

    assert last_word(home, is_written=True, is_drained=True) == f"Stopped; the data are kept in {tmp_path}"
    assert "./holdfast doctor" in last_word(home, is_written=True, is_drained=False)
    assert str(home.engine_log) in last_word(home, is_written=False, is_drained=True)


@pytest.mark.parametrize("word", ["Stopped, more or less", None])
def test_down_passes_the_last_word_on_and_none_of_an_earlier_stop(tmp_path: Path, word: str | None):
    home, told = Home(tmp_path), Told()
    home.last_word_file.write_text('"of another time"')
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path), *([word] if word else [])]
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()

        assert stack.down(tmp_path, told)

    assert told.steps[1:] == ([word] if word else [])
