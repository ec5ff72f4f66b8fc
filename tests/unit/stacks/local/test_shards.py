"""Shards that close, split and expire: what AWS does and the local engine, with its one shard, never shows."""

# ruff: noqa: N803 - the arguments are boto3's

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stacks.local.dispatcher import Dispatcher
from stacks.local.profile import StreamSource

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/1"
PATIENCE_SECONDS = 5.0


@dataclass
class Shard:
    parent: str | None = None
    is_closed: bool = False
    records: list[int] = field(default_factory=list)


@dataclass
class Cloud:
    """A table's stream and a function, in memory: iterators are `<shard>:<position>:<generation>`."""

    shards: dict[str, Shard] = field(default_factory=dict)
    shards_per_page: int = 1
    iterators_expire_once: bool = False
    trimmed_before: int = 0
    delivered: list[int] = field(default_factory=list)
    _generation: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, _service: str) -> "Cloud":
        return self

    def describe_table(self, TableName: str) -> dict[str, Any]:
        return {"Table": {"LatestStreamArn": ARN}}

    def describe_stream(self, StreamArn: str, ExclusiveStartShardId: str | None = None) -> dict[str, Any]:
        ids = list(self.shards)
        start = ids.index(ExclusiveStartShardId) + 1 if ExclusiveStartShardId else 0
        page = ids[start : start + self.shards_per_page]
        shards = [
            {"ShardId": shard_id, **({"ParentShardId": parent} if (parent := self.shards[shard_id].parent) else {})}
            for shard_id in page
        ]
        more = {"LastEvaluatedShardId": page[-1]} if start + len(page) < len(ids) else {}
        return {"StreamDescription": {"Shards": shards, **more}}

    def get_shard_iterator(
        self,
        StreamArn: str,
        ShardId: str,
        ShardIteratorType: str,
        SequenceNumber: str | None = None,
    ) -> dict[str, str]:
        records = self.shards[ShardId].records
        match ShardIteratorType:
            case "AFTER_SEQUENCE_NUMBER":
                assert SequenceNumber is not None
                if int(SequenceNumber) < self.trimmed_before:
                    raise refused("TrimmedDataAccessException")
                position = records.index(int(SequenceNumber)) + 1
            case "LATEST":
                position = len(records)
            case _:
                position = 0
        return {"ShardIterator": f"{ShardId}:{position}:{self._generation}"}

    def get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:
        shard_id, position, generation = ShardIterator.split(":")
        if self.iterators_expire_once and int(position) > 0:
            self.iterators_expire_once, self._generation = False, 1
        if int(generation) != self._generation:
            raise refused("ExpiredIteratorException")
        shard, start = self.shards[shard_id], int(position)
        page = shard.records[start : start + Limit]
        is_over = shard.is_closed and start + len(page) == len(shard.records)
        more = {} if is_over else {"NextShardIterator": f"{shard_id}:{start + len(page)}:{generation}"}
        return {"Records": [{"dynamodb": {"SequenceNumber": str(number)}} for number in page], **more}

    def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in json.loads(Payload)["Records"]]
        with self._lock:
            self.delivered += numbers
        return {"Payload": io.BytesIO(b"null")}


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, "GetRecords")


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
    assert json.loads(file.read_bytes()) == {"stream_arn": ARN, "delivered": {"a": "1", "b": "2"}, "finished": ["a"]}
