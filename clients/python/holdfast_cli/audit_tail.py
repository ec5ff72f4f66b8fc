"""`./holdfast audit tail`: events of all streams as they come, without loss or repeats."""

import sys
from contextlib import closing
from typing import Annotated

import typer

from holdfast_cli.places import connect
from holdfast_cli.terminal import JsonFlag, print_json, say, visible
from holdfast_client.tail import Tail, TailedEvent


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
            say(f"Stopped. To go on from here: ./holdfast audit tail {_resuming(events, prefix)}")


def _positions(given: list[str]) -> dict[int, int]:
    positions = {}
    for text in given:
        partition, _, position = text.partition("=")
        if not (partition.isdecimal() and position.isdecimal()):
            raise typer.BadParameter(f"{text!r} is not like 0=120", param_hint="--after")
        positions[int(partition)] = int(position)
    return positions


def _resuming(events: Tail, prefix: str) -> str:
    options = [f"--prefix {prefix}"] if prefix else []
    options += [f"--after {partition}={position}" for partition, position in sorted(events.positions.items())]
    return " ".join(options)


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
