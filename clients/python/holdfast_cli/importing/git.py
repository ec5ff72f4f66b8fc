r"""
The first-parent history of any Git repository, read through the `git` program.

Each commit becomes what it changed against its first parent: `{path: object id}`, null for what it
removed. So the state after a commit is the tree of that commit, `git ls-tree -r`, gitlinks (the commit
of a submodule) and symbolic links included; a rename is a removal and an addition; a root commit adds
its whole tree, and so does the oldest commit of a shallow clone.

Choices, where Git leaves one:

* `time` is the committer's date, which says when the history got the commit. Neither date of Git is
  checked by anybody, and both may run backwards; the stream keeps the order of the history all the
  same. A date that RFC 3339 cannot write is left out, and the event's time is then its recorded time.
* `actor` is the author, written `Name <email>` as Git does.
* A path is its UTF-8 text. One that is no UTF-8, or holds a code point that JSON may not carry (RFC 7493), or begins
  with a quotation mark, is written as Git quotes it, `"caf\303\251"`: no two paths share a text.
"""

import os
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from holdfast_cli.failures import Failure
from holdfast_cli.importing.items import ATTRIBUTE_BYTES_MAX, Commit, DamagedError, Item, commit_items, stem_of

CHUNK_BYTES = 1 << 16
GIT_TIMEOUT_SECONDS = 60
"""For the questions that are answered at once; reading the history itself takes as long as it is long."""

_OTHER_REPOSITORY = frozenset(
    {"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE", "GIT_INDEX_FILE"}
    | {"GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_WORK_TREE"}
)
"""The variables of `git rev-parse --local-env-vars` that say where a repository lies."""

_HEADER = b"commit "
_LOG = (
    "log", "--first-parent", "--diff-merges=first-parent", "--reverse", "--root", "--raw", "-z", "--no-abbrev",
    "--no-renames", "--no-ext-diff", "--no-textconv", "--ignore-submodules=none", "--no-show-signature", "--no-notes",
    "--no-color", "--no-decorate", "--no-relative", "--encoding=UTF-8", "--format=commit %H%n%ct%n%an <%ae>",
)  # fmt: skip
"""Whatever a person's configuration could change in the output is said here."""


@dataclass(frozen=True)
class Repository:
    """A Git repository and the name that its history is kept under."""

    path: Path
    name: str

    @classmethod
    def at(cls, path: Path) -> "Repository":
        """
        Find the repository that *path* lies in; it is named after its folder.

        Raises:
            Failure: there is no git program, or no repository.
        """
        if not path.is_dir():
            raise Failure("not_a_repository", f"{path} is not a folder.")
        is_bare = _ask(path, "rev-parse", "--is-bare-repository") == "true"
        top = _ask(path, "rev-parse", "--absolute-git-dir" if is_bare else "--show-toplevel")
        folder = Path(top)
        return cls(folder, stem_of(folder.name.removesuffix(".git") or folder.parent.name))

    def count(self) -> int:
        """Count the commits of the first-parent history."""
        return int(_ask(self.path, "rev-list", "--count", "--first-parent", "HEAD"))

    def tree(self, commit: str) -> dict[str, str]:
        """Ask Git itself what the tree of *commit* is: the answer to compare a state with."""
        listing = _run(self.path, "ls-tree", "-r", "-z", "--full-tree", commit)
        entries = (entry.split(b"\t", 1) for entry in listing.split(b"\0") if entry)
        return {path_text(path): about.split()[2].decode() for about, path in entries}

    def items(self, stream: str | None) -> Generator[Item, None, None]:
        """
        Read the history, oldest commit first, one commit in memory at a time.

        Raises:
            DamagedError: git could not read on.
        """
        with closing(self.commits()) as commits:
            for commit in commits:
                where = f"commit {commit.id}"
                yield from commit_items(commit, where=where, stem=self.name, stream=stream or self.name)

    def commits(self) -> Generator[Commit, None, None]:
        with _reading(self.path, *_LOG, "HEAD") as output:
            tokens = _tokens(output)
            header: bytes | None = None
            values: dict[str, str | None] = {}
            for token in tokens:
                entry = token.lstrip(b"\n")
                if entry.startswith(b":"):
                    path = path_text(next(tokens, b""))
                    values[path] = _value_after(entry)
                elif entry.startswith(_HEADER):
                    if header is not None:
                        yield _commit(header, values)
                    header, values = entry, {}
            if header is not None:
                yield _commit(header, values)


def path_text(path: bytes) -> str:
    """Write a path of Git's so that JSON can carry it, and no two paths become one text."""
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        return _quoted(path)
    if text.startswith('"') or any(_is_noncharacter(ord(character)) for character in text):
        return _quoted(path)
    return text


def _quoted(path: bytes) -> str:
    plain = range(0x20, 0x7F)
    special = b'"\\'
    return '"' + "".join(chr(byte) if byte in plain and byte not in special else f"\\{byte:03o}" for byte in path) + '"'


def _is_noncharacter(code_point: int) -> bool:
    """Say whether Unicode sets it apart for no character (I-JSON, RFC 7493, section 2.1, forbids them)."""
    return 0xFDD0 <= code_point <= 0xFDEF or code_point & 0xFFFE == 0xFFFE  # noqa: PLR2004  the standard's own


def _value_after(entry: bytes) -> str | None:
    """Read `:<mode> <mode> <object> <object> <status>`: what the path names after the commit."""
    _old_mode, _new_mode, _old_object, new_object, status = entry.split(b" ")
    return None if status == b"D" else new_object.decode()


def _commit(header: bytes, values: dict[str, str | None]) -> Commit:
    commit_id, seconds, author = header.removeprefix(_HEADER).split(b"\n", 2)
    return Commit(commit_id.decode(), _time_text(int(seconds)), _actor(author), values)


def _time_text(seconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00") + "Z"
    except (ValueError, OverflowError, OSError):
        return None


def _actor(author: bytes) -> str:
    """Cut to what an attribute holds, never inside a character."""
    text = author.decode("utf-8", "replace").strip()
    return text.encode()[:ATTRIBUTE_BYTES_MAX].decode("utf-8", "ignore") or "unknown"


def _tokens(output: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while chunk := output.read(CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole
    if rest:
        yield rest


@contextmanager
def _reading(folder: Path, *arguments: str) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as errors:
        git = subprocess.Popen(_command(folder, *arguments), stdout=subprocess.PIPE, stderr=errors, env=_environment())  # noqa: S603
        assert git.stdout is not None  # noqa: S101  for the type checker: a pipe was asked for
        try:
            yield git.stdout
        except BaseException:
            git.kill()
            raise
        finally:
            git.stdout.close()
            status = git.wait(GIT_TIMEOUT_SECONDS)
        if status:
            errors.seek(0)
            raise DamagedError("the repository", errors.read().decode(errors="replace").strip())


def _ask(folder: Path, *arguments: str) -> str:
    return _run(folder, *arguments).decode(errors="surrogateescape").rstrip("\n")


def _run(folder: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603
            _command(folder, *arguments),
            capture_output=True,
            check=True,
            timeout=GIT_TIMEOUT_SECONDS,
            env=_environment(),
        )
    except FileNotFoundError as error:
        raise Failure("no_git", "The program git is not installed, and it alone reads Git's history.") from error
    except subprocess.TimeoutExpired as error:
        raise Failure("git_failed", f"git said nothing for {GIT_TIMEOUT_SECONDS} s in {folder}.") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise Failure("git_failed", f"git cannot read {folder}: {said}") from error
    return done.stdout


def _environment() -> dict[str, str]:
    """Leave out what would point git at another repository than the one that is named, as hooks are run with."""
    return {name: value for name, value in os.environ.items() if name not in _OTHER_REPOSITORY}


def _command(folder: Path, *arguments: str) -> list[str]:
    return ["git", "-C", str(folder), *arguments]
