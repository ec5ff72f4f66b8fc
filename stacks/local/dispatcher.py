"""
DynamoDB streams to functions, with the promises of an AWS::Lambda::EventSourceMapping.

It stands in for the engine's own mapping, which ignores partial failures, bisecting, retry limits and
on-failure destinations. It asks public AWS APIs only (DescribeStream, GetShardIterator, GetRecords,
Invoke, and SendMessage or Publish for what was given up), so it works beside any engine.

Delivery is at least once, in the order of each shard, one thread per source. How far a source has got is
written to a small file after delivery, never before: a dispatcher that is killed repeats its last batch.
"""

import base64
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from botocore.exceptions import ClientError

from holdfast import clock
from stacks.local import files, patterns
from stacks.local.clients import REFUSALS
from stacks.local.delivery import Answer, Batch, Failed, Record, decide, sequence_number, understand
from stacks.local.profile import StreamSource

IDLE_SECONDS = 0.02
"""Between two reads of a stream that had nothing new."""
QUIET_AFTER_SECONDS = 5.0
QUIET_SECONDS = 0.25
"""Between two reads of a stream that has had nothing wanted for QUIET_AFTER_SECONDS: a laptop has a battery."""
SHARDS_REFRESH_SECONDS = 10.0
"""How long a new shard may go unseen; a shard that closes is followed at once."""
SHARD_PAGES_MAX = 100
"""Pages of one DescribeStream (100 shards each)."""
RETRY_FIRST_SECONDS = 0.1
RETRY_LONGEST_SECONDS = 5.0
"""Waits between two tries of a failed batch double from the first to the longest."""
GIVE_UP_DOUBLINGS = 10
"""Doublings after which the wait is the longest in any case; keeps the arithmetic small for ever."""
BATCH_RECORDS_MAX = 1_000
"""GetRecords hands over no more, so neither can a batch hold more (on AWS 10,000, filled from several reads)."""
STOP_SECONDS_MAX = 5.0
"""How long `stop` waits for a function that is running; its batch is then delivered again at the next start."""

ClientFactory = Callable[[str], Any]
"""Makes the boto3 client of a service, with time-outs."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Checkpoint(msgspec.Struct):
    """How far a source has got: by shard, the last sequence number delivered; a finished shard is in `finished`."""

    stream_arn: str
    delivered: dict[str, str] = msgspec.field(default_factory=dict)
    finished: list[str] = msgspec.field(default_factory=list)


class _Stopping(Exception):
    """The dispatcher is being stopped in the middle of something; nothing more is delivered."""


@dataclass
class _Shard:
    id: str
    parent: str | None
    iterator: str | None = None


@dataclass
class Dispatcher:
    """Follows any number of sources, one thread each, until stopped."""

    client: ClientFactory
    checkpoints: Path
    """The directory in which each source keeps how far it has got."""
    _followers: list["_Follower"] = field(default_factory=list)
    _ending: list["_Follower"] = field(default_factory=list)
    """Told to stop, and in the middle of a delivery that `stop` did not wait for."""

    def follow(self, sources: Sequence[StreamSource]) -> None:
        """
        Follow these sources and no others, from where each has got.

        One whose function still has a batch from before is read on when that has ended, and not beside it.

        Raises:
            UnknownPattern: a source has a filter that is not supported; none is followed then.
        """
        followers = [
            _Follower(self.client, source, patterns.compiled(source.filters), self._checkpoint_file(source))
            for source in sources
        ]
        self.stop()
        self._followers = followers
        for follower in followers:
            follower.predecessors = [ending for ending in self._ending if ending.file == follower.file]
            follower.start()

    def drain(self, timeout_seconds: float) -> bool:
        """
        Wait until every source has been read to its end; say whether all were in time.

        What a function is handed from one source it may turn into records of another. So all are gone through again
        until nothing was delivered meanwhile.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            before = self._delivered()
            if not self._are_caught_up(deadline):
                return False
            if self._delivered() == before:
                return True

    def _delivered(self) -> int:
        return sum(follower.delivered_count for follower in self._followers)

    def _are_caught_up(self, deadline: float) -> bool:
        # The round that is running may have begun before the last write; the one after it has not.
        rounds = [follower.caught_up_count + 2 for follower in self._followers]
        for follower, enough in zip(self._followers, rounds, strict=True):
            while follower.caught_up_count < enough:
                if time.monotonic() >= deadline or not follower.is_alive():
                    return False
                time.sleep(IDLE_SECONDS)
        return True

    def stop(self) -> None:
        """Deliver nothing more. Waits, within its bound, for functions that are running."""
        deadline = time.monotonic() + STOP_SECONDS_MAX
        told = [*self._ending, *self._followers]
        for follower in told:
            follower.stopping.set()
        for follower in told:
            follower.join(max(0.0, deadline - time.monotonic()))
        self._ending = [follower for follower in told if follower.is_alive()]
        self._followers = []

    def is_alive(self) -> bool:
        """Tell whether every source is being followed; one that is not has met a bug (see the log)."""
        return all(follower.is_alive() for follower in self._followers)

    def _checkpoint_file(self, source: StreamSource) -> Path:
        return self.checkpoints / f"{source.table}@{_bare_name(source.function_name)}.json"


class _Follower(threading.Thread):
    """Reads one stream and invokes one function."""

    def __init__(self, client: ClientFactory, source: StreamSource, wants: patterns.Test, checkpoint: Path) -> None:
        super().__init__(name=f"stream {source.table}", daemon=True)
        self.stopping = threading.Event()
        self.caught_up_count = 0
        """How many times every shard was found to hold nothing new."""
        self.delivered_count = 0
        """How many times the function has been done with what one read found for it."""
        self.predecessors: Sequence[_Follower] = ()
        """Those of the same source that have not ended: two would each deliver, and put back the other's checkpoint."""
        self.file = checkpoint
        self._source = source
        self._wants = wants
        self._make_client = client
        self._shards: dict[str, _Shard] = {}
        self._shards_seen_at = float("-inf")
        self._quiet_since = time.monotonic()

    def run(self) -> None:
        # Made here: the first client of a service costs a good part of a second.
        self._tables = self._make_client("dynamodb")
        self._streams = self._make_client("dynamodbstreams")
        self._lambda = self._make_client("lambda")
        self._let_predecessors_end()
        failures = 0
        while not self.stopping.is_set():
            try:
                if not self._read_all_shards():
                    self.caught_up_count += 1
                    is_quiet = time.monotonic() - self._quiet_since > QUIET_AFTER_SECONDS
                    self.stopping.wait(QUIET_SECONDS if is_quiet else IDLE_SECONDS)
                failures = 0
            except _Stopping:
                return
            except REFUSALS as error:
                # The engine is starting, stopping or redeploying, or the table is gone: all pass, or somebody says so.
                failures += 1
                self._log_once(failures, "The stream of %s cannot be read: %s", self._source.table, error)
                self._forget_position()
                self.stopping.wait(_backoff_seconds(failures))

    def _let_predecessors_end(self) -> None:
        while any(each.is_alive() for each in self.predecessors) and not self.stopping.is_set():
            self.stopping.wait(IDLE_SECONDS)

    def _log_once(self, failures: int, message: str, *facts: object) -> None:
        if failures == 1:
            _log.warning(message, *facts)

    def _forget_position(self) -> None:
        """Ask for the shards and for new iterators next time; the checkpoint knows where to go on."""
        self._shards = {}
        self._shards_seen_at = float("-inf")

    # Reading

    def _read_all_shards(self) -> bool:
        """Read each readable shard once; say whether there was anything."""
        if time.monotonic() - self._shards_seen_at > SHARDS_REFRESH_SECONDS:
            self._refresh_shards()
        # Every shard is read, whatever the others hold; one that ends is taken out as we go.
        found = [self._read(shard) for shard in self._readable()]
        return any(found)

    def _refresh_shards(self) -> None:
        stream_arn = self._stream_arn()
        checkpoint = self._load(stream_arn)
        seen = {shard["ShardId"]: shard.get("ParentShardId") for shard in self._describe_shards(stream_arn)}
        # Shards age out of a stream after a day: what is no longer listed need not be remembered.
        checkpoint.finished = [shard_id for shard_id in checkpoint.finished if shard_id in seen]
        checkpoint.delivered = {shard_id: at for shard_id, at in checkpoint.delivered.items() if shard_id in seen}
        self._checkpoint = checkpoint
        self._shards = {
            shard_id: self._shards.get(shard_id) or _Shard(shard_id, parent)
            for shard_id, parent in seen.items()
            if shard_id not in checkpoint.finished
        }
        self._shards_seen_at = time.monotonic()

    def _stream_arn(self) -> str:
        table = self._tables.describe_table(TableName=self._source.table)["Table"]
        # A table without a stream is a mistake in a template, and stays one: it is logged and asked again.
        return str(table.get("LatestStreamArn") or f"{table['TableArn']}/stream/none")

    def _describe_shards(self, stream_arn: str) -> Iterator[Mapping[str, Any]]:
        start: dict[str, str] = {}
        for _ in range(SHARD_PAGES_MAX):
            page = self._streams.describe_stream(StreamArn=stream_arn, **start)["StreamDescription"]
            yield from page["Shards"]
            if "LastEvaluatedShardId" not in page:
                return
            start = {"ExclusiveStartShardId": page["LastEvaluatedShardId"]}

    def _readable(self) -> list[_Shard]:
        """Give the shards whose parent is read to its end, or gone: a child goes on where its parent stopped."""
        return [shard for shard in self._shards.values() if shard.parent not in self._shards]

    def _read(self, shard: _Shard) -> bool:
        iterator = shard.iterator or self._iterator(shard)
        limit = min(self._source.batch_size, BATCH_RECORDS_MAX)
        try:
            answer = self._streams.get_records(ShardIterator=iterator, Limit=limit)
        except ClientError as error:
            if _code(error) not in {"ExpiredIteratorException", "TrimmedDataAccessException"}:
                raise
            shard.iterator = None
            return True
        records = [_as_functions_get_it(record, self._checkpoint.stream_arn) for record in answer["Records"]]
        if records:
            self._deliver(shard, records)
            self._checkpoint.delivered[shard.id] = sequence_number(records[-1])
            self._save()
        shard.iterator = answer.get("NextShardIterator")
        if shard.iterator is None:
            self._finish(shard)
        return bool(records)

    def _iterator(self, shard: _Shard) -> str:
        """Go on after the checkpoint; at the start if there is none, or if the stream no longer reaches back to it."""
        where = {"StreamArn": self._checkpoint.stream_arn, "ShardId": shard.id}
        delivered = self._checkpoint.delivered.get(shard.id)
        if delivered:
            try:
                answer = self._streams.get_shard_iterator(
                    **where, ShardIteratorType="AFTER_SEQUENCE_NUMBER", SequenceNumber=delivered
                )
                return str(answer["ShardIterator"])
            except ClientError as error:
                if _code(error) != "TrimmedDataAccessException":
                    raise
                _log.info("The stream of %s no longer holds the checkpoint; going on at its start.", self._source.table)
        # A child of a shard that was followed is read whole, or the records between the two would be lost.
        is_first = not delivered and shard.parent is None
        start = self._source.starting_position if is_first else "TRIM_HORIZON"
        return str(self._streams.get_shard_iterator(**where, ShardIteratorType=start)["ShardIterator"])

    def _finish(self, shard: _Shard) -> None:
        del self._shards[shard.id]
        self._checkpoint.finished.append(shard.id)
        self._save()
        self._shards_seen_at = float("-inf")

    def _load(self, stream_arn: str) -> Checkpoint:
        checkpoint = files.read(self.file, Checkpoint)
        # Another ARN is another stream: the table was made anew, and its sequence numbers mean nothing here.
        is_ours = checkpoint is not None and checkpoint.stream_arn == stream_arn
        return checkpoint if checkpoint is not None and is_ours else Checkpoint(stream_arn)

    def _save(self) -> None:
        files.write(self.file, self._checkpoint)

    # Delivering

    def _deliver(self, shard: _Shard, records: list[Record]) -> None:
        wanted = tuple(record for record in records if self._wants(record))
        to_try = [Batch(wanted)] if wanted else []
        if wanted:
            self._quiet_since = time.monotonic()
        while to_try:
            batch = to_try.pop(0)
            answer = self._invoke(batch)
            step = decide(batch, answer, self._source)
            if step.given_up:
                self._tell_destination(shard, step.given_up)
            to_try = [*step.to_try, *to_try]
            if to_try and to_try[0].failures:
                self._pause(_backoff_seconds(to_try[0].failures))
        if wanted:
            self.delivered_count += 1

    def _pause(self, seconds: float) -> None:
        if self.stopping.wait(seconds):
            raise _Stopping

    def _invoke(self, batch: Batch) -> Answer:
        event = json.dumps({"Records": batch.records}, separators=(",", ":"), ensure_ascii=False)

        def invoke() -> Answer:
            answer = self._lambda.invoke(FunctionName=self._source.function_name, Payload=event.encode())
            payload = answer["Payload"].read()
            if "FunctionError" in answer:
                _log.warning(
                    "%s failed on %d records: %s", self._source.function_name, len(batch.records), payload[:500]
                )
                return Failed()
            return understand(payload, batch, self._source)

        return self._until_it_answers(invoke, f"{self._source.function_name} cannot be invoked")

    def _tell_destination(self, shard: _Shard, given_up: Batch) -> None:
        destination = self._source.on_failure_arn
        facts = _invocation_record(given_up, shard.id, self._checkpoint.stream_arn, self._source.function_name)
        if destination is None:
            _log.error("Gave up, and there is no on-failure destination: %s", json.dumps(facts))
            return
        self._until_it_answers(lambda: self._send(destination, json.dumps(facts)), f"{destination} takes no message")

    def _send(self, destination: str, message: str) -> None:
        if destination.startswith("arn:aws:sns:"):
            self._make_client("sns").publish(TopicArn=destination, Message=message)
            return
        queues = self._make_client("sqs")
        url = destination
        if destination.startswith("arn:"):
            url = queues.get_queue_url(QueueName=destination.rpartition(":")[2])["QueueUrl"]
        queues.send_message(QueueUrl=url, MessageBody=message)

    def _until_it_answers(self, call: Callable[[], T], complaint: str) -> T:
        """
        Repeat a call that the platform, not the function, refused: throttled, redeployed, starting up.

        It does not count as a retry of the batch, and it ends only with an answer or with the dispatcher,
        because the alternative is to lose records.
        """
        failures = 0
        while True:
            try:
                return call()
            except REFUSALS as error:
                failures += 1
                self._log_once(failures, "%s: %s", complaint, error)
                self._pause(_backoff_seconds(failures))


def _backoff_seconds(failures: int) -> float:
    return float(min(RETRY_LONGEST_SECONDS, RETRY_FIRST_SECONDS * 2 ** min(failures - 1, GIVE_UP_DOUBLINGS)))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code"))


def _bare_name(function_name: str) -> str:
    return function_name.rpartition(":")[2]


def _as_functions_get_it(record: Mapping[str, Any], stream_arn: str) -> Record:
    """
    Turn what GetRecords hands to boto3 into what Lambda hands to a function.

    Binary is base64, times are epoch seconds, numbers stay the strings they are, and the caller of a
    time-to-live deletion is written in lower case there.
    """
    shaped: Record = _plain(record)
    shaped["eventSourceARN"] = stream_arn
    if identity := record.get("userIdentity"):
        shaped["userIdentity"] = {"principalId": identity.get("PrincipalId"), "type": identity.get("Type")}
    return shaped


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(member) for name, member in value.items()}
        case list():
            return [_plain(member) for member in value]
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return value.timestamp()
        case _:
            return value


def _invocation_record(given_up: Batch, shard_id: str, stream_arn: str, function_name: str) -> dict[str, Any]:
    """Write what AWS sends to an on-failure destination of a stream: where the records are, not what they hold."""
    first, last = given_up.records[0], given_up.records[-1]
    now = clock.to_text(clock.SystemClock().now())
    return {
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "functionArn": function_name,
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": given_up.failures,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": now,
        "DDBStreamBatchInfo": {
            "shardId": shard_id,
            "startSequenceNumber": sequence_number(first),
            "endSequenceNumber": sequence_number(last),
            "approximateArrivalOfFirstRecord": _arrival(first),
            "approximateArrivalOfLastRecord": _arrival(last),
            "batchSize": len(given_up.records),
            "streamArn": stream_arn,
        },
    }


def _arrival(record: Record) -> str:
    return clock.to_text(datetime.fromtimestamp(record["dynamodb"]["ApproximateCreationDateTime"], UTC))
