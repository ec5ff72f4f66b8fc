"""`./holdfast audit tail`: events of all streams as they come, without loss or repeats."""

import shlex
import sys
from collections.abc import Mapping
from contextlib import closing
from typing import Annotated

import typer

from holdfast_cli.failures import ExitCode, Failure
from holdfast_cli.places import connect
from holdfast_cli.terminal import JsonFlag, print_json, say, visible
from holdfast_client.audit_queries import PARTITIONS
from holdfast_client.errors import Invalid
from holdfast_client.tail_cursor import TailedEvent


def tail(
    *,
    prefix: Annotated[str, typer.Option(help="Only streams whose names begin so, such as orders/.")] = "",
    after: Annotated[
        list[str] | None,
        typer.Option(metavar="PARTITION=POSITION", help="Begin behind this position; now, where none is given."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    json: JsonFlag = False,
) -> None:
    """Follow the log until Ctrl-C; what the connection loses is read again, and where there is none, the log is."""
    show = _print_event if json else _show_event
    with connect() as holdfast, closing(holdfast.audit.tail(prefix, after=_positions(after or []))) as events:
        try:
            for count, each in enumerate(events, start=1):
                show(each)
                sys.stdout.flush()
                if count == limit:
                    return
        except KeyboardInterrupt:
            say(f"Stopped. To go on from here: {_command(prefix, events.positions)}")
        except Invalid as error:
            if error.code != "beyond_the_log":
                raise
            raise Failure(
                error.code,
                error.detail,
                next_command=_command(prefix, dict.fromkeys(range(PARTITIONS), 0)),
                exit_code=ExitCode.USAGE,
                facts=error.facts,
            ) from error


def _positions(given: list[str]) -> dict[int, int]:
    positions = {}
    for text in given:
        partition, _, position = text.partition("=")
        if not (partition.isdecimal() and position.isdecimal()):
            raise typer.BadParameter(f"{text!r} is not like 0=120", param_hint="--after")
        if int(partition) >= PARTITIONS:
            detail = f"there is no partition {partition}: they are 0 to {PARTITIONS - 1}"
            raise typer.BadParameter(detail, param_hint="--after")
        positions[int(partition)] = int(position)
    return positions


def _command(prefix: str, positions: Mapping[int, int]) -> str:
    """Write the command that follows the same streams from *positions* on."""
    words = ["./holdfast", "audit", "tail", *(("--prefix", prefix) if prefix else ())]
    for partition, position in sorted(positions.items()):
        words += ["--after", f"{partition}={position}"]
    return shlex.join(words)


def _print_event(each: TailedEvent) -> None:
    print_json(
        {
            "partition": each.partition,
            "position": each.position,
            "stream": each.stream,
            "event": each.event.cloudevent,
        }
    )


def _show_event(each: TailedEvent) -> None:
    event = each.event
    told = (event.actor, event.type, event.subject, f"({event.reason})" if event.reason else None)
    words = "  ".join(visible(word) for word in told if word)
    sys.stdout.write(f"{each.stream}@{event.streamversion}  {event.time:%Y-%m-%d %H:%M:%S}  {words}\n")
