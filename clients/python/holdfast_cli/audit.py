"""`./holdfast audit`: import, append, events, state; export, verify and tail are in modules of their own."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from uuid import uuid4

import typer

from holdfast_cli import audit_tail, audit_verify
from holdfast_cli.failures import ExitCode, Failure, same_command
from holdfast_cli.importing.git import Repository
from holdfast_cli.importing.importer import ContradictionError, Tally, import_items
from holdfast_cli.importing.items import DamagedError, Item, stem_of
from holdfast_cli.importing.lines import Naming, read_items
from holdfast_cli.places import connect
from holdfast_cli.terminal import JsonFlag, console, print_json, progress_bar, say, visible
from holdfast_client import Event, RecordedEvent, State

FOLLOW_SECONDS = 1.0
"""How often `events --follow` asks for more."""

app = typer.Typer(help="The audit trail: bring histories in, append, read, and ask for any past state.")
app.command()(audit_verify.export)
app.command()(audit_verify.verify)
app.command()(audit_tail.tail)

Stream = Annotated[str, typer.Argument(metavar="STREAM", help="The stream's plain name, such as orders/42.")]


@app.command("import")
def import_(
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="JSON lines, plain or gzip; - for stdin.")] = None,
    *,
    git: Annotated[Path | None, typer.Option(help="The first-parent history of this Git repository.")] = None,
    stream: Annotated[str | None, typer.Option(help="Import into this stream.")] = None,
    stream_from: Annotated[str, typer.Option(help="The attribute of a line that names its stream.")] = "subject",
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Events per append.")] = 250,
    json: JsonFlag = False,
) -> None:
    """Import a history; a second run appends only what is new, and a killed run is resumed by the same command."""
    if (file is None) == (git is None):
        raise typer.BadParameter("give either a FILE or --git PATH")
    with _git_source(git, stream) if git else _file_source(file or "-", stream, stream_from) as source:
        tally = _import(source, batch)
    if json:
        print_json(tally.as_json())
        return
    say(
        f"{tally.events_read:,} events read, {tally.events_appended:,} appended, "
        f"{tally.events_already_there:,} already there, in {tally.seconds:.1f} s."
    )
    for name, version in tally.streams.items():
        say(f"  {name} is at version {version}; its state: ./holdfast audit state {name}")


@dataclass(frozen=True)
class _Source:
    """A history to import, and how far along it is."""

    items: Iterator[Item]
    total: int | None
    """In whatever unit *position* counts; None if nobody knows."""
    position: Callable[[Tally], int]


@contextmanager
def _git_source(path: Path, stream: str | None) -> Iterator[_Source]:
    repository = Repository.at(path)
    # Closed here and not whenever the collector comes by: behind these items there is a process.
    with closing(repository.items(stream)) as items:
        yield _Source(items, repository.count(), lambda tally: tally.events_read)


@contextmanager
def _file_source(name: str, stream: str | None, stream_from: str) -> Iterator[_Source]:
    if name == "-":
        naming = Naming(stream, stream_from, "stdin")
        yield _Source(read_items(sys.stdin.buffer, naming), None, lambda tally: tally.events_read)
        return
    path = Path(name)
    naming = Naming(stream, stream_from, stem_of(path.name.removesuffix(".gz").rsplit(".", 1)[0]))
    with _opened(path) as raw:
        yield _Source(read_items(raw, naming), path.stat().st_size, lambda _tally: raw.tell())


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise Failure("no_file", f"{path} cannot be read: {error.strerror}.") from error


def _import(source: _Source, batch: int) -> Tally:
    with connect() as holdfast, _progress(source) as show, _resumable():
        try:
            return import_items(holdfast.audit, source.items, batch_events=batch, on_progress=show)
        except DamagedError as error:
            raise Failure(
                "damaged_line",
                f"{error.where} cannot be imported: {error.why}. Everything before it is in; once it is mended, the "
                "same command goes on from there.",
                next_command=same_command(),
                facts={"where": error.where},
            ) from error
        except ContradictionError as error:
            raise Failure(
                "contradiction",
                f"{error}. An imported stream holds the events of its history, in its order: import what has become "
                "another history into another stream, with --stream NAME.",
                facts={"where": error.item.where, "stream": error.item.stream, "version": error.version},
            ) from error


@contextmanager
def _resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise Failure(
            "interrupted",
            "Stopped. What was appended is in its streams, nothing is half done; the same command goes on from there.",
            next_command=same_command(),
            exit_code=ExitCode.INTERRUPTED,
        ) from error


@contextmanager
def _progress(source: _Source) -> Iterator[Callable[[Tally], None]]:
    if not sys.stderr.isatty():
        yield lambda _tally: None
        return
    with progress_bar(source.total, "events") as bar:
        task = bar.task_ids[0]

        def show(tally: Tally) -> None:
            rate = tally.events_read / max(tally.seconds, 0.001)
            bar.update(task, completed=source.position(tally), events=tally.events_read, rate=rate)

        yield show


@app.command()
def append(
    stream: Stream,
    *,
    type_: Annotated[str, typer.Option("--type", help="The event's type, such as order.placed.")],
    data: Annotated[str, typer.Option(help="The event's data, as JSON.")],
    expected: Annotated[
        str, typer.Option(metavar="N|none|any", help="The version the stream must be at; none: it must not exist.")
    ] = "any",
    subject: Annotated[str | None, typer.Option(help="What the event is about.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why it was done.")] = None,
    event_id: Annotated[str | None, typer.Option("--id", help="The event's id; a fresh one without it.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Ask again for a call whose answer was lost.")] = None,
    json: JsonFlag = False,
) -> None:
    """Append one event, exactly once."""
    key = idempotency_key or str(uuid4())
    event = Event(
        type=type_,
        data=_parse_json(data),
        subject=subject,
        reason=reason,
        # A repeat under the same key must be the same bytes, also from another process: the id comes from the key.
        id=event_id or key,
        source="urn:holdfast:cli",
    )
    with connect() as holdfast:
        appended = holdfast.audit.append(stream, [event], _expected(expected), idempotency_key=key)
    result = {
        "stream": stream,
        "version": appended.version,
        "first_version": appended.first_version,
        "commit_id": appended.commit_id,
        "recorded_at": appended.recorded_at.isoformat(),
        "event_id": event.id,
        "idempotency_key": key,
        "replayed": appended.replayed,
    }
    if json:
        print_json(result)
    else:
        say(f"{stream} is at version {appended.version} (event {event.id}).")


def _expected(text: str) -> Any:
    if text == "any":
        return "any"
    if text == "none":
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a version, nor none, nor any", param_hint="--expected")


def _parse_json(text: str) -> Any:
    import json  # noqa: PLC0415  a parameter of the commands has this name

    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"it is no JSON: {error}", param_hint="--data") from error


@app.command()
def events(
    stream: Stream,
    *,
    after: Annotated[int, typer.Option(min=0, help="Only events after this version.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more; end with Ctrl-C.")] = False,
    json: JsonFlag = False,
) -> None:
    """Read a stream, oldest event first; with --json one CloudEvent per line."""
    show = _print_event if json else _show_event
    with connect() as holdfast:
        seen = 0
        while True:
            for event in holdfast.audit.events(stream, after, limit=None if limit is None else limit - seen):
                show(event)
                after, seen = event.streamversion, seen + 1
            sys.stdout.flush()
            if not follow or seen == limit:
                return
            time.sleep(FOLLOW_SECONDS)


def _print_event(event: RecordedEvent) -> None:
    print_json(event.cloudevent)


def _show_event(event: RecordedEvent) -> None:
    told = (event.actor, event.type, event.subject, f"({event.reason})" if event.reason else None)
    words = "  ".join(visible(word) for word in told if word)
    sys.stdout.write(f"{event.streamversion:>7}  {event.time:%Y-%m-%d %H:%M:%S}  {words}\n")


@app.command()
def state(
    stream: Stream,
    *,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="As of this event time (RFC 3339).")] = None,
    version: Annotated[int | None, typer.Option(help="As of this version.")] = None,
    known_at: Annotated[str | None, typer.Option(metavar="TIME", help="As it was known at this time.")] = None,
    json: JsonFlag = False,
) -> None:
    """Show the state of a stream, now or at any time; with --json the state alone."""
    with connect() as holdfast:
        answer = holdfast.audit.state(stream, at=at, version=version, known_at=known_at)
    if json:
        print_json(answer.state)
        return
    _show_state(answer)


def _show_state(answer: State) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    say(
        f"{answer.stream} at version {answer.version} of {answer.last_version} "
        f"({answer.events_applied} events, {answer.reducer})"
    )
    if answer.unapplied:
        say(f"  could not be applied: versions {', '.join(map(str, answer.unapplied))}")
    if not isinstance(answer.state, dict):
        print_json(answer.state)
        return
    table = Table("member", "value")
    for name, value in answer.state.items():
        # Names and values are somebody's data: `Text` takes no markup from them, `visible` no control characters.
        table.add_row(Text(visible(name)), Text(visible(value if isinstance(value, str) else repr(value))))
    console().print(table)
