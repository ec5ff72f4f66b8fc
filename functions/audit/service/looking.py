"""Looking at the log: its commits in their order, and what is stored that it does not hold."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

import msgspec

from holdfast.cursors import Cursors
from holdfast.log.values import Entry, Head

MISSING: Final = ("missing",)
"""What a cursor of a walk is bound to: there is one walk."""


class Log(Protocol):
    """One tenant's log (`holdfast.log.LogReader`)."""

    def head(self, partition: int) -> Head: ...
    def entries(self, partition: int, after: int = 0, *, until: int | None = None) -> Iterator[Entry]: ...


class Behind(Protocol):
    """A stream that goes on beyond what the log holds of it."""

    @property
    def stream(self) -> str: ...
    @property
    def logged(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def commits(self) -> int: ...


class Slice(Protocol):
    """A part of what is stored, and where the next one begins."""

    @property
    def behind(self) -> Sequence[Behind]: ...
    @property
    def commits(self) -> int: ...
    @property
    def following(self) -> dict[str, Any] | None: ...


class Walk(Protocol):
    """A walk over what one tenant has stored, beside what its log holds (`holdfast.log.missing.Missing`)."""

    def slice(self, start: dict[str, Any] | None) -> Slice: ...


class LogPage(msgspec.Struct, frozen=True):
    """Commits of a partition; *next_after* is where the next page begins, None at the head that is told."""

    entries: tuple[Entry, ...]
    next_after: int | None
    head: Head


class MissingPage(msgspec.Struct, frozen=True):
    """Streams of which the log lacks commits; the end is where there is no cursor, and not where there are none."""

    behind: Sequence[Behind]
    commits: int
    cursor: str | None


@dataclass(frozen=True)
class Looking:
    """One tenant's log."""

    tenant: str
    log: Log
    walk: Walk
    cursors: Callable[[], Cursors]

    def page(self, partition: int, *, after: int, limit: int) -> LogPage:
        """
        Read the commits that hold positions beyond *after*, up to where the partition ended when it was asked.

        Raises:
            NotFound: `partition_not_found`.
        """
        head = self.log.head(partition)
        entries = tuple(islice(self.log.entries(partition, after, until=head.position), limit))
        follows = bool(entries) and entries[-1].last_position < head.position
        return LogPage(entries, entries[-1].last_position if follows else None, head)

    def missing(self, cursor: str | None) -> MissingPage:
        """
        Look at the next slice of what is stored.

        Raises:
            Invalid: `invalid_cursor`.
        """
        start = None if cursor is None else self.cursors().open(self.tenant, MISSING, cursor)
        found = self.walk.slice(start)
        if found.following is None:
            return MissingPage(found.behind, found.commits, None)
        # Where a walk stands is another tenant's as likely as not.
        following = self.cursors().seal(self.tenant, MISSING, found.following, hidden=True)
        return MissingPage(found.behind, found.commits, following)
