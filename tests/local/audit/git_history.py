"""A Git repository made by a seed: adds, edits, deletes, renames, odd names, equal times, merges."""

import os
import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

START = 1_200_000_000
NAMES = [
    "a.txt",
    "src/b.py",
    "src/c d.py",
    "docs/é.md",
    "docs/'quoted'.md",
    "deep/er/est/f",
    'tab\tand"quote',
    "~tilde",
]


def git(repository: Path, *arguments: str, told: str | None = None) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(repository), "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, input=told, timeout=60
    ).stdout


def make(repository: Path, *, commits: int, seed: int) -> None:
    """Make *commits* first-parent commits: every tenth a merge, every third at the same time as the one before."""
    chance = random.Random(seed)
    script, present, when = Script(), list[str](), START
    for number in range(commits):
        when += 0 if number % 3 == 2 else chance.randrange(1, 100_000)
        if number % 10 == 9:
            aside = [f"M 100644 inline side-{number}", *content(f"{chance.random()}\n")]
            side = script.commit(f"refs/heads/side-{number}", when, "aside", [*script.onto_main(), *aside])
            script.commit("refs/heads/main", when, f"merge {number}", [*script.onto_main(), f"merge :{side}", *aside])
            present.append(f"side-{number}")
        else:
            changes = _change(chance, present, number)
            script.commit("refs/heads/main", when, f"change {number}", [*script.onto_main(), *changes])
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "fast-import", "--quiet", told="\n".join([*script.lines, "done", ""]))


@dataclass
class Script:
    """What `git fast-import` is told: one process makes all commits."""

    lines: list[str] = field(default_factory=list)
    marks: int = 0
    main: int = 0
    """The newest commit of the main branch; 0 before the first."""

    def onto_main(self) -> list[str]:
        return [f"from :{self.main}"] if self.main else []

    def commit(self, branch: str, when: int, message: str, body: Sequence[str]) -> int:
        self.marks += 1
        who = f"Ann <ann@example.org> {when} +0100"
        head = [f"commit {branch}", f"mark :{self.marks}", f"author {who}", f"committer {who}", *content(message)]
        self.lines += [*head, *body]
        if branch == "refs/heads/main":
            self.main = self.marks
        return self.marks


def content(text: str) -> list[str]:
    return [f"data {len(text.encode())}", text]


def _change(chance: random.Random, present: list[str], number: int) -> list[str]:
    """Write, delete or rename a file, or nothing; *present* is what there is."""
    path = chance.choice(NAMES)
    match chance.choice(["write", "write", "write", "delete", "rename", "nothing"]):
        case "delete" if present:
            return [f"D {_quoted(present.pop(chance.randrange(len(present))))}"]
        case "rename" if present:
            gone = present.pop(chance.randrange(len(present)))
            present.append(f"renamed-{number}")
            return [f"R {_quoted(gone)} renamed-{number}"]
        case "nothing":
            return []
        case _:
            if path not in present:
                present.append(path)
            return [f"M 100644 inline {_quoted(path)}", *content(f"{number} {chance.random()}\n")]


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return f'"{escaped}"'


def tree(repository: Path, commit: str) -> dict[str, str]:
    """Ask Git itself what a commit holds: path and blob."""
    entries = git(repository, "ls-tree", "-r", "-z", commit).split("\0")
    return {path: facts.split()[2] for facts, path in (entry.split("\t", 1) for entry in entries if entry)}


def first_parents(repository: Path) -> list[tuple[str, int]]:
    """List first-parent commits, oldest first, with their times."""
    lines = git(repository, "log", "--first-parent", "--reverse", "--format=%H %ct").splitlines()
    return [(commit, int(when)) for commit, when in (line.split() for line in lines)]
