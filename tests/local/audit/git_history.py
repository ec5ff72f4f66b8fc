"""A Git repository made by a seed: adds, edits, deletes, renames, odd names, equal times, merges."""

import os
import random
import subprocess
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


def git(repository: Path, *arguments: str, when: int = START) -> str:
    author = {"NAME": "Ann", "EMAIL": "ann@example.org", "DATE": f"{when} +0100"}
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(repository),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in author.items()},
    }
    command = ["git", "-C", str(repository), "-c", "commit.gpgsign=false", *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


def make(repository: Path, *, commits: int, seed: int) -> None:
    """Make *commits* first-parent commits: every tenth a merge, every third at the same time as the one before."""
    chance = random.Random(seed)
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    when = START
    for number in range(commits):
        when += 0 if number % 3 == 2 else chance.randrange(1, 100_000)
        if number % 10 == 9:
            _merge(repository, chance, number, when)
        else:
            _change(repository, chance, number)
            git(repository, "add", "--all", when=when)
            git(repository, "commit", "--quiet", "--allow-empty", "--message", f"change {number}", when=when)


def tree(repository: Path, commit: str) -> dict[str, str]:
    """Ask Git itself what a commit holds: path and blob."""
    entries = git(repository, "ls-tree", "-r", "-z", commit).split("\0")
    return {path: facts.split()[2] for facts, path in (entry.split("\t", 1) for entry in entries if entry)}


def first_parents(repository: Path) -> list[tuple[str, int]]:
    """List first-parent commits, oldest first, with their times."""
    lines = git(repository, "log", "--first-parent", "--reverse", "--format=%H %ct").splitlines()
    return [(commit, int(when)) for commit, when in (line.split() for line in lines)]


def _change(repository: Path, chance: random.Random, number: int) -> None:
    present = [path for path in repository.rglob("*") if path.is_file() and ".git" not in path.parts]
    path = repository / chance.choice(NAMES)
    match chance.choice(["write", "write", "write", "delete", "rename", "nothing"]):
        case "delete" if present:
            chance.choice(present).unlink()
        case "rename" if present:
            chance.choice(present).rename(repository / f"renamed-{number}")
        case "nothing":
            pass
        case _:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number} {chance.random()}\n")


def _merge(repository: Path, chance: random.Random, number: int, when: int) -> None:
    git(repository, "checkout", "--quiet", "-b", f"side-{number}")
    (repository / f"side-{number}").write_text(f"{chance.random()}\n")
    git(repository, "add", "--all", when=when)
    git(repository, "commit", "--quiet", "--message", "aside", when=when)
    git(repository, "checkout", "--quiet", "main")
    git(repository, "merge", "--quiet", "--no-ff", "--message", f"merge {number}", f"side-{number}", when=when)
