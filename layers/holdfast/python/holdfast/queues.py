"""
Queue messages: one that fails is delivered again, or set aside, alone.

A function that raises has its whole batch delivered again. One that names the messages it could not do keeps those
(Lambda's partial batch responses; the trigger needs `ReportBatchItemFailures`).
"""

from collections.abc import Callable, Mapping
from typing import Any

from holdfast import telemetry


def each_message(event: Mapping[str, Any], handle: Callable[[bytes], None]) -> dict[str, Any]:
    """
    Hand the body of each message to *handle*; answer the ids of those whose handling raised.

    Messages are handled one after the other, each at least once. In a FIFO queue everything behind a failure
    counts as failed too, or it would overtake.
    """
    failed: list[str] = []
    for record in event["Records"]:
        is_ordered = record.get("eventSourceARN", "").endswith(".fifo")
        try:
            if failed and is_ordered:
                raise _Behind(failed[0])  # noqa: TRY301 - it fails like the one before it
            handle(record["body"].encode())
        except Exception:  # noqa: BLE001 - whatever it is, it is this message's, and the others go on
            failed.append(record["messageId"])
            telemetry.logger().exception("A message could not be handled.", message_id=record["messageId"])
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


class _Behind(Exception):
    """A message before this one in its queue could not be handled."""
