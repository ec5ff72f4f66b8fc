"""`./holdfast demo`: see a service do what it promises, on history that you can check yourself."""

import itertools
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from holdfast_cli import demo_more
from holdfast_cli.failures import ExitCode
from holdfast_cli.importing.git import Repository
from holdfast_cli.importing.importer import import_items
from holdfast_cli.places import ROOT, audit_by_hand, connect
from holdfast_cli.terminal import JsonFlag, print_json, say
from holdfast_client import Holdfast

SAMPLES = 5
"""How many commits are compared, spread evenly over the history."""
GIT_TIMEOUT_SECONDS = 30

app = typer.Typer(help="See a service do what it promises.")


@app.callback()
def demo() -> None:
    """Keep `demo audit` a command with a name, and not all that `demo` does."""


@dataclass(frozen=True)
class Checked:
    """One commit: what Git says its tree is, and what the audit trail says."""

    commit: str
    time: str | None
    version: int
    files: int
    equal_by_version: bool
    equal_by_time: bool | None
    """None where a later commit bears an earlier date: no single tree belongs to that moment."""
    milliseconds: float

    @property
    def is_equal(self) -> bool:
        return self.equal_by_version and self.equal_by_time is not False


@app.command()
def audit(
    *,
    git: Annotated[Path | None, typer.Option(help="Any Git repository; this clone without it.")] = None,
    json: JsonFlag = False,
) -> int:
    """Import the history of a Git repository, compare past states with Git's own, search, erase, and prove it all."""
    with _repository(git) as repository, connect() as holdfast:
        stream = f"demo/{repository.name}"
        say(f"1. Import: every commit of {repository.path.name} becomes one event of the stream {stream}.")
        tally = import_items(
            holdfast.audit, repository.items(stream), batch_events=250, on_progress=lambda _tally: None
        )
        say(
            f"   {tally.events_read} events read, {tally.events_appended} appended, {tally.events_already_there} "
            f"already there, in {tally.seconds:.1f} s. Run this again: it appends 0, because it looks before it writes."
        )
        say(
            "2. Travel: the state at a commit is the fold of all events up to it. Git's own tree is the answer to meet."
        )
        checked = list(_check(holdfast, repository, stream))
        _tell(checked)
        is_equal = all(each.is_equal for each in checked)
        if is_equal:
            _explain(stream, checked[len(checked) // 2])
        more = demo_more.shown(holdfast, stream, max(tally.streams.values()))
    is_proven = is_equal and more.is_true
    if json:
        print_json(
            {
                "stream": stream,
                "import": tally.as_json(),
                "equal": is_equal,
                **msgspec.to_builtins(more),
                "states": [
                    {
                        "commit": each.commit,
                        "time": each.time,
                        "version": each.version,
                        "files": each.files,
                        "equal_by_version": each.equal_by_version,
                        "equal_by_time": each.equal_by_time,
                    }
                    for each in checked
                ],
            }
        )
    return ExitCode.OK if is_proven else ExitCode.FAILED


@contextmanager
def _repository(path: Path | None) -> Iterator[Repository]:
    if path is not None:
        yield Repository.at(path)
    elif _has_history(ROOT):
        yield Repository.at(ROOT)
    else:
        say("This copy of Holdfast has no Git history (a tarball?), so the demo makes a small repository to import.")
        with tempfile.TemporaryDirectory() as folder:
            yield _small_repository(Path(folder, f"small-{time.strftime('%H%M%S')}"))


def _has_history(folder: Path) -> bool:
    return (folder / ".git").exists() and _git(folder, "rev-parse", "--verify", "--quiet", "HEAD") == 0


def _small_repository(folder: Path) -> Repository:
    """Make a repository with an addition, a change, a rename and a removal in it."""
    folder.mkdir()
    _git(folder, "init", "--quiet")
    contents: Sequence[dict[str, str]] = (
        {"README": "A shop.\n", "prices.txt": "apple 1\n"},
        {"README": "A shop.\n", "prices.txt": "apple 1\npear 2\n"},
        {"README": "A good shop.\n", "shop/prices.txt": "apple 1\npear 2\n"},
        {"README": "A good shop, closed.\n"},
    )
    for number, files in enumerate(contents):
        _git(folder, "rm", "-r", "--quiet", "--ignore-unmatch", ".")
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        _git(folder, "add", "--all")
        author = ("-c", "user.name=Demo", "-c", "user.email=demo@example.com", "-c", "commit.gpgSign=false")
        _git(folder, *author, "commit", "--quiet", "--message", f"Step {number + 1}")
    return Repository.at(folder)


def _git(folder: Path, *arguments: str) -> int:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, timeout=GIT_TIMEOUT_SECONDS, check=False).returncode  # noqa: S603


@dataclass(frozen=True)
class _Place:
    """Where a commit lies in its stream, and whether its time alone names it."""

    commit: str
    time: str | None
    version: int
    is_datable: bool


def _places(repository: Repository, stream: str) -> list[_Place]:
    """Walk the history once more: a commit's version is the number of events up to its last one."""
    versions: dict[str, tuple[int, str | None]] = {}
    for version, item in enumerate(repository.items(stream), start=1):
        versions[item.event["id"].split("/")[0]] = (version, item.event.get("time"))
    times = [moment or "" for _, moment in versions.values()]
    latest = list(itertools.accumulate(times, max))
    soonest = list(itertools.accumulate(reversed(times), min))[::-1]
    # RFC 3339 texts of one form, all in UTC, sort as their moments do.
    return [
        _Place(
            commit,
            moment,
            version,
            is_datable=moment is not None
            and latest[index] == moment
            and (index + 1 == len(times) or moment < soonest[index + 1]),
        )
        for index, (commit, (version, moment)) in enumerate(versions.items())
    ]


def _check(holdfast: Holdfast, repository: Repository, stream: str) -> Iterator[Checked]:
    places = _places(repository, stream)
    chosen = sorted({round(index * (len(places) - 1) / (SAMPLES - 1)) for index in range(SAMPLES)})
    for place in (places[index] for index in chosen):
        tree = repository.tree(place.commit)
        started = time.monotonic()
        by_version = holdfast.audit.state(stream, version=place.version).state
        milliseconds = (time.monotonic() - started) * 1000
        by_time = holdfast.audit.state(stream, at=place.time).state == tree if place.is_datable else None
        yield Checked(place.commit, place.time, place.version, len(tree), by_version == tree, by_time, milliseconds)


def _tell(checked: Sequence[Checked]) -> None:
    for each in checked:
        told = {True: "equal", False: "DIFFERENT", None: "not asked (dates of this history overlap here)"}
        say(
            f"   version {each.version:>6}  {each.time}  {each.commit[:10]}  {each.files:>5} files   "
            f"by version: {told[each.equal_by_version]}   by time: {told[each.equal_by_time]}   "
            f"{each.milliseconds:.0f} ms"
        )


def _explain(stream: str, example: Checked) -> None:
    segment = stream.replace("/", "~")
    url, token = audit_by_hand()
    say(
        f"""3. What happened: each commit was stored as what it changed, {{path: object id, or null if removed}}, in an
   append-only stream, by one conditional write each batch. No tree was ever stored. Each state above was folded
   from those changes when it was asked for, and equals `git ls-tree -r` of the same commit.

   The same by hand, for {example.commit[:10]}:
     Git      git ls-tree -r {example.commit[:10]}
     CLI      ./holdfast audit state {stream} --version {example.version} --json
              ./holdfast audit state {stream} --at {example.time} --json
     curl     curl -H "Authorization: Bearer {token}" \\
                "{url}/v1/streams/{segment}/state?version={example.version}"
     Python   from holdfast_client import Holdfast
              Holdfast.local().audit.state("{stream}", version={example.version}).state"""
    )
