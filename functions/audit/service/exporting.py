"""Exports: a partition of the log with all its events, page by page, to be checked without us."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from holdfast.cursors import Cursors


class LinesPage(Protocol):
    """Lines, and where the next page begins; None where the log ends."""

    @property
    def lines(self) -> list[msgspec.Raw]: ...
    @property
    def following(self) -> object | None: ...


class Lines(Protocol):
    """One tenant's log as lines."""

    def page(self, partition: int, from_leaf: int, following: Any) -> LinesPage:
        """
        Write a page, which goes on at what the one before has named as *following*; None for the first.

        Raises:
            NotFound: `partition_not_found`.
            Invalid: `invalid_range`.
        """


class Exported(msgspec.Struct, frozen=True):
    lines: list[msgspec.Raw]
    cursor: str | None


@dataclass(frozen=True)
class Exports:
    """One tenant's exports."""

    tenant: str
    lines: Lines
    cursors: Callable[[], Cursors]

    def page(self, partition: int, from_leaf: int, cursor: str | None) -> Exported:
        """
        Export a page; a cursor goes on with the export that it was made for, and no other.

        Raises:
            NotFound: `partition_not_found`.
            Invalid: `invalid_range`, `invalid_cursor`.
        """
        query = ("export", partition, from_leaf)
        opened = None if cursor is None else self.cursors().open(self.tenant, query, cursor)
        page = self.lines.page(partition, from_leaf, opened)
        following = None if page.following is None else self.cursors().seal(self.tenant, query, page.following)
        return Exported(page.lines, following)
