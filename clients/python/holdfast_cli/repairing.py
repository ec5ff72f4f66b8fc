"""
What `./holdfast doctor` has repaired: commits that the indexer has missed, found by a whole pass over what is stored.

The schedule goes on repairing too, a slice a minute, and its walk is this one: who calls it by hand only pushes it on.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from holdfast_cli.findings import Finding

if TYPE_CHECKING:
    from stacks.target import Target

CALLS_MAX: Final = 500
"""Slices of up to 10 MB that are walked over by hand; of a larger table the schedule takes the rest."""
ENDS: Final = 2
"""A walk that stands somewhere has gone through everything when it comes to the end of the table a second time."""


def repairs(
    where: "Target", services: Sequence[str], show: Callable[[int], None] = lambda _commits: None
) -> Iterator[Finding]:
    """Have every service that keeps streams look for what its log lacks; *show* is told how many commits were seen."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - only a running stack is repaired

    client = where.client("lambda")
    for service in services:
        try:
            logs = f"./holdfast logs {service}" if where.is_local else f"./holdfast logs {service} --aws"
            yield _repaired(client, service, show, logs)
        except client.exceptions.ResourceNotFoundException:
            continue  # it keeps no streams, or is not deployed
        except (BotoCoreError, ClientError) as error:
            fix = "./holdfast status" if where.is_local else "aws sts get-caller-identity (whose credentials these are)"
            yield Finding(f"log of {service}", "failed", f"Repair cannot be called: {error}", fix)


def _repaired(client: Any, service: str, show: Callable[[int], None], logs: str) -> Finding:
    check = f"log of {service}"
    seen = missed = ends = 0
    for _ in range(CALLS_MAX):
        answer = client.invoke(FunctionName=f"holdfast-{service}-repair", Payload=b"{}")
        told = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            reason = told.get("errorMessage", "nobody knows why") if isinstance(told, dict) else told
            return Finding(check, "failed", f"Repair does not come to its end: {reason}", logs)
        seen, missed, ends = seen + told["commits"], missed + told["indexed"], ends + told["is_last"]
        show(seen)
        if ends == ENDS:
            break
    if missed:
        return Finding(
            check,
            "warning",
            f"{missed:,} commits were stored and not in the log; they are now.",
            f"{logs} (why the indexer missed them)",
        )
    if ends < ENDS:
        return Finding(check, "ok", f"{seen:,} commits were looked at, and none was missed; the schedule goes on")
    return Finding(check, "ok", "holds all that is stored")
