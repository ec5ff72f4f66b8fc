"""`./holdfast audit import`: bring a history in, a file's or a Git repository's, as often as one likes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from holdfast_cli.failures import ExitCode, Failure, same_command
from holdfast_cli.importing.git import Repository
from holdfast_cli.importing.importer import ContradictionError, Tally, import_items
from holdfast_cli.importing.items import DamagedError, Item, stem_of
from holdfast_cli.importing.lines import Naming, read_items
from holdfast_cli.places import connect
from holdfast_cli.terminal import JsonFlag, print_json, progress_bar, say


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
