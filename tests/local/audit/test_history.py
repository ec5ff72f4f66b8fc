"""Real history through the deployed stack: imported by the command line, asked for over HTTP, against Git itself."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdfast_client import Holdfast
from holdfast_client.events import RecordedEvent
from tests.local.audit import git_history

ROOT = Path(__file__).parents[3]
COMMITS = 200
SAMPLED = 20
IMPORT_SECONDS_MAX = 120
LINES = 1_500
"""Of an import that is killed a few times before it is through."""


@pytest.fixture
def holdfast(stack) -> Iterator[Holdfast]:
    with Holdfast(stack.running.gateway_url, stack.token) as holdfast:
        yield holdfast


@pytest.fixture
def run(stack) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a user would, against the tests' own stack."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "holdfast_cli", *arguments],
            env=environment(stack),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=IMPORT_SECONDS_MAX,
            check=False,
            **options,
        )

    return run


def environment(stack: Any) -> dict[str, str]:
    paths = (ROOT, ROOT / "clients/python", ROOT / "layers/holdfast/python")
    return {**os.environ, "HOLDFAST_HOME": str(stack.home), "PYTHONPATH": os.pathsep.join(map(str, paths))}


def imported(run: Callable[..., Any], *arguments: str) -> dict[str, Any]:
    done = run("audit", "import", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@pytest.mark.parametrize("kind", ["made by a seed", "this project's own"])
def test_every_sampled_state_of_a_git_history_is_what_git_says(run, holdfast, tmp_path, kind):
    repository = tmp_path / "made"
    if kind == "made by a seed":
        git_history.make(repository, commits=COMMITS, seed=7)
    else:
        try:
            git_history.git(tmp_path, "clone", "--quiet", "--no-local", str(ROOT), str(repository))
        except subprocess.CalledProcessError:
            # A stranger's tarball has no history of its own; a second made one stands in, and says so.
            print("No clone here: a second repository made by another seed stands in.")  # noqa: T201
            git_history.make(repository, commits=COMMITS, seed=8)
    stream = f"git-{kind.replace(' ', '-').replace(chr(39), '')}/{os.getpid()}"

    first = imported(run, "--git", str(repository), "--stream", stream)
    again = imported(run, "--git", str(repository), "--stream", stream)

    commits = git_history.first_parents(repository)
    assert first["events_appended"] == first["streams"][stream] >= len(commits)
    assert (again["events_appended"], again["events_already_there"]) == (0, first["events_read"])
    sampled = set(random.Random(1).sample(range(len(commits)), min(SAMPLED, len(commits))))
    by_time = 0
    versions = {event.id: event.streamversion for event in holdfast.audit.events(stream)}
    latest = 0
    for index, (commit, when) in enumerate(commits):
        latest = max(latest, when)
        if index not in sampled:
            continue
        expected = git_history.tree(repository, commit)
        assert holdfast.audit.state(stream, version=versions[commit]).state == expected
        is_last_of_its_time = all(other > when for _, other in commits[index + 1 :])
        if when == latest and is_last_of_its_time:
            assert holdfast.audit.state(stream, at=moment(when)).state == expected
            by_time += 1
    assert by_time >= SAMPLED // 4


def made_history(path: Path, lines: int) -> None:
    """Write a history file: one change a line, some of none, some at the same time, names that need care."""
    chance = random.Random(3)
    with gzip.open(path, "wt") as file:
        for number in range(lines):
            at = moment(git_history.START + 60 * (number - number % 3))
            changes = [
                {
                    "op": chance.choice(["added", "modified", "deleted"]),
                    "path": chance.choice(git_history.NAMES),
                    "blob": f"{chance.getrandbits(160):040x}",
                    "mode": "100644",
                }
                for _ in range(chance.randrange(4))
            ]
            file.write(
                json.dumps(
                    {
                        "seq": number,
                        "at": at,
                        "actor": f"author-{number % 7}",
                        "commit": f"{number:040x}",
                        "changes": changes,
                    }
                )
                + "\n"
            )


def test_an_import_that_is_killed_and_run_again_ends_with_exactly_the_same_stream(stack, run, holdfast, tmp_path):
    path = tmp_path / "long.jsonl.gz"
    made_history(path, LINES)
    stream = f"killed/{os.getpid()}"
    arguments = ["audit", "import", str(path), "--stream", stream, "--batch", "20", "--json"]
    killed = 0
    for seconds in (0.5, 0.7, 0.9, 1.1):
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast_cli", *arguments],
            env=environment(stack),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        killed += process.wait(timeout=30) == -signal.SIGKILL
    assert killed > 0

    final = imported(run, str(path), "--stream", stream, "--batch", "250")
    whole = imported(run, str(path), "--stream", stream + "-whole")

    assert final["events_appended"] + final["events_already_there"] == LINES
    assert [without_place(event) for event in holdfast.audit.events(stream)] == [
        without_place(event) for event in holdfast.audit.events(stream + "-whole")
    ]
    assert whole["streams"] == {stream + "-whole": LINES}


def without_place(event: RecordedEvent) -> dict[str, Any]:
    """Leave out what differs between two imports of the same line: where and when it was recorded."""
    return {
        name: value for name, value in event.cloudevent.items() if name not in {"commitid", "commithash", "recordedat"}
    }


def test_a_damaged_line_stops_with_its_number_and_keeps_what_came_before(run, holdfast, tmp_path):
    path = tmp_path / "damaged.jsonl.gz"
    made_history(path, 30)
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[17] = lines[17][:40]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    stream = f"damaged/{os.getpid()}"

    done = run("audit", "import", str(path), "--stream", stream)

    assert done.returncode == 1
    assert "line 18" in done.stderr.lower()
    assert "holdfast audit import" in done.stderr.replace("\n", " ")
    assert len(list(holdfast.audit.events(stream))) == 17


def test_lines_that_contradict_the_stream_stop_the_import(run, tmp_path):
    path = tmp_path / "told.jsonl.gz"
    made_history(path, 10)
    stream = f"contradicted/{os.getpid()}"
    imported(run, str(path), "--stream", stream)
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    told = json.loads(lines[4])
    lines[4] = json.dumps({**told, "actor": "somebody else"})
    path.write_bytes(gzip.compress("\n".join(lines).encode()))

    done = run("audit", "import", str(path), "--stream", stream)

    assert done.returncode == 1
    assert "line 5" in done.stderr.lower()


def test_a_state_is_printed_alone_as_json(run, tmp_path):
    path = tmp_path / "told.jsonl.gz"
    made_history(path, 10)
    stream = f"printed/{os.getpid()}"
    imported(run, str(path), "--stream", stream)

    done = run("audit", "state", stream, "--version", "10", "--json")

    assert done.returncode == 0
    assert isinstance(json.loads(done.stdout), dict)
