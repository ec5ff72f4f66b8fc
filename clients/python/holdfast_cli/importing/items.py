"""What every source of history is read into: items, each an event for a stream, with a name that a person can find."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast_client.errors import Invalid
from holdfast_client.events import json_bytes, stream_path

COMMIT_TYPE = "holdfast.history.commit.v1"

SPLIT_MEMBERS_MAX = 5_000
SPLIT_BYTES_MAX = 200_000
"""
A commit that changes more than fits one event (10,000 members, 256 KB) becomes several.

Both bounds decide where events begin and end, so they are part of what was imported: changing them
makes a second import of such a history contradict the first.
"""

ATTRIBUTE_BYTES_MAX = 512
"""The longest `source`, `type`, `subject` and `actor` that the audit trail takes."""


@dataclass(frozen=True)
class Item:
    """One event on its way into *stream*."""

    where: str
    """`line 12`, or `commit 3b71375e…`: how an error names it."""
    stream: str
    event: Mapping[str, Any]
    bytes: int
    owns_source: bool
    """Every event of this history has this one `source`, so events of another are somebody else's, and passed over."""


class DamagedError(Exception):
    """The history cannot be read beyond here; what came before is good."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


def make_item(where: str, stream: str, event: Mapping[str, Any], *, owns_source: bool) -> Item:
    try:
        stream_path(stream)
        return Item(where, stream, event, len(json_bytes(event)), owns_source)
    except Invalid as error:
        raise DamagedError(where, error.detail) from error


@dataclass(frozen=True)
class Commit:
    """One commit of a history: the value that each changed path has after it, None where it is gone."""

    id: str
    time: str | None
    actor: str
    values: Mapping[str, str | None]


def commit_items(commit: Commit, *, where: str, stem: str, stream: str) -> Iterator[Item]:
    """Make a commit's events: one, or `<id>`, `<id>/2`, … of the same time where it is too much for one."""
    for part, values in enumerate(split(commit.values), start=1):
        event = {
            "specversion": "1.0",
            "id": commit.id if part == 1 else f"{commit.id}/{part}",
            "source": source_of(stem),
            "type": COMMIT_TYPE,
            "subject": stem,
            "actor": commit.actor,
            "data": values,
        }
        if commit.time is not None:
            event["time"] = commit.time
        yield make_item(where, stream, event, owns_source=True)


def split(values: Mapping[str, str | None]) -> Iterator[dict[str, str | None]]:
    """Cut *values* into parts within the bounds of one event; nothing at all is still one part."""
    part: dict[str, str | None] = {}
    part_bytes = 0
    for name, value in values.items():
        member_bytes = len(json_bytes({name: value}))
        if part and (len(part) >= SPLIT_MEMBERS_MAX or part_bytes + member_bytes > SPLIT_BYTES_MAX):
            yield part
            part, part_bytes = {}, 0
        part[name] = value
        part_bytes += member_bytes
    yield part


def source_of(stem: str) -> str:
    return f"urn:holdfast:import:{stem}"


def stem_of(name: str) -> str:
    """Make the name of a file or folder fit to name a stream: `C++ notes` is `C++-notes`."""
    stem = re.sub(r"[^A-Za-z0-9._:@+-]+", "-", name)[:120].strip("-")
    return stem if stem.strip(".") else "import"
