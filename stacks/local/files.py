"""Small files: JSON that is whole or absent, whoever is killed when, and the ends of logs."""

import os
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")

LINES_SHOWN = 15
"""Of a log, in an error message."""


def write(path: Path, value: object) -> None:
    """Write a value as JSON; a reader sees the old file or the new one, never a part."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file readable by its owner alone, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp makes the file with mode 600, so a secret is never readable for a moment.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: Path, kind: type[T]) -> T | None:
    """Read a value; None if there is no file, or if it is not one of ours."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def last_lines(log_file: Path, count: int = LINES_SHOWN) -> str:
    """Give the end of a log, for an error message; nothing if there is none."""
    try:
        return "\n".join(log_file.read_text(errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return ""
