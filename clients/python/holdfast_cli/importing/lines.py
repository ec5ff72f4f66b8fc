"""
Histories in JSON lines, plain or gzip, of two kinds, told apart line by line.

A CloudEvent goes in as it is. A history line `{seq, at, actor, commit, changes[]}` becomes one event
whose data is `{path: blob}`, null where a file was deleted, so that the fold of the stream is the tree.
"""

import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

import msgspec

from holdfast_cli.importing.items import Commit, DamagedError, Item, commit_items, make_item

LINE_BYTES_MAX = 4 * 1024 * 1024
"""No event comes near it; it bounds what a file without newlines can take of memory."""

GZIP_MAGIC = b"\x1f\x8b"

VALUE_AFTER = {"added": "blob", "modified": "blob", "deleted": None}
"""The member of a change that holds the path's value after it; an operation that is not here is refused."""


class _Change(msgspec.Struct, frozen=True):
    op: str
    path: str
    blob: str | None = None


class _HistoryLine(msgspec.Struct, frozen=True):
    at: str
    actor: str
    commit: str
    changes: list[_Change]


@dataclass(frozen=True)
class Naming:
    """Which stream a line goes to: the one that is named, else the line's own attribute."""

    stream: str | None
    stream_from: str
    stem: str

    def stream_of(self, event: dict[str, Any]) -> str:
        name = self.stream or event.get(self.stream_from)
        if not isinstance(name, str):
            raise ValueError(  # noqa: TRY004
                f"it has no attribute {self.stream_from!r} that could name a stream; "
                "name one with --stream, or another attribute with --stream-from"
            )
        return name


def read_items(raw: BinaryIO, naming: Naming) -> Iterator[Item]:
    """
    Read the items of a file, one line in memory at a time.

    Raises:
        DamagedError: a line is no JSON, or neither kind of line, or the file ends inside one.
    """
    for number, line in _numbered_lines(raw):
        where = f"line {number}"
        try:
            value = _json_object(line)
            if "changes" in value and "specversion" not in value:
                yield from _history_items(value, where, naming)
            else:
                yield _cloudevent_item(value, where, naming)
        except (ValueError, RecursionError) as error:
            raise DamagedError(where, _why(error)) from error


def _why(error: Exception) -> str:
    # json's own message counts lines too, and every line here is its first.
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _numbered_lines(raw: BinaryIO) -> Iterator[tuple[int, bytes]]:
    stream = _decompressed(raw)
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(LINE_BYTES_MAX + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise DamagedError(f"line {number}", f"the compressed file is damaged here ({error})") from error
        if not line:
            return
        if len(line) > LINE_BYTES_MAX:
            raise DamagedError(f"line {number}", f"it is longer than {LINE_BYTES_MAX} bytes")
        if line.strip():
            yield number, line


def _decompressed(raw: BinaryIO) -> BinaryIO:
    """Look at the first bytes rather than at the name: stdin has none, and a name can be wrong."""
    buffered = io.BufferedReader(raw) if isinstance(raw, io.RawIOBase) else raw
    head = buffered.peek(len(GZIP_MAGIC)) if isinstance(buffered, io.BufferedReader) else b""
    if head[: len(GZIP_MAGIC)] != GZIP_MAGIC:
        return buffered
    unzipped: BinaryIO = io.BufferedReader(gzip.GzipFile(fileobj=buffered))
    return unzipped


def _history_items(value: dict[str, Any], where: str, naming: Naming) -> Iterator[Item]:
    line = msgspec.convert(value, _HistoryLine)
    commit = Commit(line.commit, line.at, line.actor, {change.path: _value_after(change) for change in line.changes})
    stream = naming.stream_of({**value, "subject": naming.stem})
    return commit_items(commit, where=where, stem=naming.stem, stream=stream)


def _value_after(change: _Change) -> str | None:
    if change.op not in VALUE_AFTER:
        raise ValueError(f"it holds a change of an unknown kind, {change.op!r}; known are {', '.join(VALUE_AFTER)}")
    if VALUE_AFTER[change.op] is None:
        return None
    if change.blob is None:
        raise ValueError(f"the change of {change.path!r} has no blob")
    return change.blob


def _cloudevent_item(event: dict[str, Any], where: str, naming: Naming) -> Item:
    for name in ("id", "source", "type"):
        if not isinstance(event.get(name), str):
            why = f"it is neither a history line nor a CloudEvent: it has no {name!r}"
            raise ValueError(why)  # noqa: TRY004
    return make_item(where, naming.stream_of(event), event, owns_source=False)


def _json_object(line: bytes) -> dict[str, Any]:
    """Read JSON that means one thing: parsing and writing it again must not hide what the service would refuse."""
    value = json.loads(
        line.decode("utf-8"),
        object_pairs_hook=_unique_members,
        parse_constant=_no_constant,
        parse_float=_finite_float,
    )
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  what is wrong is a value, in a file
    return value


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return members


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is beyond every double")
    return value
