"""What a command writes: JSON or text on stdout for programs, everything else on stderr for people."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast_cli.failures import Failure

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print JSON with stable keys on stdout, and nothing else there.")
]


def print_json(value: Any) -> None:
    """Write one JSON value as one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def say(text: str) -> None:
    """Tell the person at the terminal; on stderr, so that no program reads it by mistake."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def visible(text: str) -> str:
    """Show somebody's text so that it cannot steer the terminal."""
    return text if text.isprintable() else ascii(text)


def show_failure(failure: Failure, *, as_json: bool) -> None:
    if as_json:
        sys.stderr.write(json.dumps(failure.as_json(), ensure_ascii=False, default=str) + "\n")
        return
    say(f"holdfast: {failure.detail}")
    if failure.next_command and failure.next_command not in failure.detail:
        say(f"          Next: {failure.next_command}")


class Steps:
    """Tells the steps of long work as they come; the `Report` that the stacks speak to."""

    def step(self, text: str) -> None:
        say(f"  {text}")


def console() -> "Console":
    """A console on stdout, for tables."""
    from rich.console import Console  # noqa: PLC0415  only commands that draw pay for it

    return Console()


def progress_bar(total: int | None, unit: str) -> "Progress":
    """A bar on stderr with count, rate and remaining time, drawn only if stderr is a terminal."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[events]:,} " + unit),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        TextColumn("remaining"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    bar.add_task("", total=total, events=0, rate=0.0)
    return bar


@contextmanager
def progress_of(total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Give what is told how many are done by now, and draws it on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    began = time.monotonic()
    with progress_bar(total, unit) as bar:
        task = bar.task_ids[0]

        def show(done: int) -> None:
            bar.update(task, completed=done, events=done, rate=done / max(time.monotonic() - began, 0.001))

        yield show
