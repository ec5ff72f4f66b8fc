"""Shards that close, split and expire: what AWS does and the local engine, with its one shard, never shows."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stacks.local.dispatcher import Dispatcher
from stacks.local.profile import StreamSource
from tests.unit.stacks.local.stream_cloud import PATIENCE_SECONDS, Cloud, Shard, arn


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Callable[..., Dispatcher]]:
    started: list[Dispatcher] = []

    def follow(cloud: Cloud, **settings: Any) -> Dispatcher:
        dispatcher = Dispatcher(cloud.client, tmp_path)
        dispatcher.follow([StreamSource(table="t", function_name="f", **settings)])
        started.append(dispatcher)
        return dispatcher

    yield follow
    for dispatcher in started:
        dispatcher.stop()


def wait_for(cloud: Cloud, numbers: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(cloud.delivered) < len(numbers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert cloud.delivered == numbers


def test_a_child_shard_is_read_after_its_parent_to_the_end_though_listed_before_it(follow: Callable[..., Dispatcher]):
    cloud = Cloud({"child": Shard("parent", False, [3, 4]), "parent": Shard(None, True, [1, 2])})

    follow(cloud, batch_size=1)

    wait_for(cloud, [1, 2, 3, 4])


def test_a_shard_that_closes_while_it_is_followed_hands_over_to_its_child(follow: Callable[..., Dispatcher]):
    cloud = Cloud({"a": Shard(None, False, [1])})
    follow(cloud)
    wait_for(cloud, [1])

    cloud.shards["b"] = Shard("a", False, [2])
    cloud.shards["a"].is_closed = True

    wait_for(cloud, [1, 2])


def test_latest_skips_what_was_there_and_misses_nothing_of_a_child(follow: Callable[..., Dispatcher]):
    cloud = Cloud({"a": Shard(None, False, [1])})
    dispatcher = follow(cloud, starting_position="LATEST")
    assert dispatcher.drain(PATIENCE_SECONDS)

    cloud.shards["b"] = Shard("a", False, [3])
    cloud.shards["a"].records.append(2)
    cloud.shards["a"].is_closed = True

    wait_for(cloud, [2, 3])


def test_an_expired_iterator_is_asked_for_again_after_the_checkpoint(follow: Callable[..., Dispatcher]):
    cloud = Cloud({"a": Shard(None, False, [1, 2, 3])}, iterators_expire_once=True)

    follow(cloud, batch_size=1)

    wait_for(cloud, [1, 2, 3])


def test_a_stream_that_no_longer_reaches_back_to_the_checkpoint_is_read_from_where_it_begins(
    follow: Callable[..., Dispatcher],
):
    cloud = Cloud({"a": Shard(None, False, [1])})
    first = follow(cloud)
    assert first.drain(PATIENCE_SECONDS)
    first.stop()
    cloud.trimmed_before, cloud.shards["a"].records = 5, [5, 6]

    follow(cloud)

    wait_for(cloud, [1, 5, 6])


def test_a_finished_shard_is_not_read_again_after_a_restart(follow: Callable[..., Dispatcher], tmp_path: Path):
    cloud = Cloud({"a": Shard(None, True, [1]), "b": Shard("a", False, [2])})
    first = follow(cloud)
    wait_for(cloud, [1, 2])
    assert first.drain(PATIENCE_SECONDS)
    first.stop()

    second = follow(cloud)
    assert second.drain(PATIENCE_SECONDS)

    assert cloud.delivered == [1, 2]
    [file] = tmp_path.iterdir()
    kept = {"stream_arn": arn("t"), "delivered": {"a": "1", "b": "2"}, "finished": ["a"]}
    assert json.loads(file.read_bytes()) == kept
