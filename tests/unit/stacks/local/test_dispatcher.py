"""Functions that write what another one is handed, and functions that outlive the stop of their source."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stacks.local import dispatcher as module
from stacks.local.dispatcher import Dispatcher
from stacks.local.profile import StreamSource
from tests.unit.stacks.local.stream_cloud import PATIENCE_SECONDS, Cloud, Shard

COMMITS = StreamSource(table="commits", function_name="indexer", batch_size=1)
LOG = StreamSource(table="log", function_name="projector", batch_size=1)


@pytest.fixture
def cloud() -> Cloud:
    return Cloud({"c": Shard(table="commits"), "l": Shard(table="log")})


@pytest.fixture
def dispatcher(cloud: Cloud, tmp_path: Path) -> Iterator[Dispatcher]:
    made = Dispatcher(cloud.client, tmp_path)
    yield made
    made.stop()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_a_function_writes_is_handed_on_before_its_stream_counts_as_drained(cloud: Cloud, dispatcher: Dispatcher):
    dispatcher.follow([COMMITS, LOG])
    _, log = dispatcher._followers
    log._quiet_since = float("-inf")

    def index(function: str) -> None:
        if function == "indexer":
            # The log is found to hold nothing, as often as it has to be, before there is something in it.
            rounds = log.caught_up_count + 4
            wait_until(lambda: log.caught_up_count >= rounds)
            cloud.shards["l"].records.append(2)

    cloud.then = index
    cloud.shards["c"].records.append(1)
    wait_until(lambda: cloud.delivered == [1])

    assert dispatcher.drain(PATIENCE_SECONDS)
    dispatcher.stop()

    assert cloud.delivered == [1, 2]


def test_a_function_that_goes_on_writing_to_its_own_stream_is_not_drained_in_time(cloud: Cloud, dispatcher: Dispatcher):
    cloud.then = lambda _function: cloud.shards["c"].records.append(len(cloud.shards["c"].records) + 1)
    cloud.shards["c"].records.append(1)
    dispatcher.follow([COMMITS])

    assert not dispatcher.drain(0.1)


def test_a_source_is_read_on_when_its_function_is_done_with_what_it_had_before(
    cloud: Cloud, dispatcher: Dispatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "STOP_SECONDS_MAX", 0.01)
    released = threading.Event()
    cloud.then = lambda _function: released.wait(PATIENCE_SECONDS)
    cloud.shards["c"].records += [1, 2]
    dispatcher.follow([COMMITS])
    wait_until(lambda: cloud.delivered == [1])

    for _ in range(2):  # deployed again, and again
        dispatcher.follow([COMMITS, LOG])
    cloud.shards["l"].records.append(7)
    wait_until(lambda: 7 in cloud.delivered)
    assert not dispatcher.drain(0.1)
    assert cloud.delivered == [1, 7]
    released.set()
    wait_until(lambda: 2 in cloud.delivered)
    assert dispatcher.drain(PATIENCE_SECONDS)

    assert cloud.delivered == [1, 7, 2]
    assert json.loads((tmp_path / "commits@indexer.json").read_bytes())["delivered"] == {"c": "2"}


def test_a_source_that_waits_for_its_function_can_be_stopped(
    cloud: Cloud, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "STOP_SECONDS_MAX", 0.01)
    released = threading.Event()
    cloud.then = lambda _function: released.wait(PATIENCE_SECONDS)
    cloud.shards["c"].records += [1, 2]
    dispatcher.follow([COMMITS])
    wait_until(lambda: cloud.delivered == [1])
    dispatcher.follow([COMMITS])
    [running], [waiting] = dispatcher._ending, dispatcher._followers

    dispatcher.stop()
    waiting.join(PATIENCE_SECONDS)
    assert not waiting.is_alive()
    released.set()
    running.join(PATIENCE_SECONDS)

    assert cloud.delivered == [1]
