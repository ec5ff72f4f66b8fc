"""
What to do with a batch once its function has answered: pure, and as AWS Lambda does it for streams.

A batch that failed is retried where it stands, and blocks what comes after it, because a stream promises
order. It leaves in one of three ways: delivered, split in two, or given up after its retries and told to
the on-failure destination. The rules are those of the AWS Lambda Developer Guide, "Using AWS Lambda with
Amazon DynamoDB" (error handling, batch item failures).
"""

from typing import Any

import msgspec

from stacks.local.profile import RETRY_FOR_EVER, StreamSource

Record = dict[str, Any]
"""One stream record in the form in which a function gets it."""


class Batch(msgspec.Struct, frozen=True):
    """Records that are tried together, and how often they have failed so."""

    records: tuple[Record, ...]
    failures: int = 0


class _ItemFailure(msgspec.Struct, frozen=True, rename="camel"):
    item_identifier: str


class _ItemFailures(msgspec.Struct, frozen=True, rename="camel"):
    """The partial answer of a function that reports item failures."""

    batch_item_failures: list[_ItemFailure] | None = None


class Succeeded(msgspec.Struct, frozen=True):
    """Every record of the batch was handled."""


class FailedFrom(msgspec.Struct, frozen=True):
    """The function names the first record it could not handle; all before it are done."""

    index: int


class Failed(msgspec.Struct, frozen=True):
    """The function failed, or answered what cannot be understood: nothing of the batch is done."""


Answer = Succeeded | FailedFrom | Failed


class Step(msgspec.Struct, frozen=True):
    """What follows from an answer: what is given up, and what to try next, in order. All else is done."""

    given_up: Batch | None = None
    to_try: tuple[Batch, ...] = ()


def sequence_number(record: Record) -> str:
    """Give a record's place in its shard."""
    return str(record["dynamodb"]["SequenceNumber"])


def understand(payload: bytes, batch: Batch, source: StreamSource) -> Answer:
    """
    Read what a function returned.

    An empty answer is success. Where item failures are reported, the first of the named records in stream
    order counts; a name that is not in the batch, or no name, fails the whole batch.
    """
    if not source.reports_item_failures or not payload:
        return Succeeded()
    places = {sequence_number(record): index for index, record in enumerate(batch.records)}
    try:
        report = msgspec.json.decode(payload, type=_ItemFailures | None)
        failures = report.batch_item_failures if report else None
        return FailedFrom(min(places[failure.item_identifier] for failure in failures)) if failures else Succeeded()
    except (msgspec.DecodeError, KeyError):
        return Failed()


def decide(batch: Batch, answer: Answer, source: StreamSource) -> Step:
    """
    Follow one answer to what comes next.

    Splitting does not use up a retry. With `bisect`, a record that was named or isolated is given up alone;
    without, whatever is left of its batch goes with it.
    """
    match answer:
        case Succeeded():
            return Step()
        case FailedFrom(index) if index > 0:
            return _retry(Batch(batch.records[index:], failures=1), source)
        case FailedFrom():
            return _retry(Batch(batch.records, batch.failures + 1), source)
        case Failed() if source.bisect and len(batch.records) > 1:
            middle = len(batch.records) // 2
            return Step(to_try=(Batch(batch.records[:middle]), Batch(batch.records[middle:])))
        case Failed():
            return _retry(Batch(batch.records, batch.failures + 1), source)


def _retry(batch: Batch, source: StreamSource) -> Step:
    if source.retries_max == RETRY_FOR_EVER or batch.failures <= source.retries_max:
        return Step(to_try=(batch,))
    if source.bisect and len(batch.records) > 1:
        return Step(
            given_up=Batch(batch.records[:1], batch.failures),
            to_try=(Batch(batch.records[1:]),),
        )
    return Step(given_up=batch)
