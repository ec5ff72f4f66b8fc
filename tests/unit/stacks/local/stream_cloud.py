"""Streams and functions for the dispatcher, in memory."""

# ruff: noqa: N803 - the arguments are boto3's

import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

PATIENCE_SECONDS = 5.0


def arn(table: str) -> str:
    return f"arn:aws:dynamodb:us-east-1:000000000000:table/{table}/stream/1"


@dataclass
class Shard:
    parent: str | None = None
    is_closed: bool = False
    records: list[int] = field(default_factory=list)
    table: str = "t"


@dataclass
class Cloud:
    """Tables' streams and functions, in memory: iterators are `<shard>:<position>:<generation>`."""

    shards: dict[str, Shard] = field(default_factory=dict)
    then: Callable[[str], object] = lambda _function: None
    """What a function does with what it was handed."""
    shards_per_page: int = 1
    iterators_expire_once: bool = False
    trimmed_before: int = 0
    delivered: list[int] = field(default_factory=list)
    _generation: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, _service: str) -> "Cloud":
        return self

    def describe_table(self, TableName: str) -> dict[str, Any]:
        return {"Table": {"LatestStreamArn": arn(TableName)}}

    def describe_stream(self, StreamArn: str, ExclusiveStartShardId: str | None = None) -> dict[str, Any]:
        ids = [shard_id for shard_id, shard in self.shards.items() if arn(shard.table) == StreamArn]
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
        self.then(FunctionName)
        return {"Payload": io.BytesIO(b"null")}


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, "GetRecords")
