"""Reading the log: heads, entries by position, where an event lies, and proofs of what the heads say."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from holdfast import proofs
from holdfast.dynamodb.attributes import ordered
from holdfast.dynamodb.reads import get, query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database
from holdfast.errors import Invalid, NotFound, Unavailable
from holdfast.log.blocks import Place, Watermark, block_of, places_from, watermark_of
from holdfast.log.heads import read_heads
from holdfast.log.segments import entries
from holdfast.log.tiles import Tiles
from holdfast.log.values import (
    PARTITIONS,
    SOLE,
    Entry,
    Head,
    block_key,
    entries_of,
    segment_key,
    watermark_key,
)
from holdfast.streams import check_stream


class Inclusion(msgspec.Struct, frozen=True):
    """That a leaf is in the tree of *size* leaves with this root."""

    leaf: int
    size: int
    path: tuple[bytes, ...]
    root: bytes


class Consistency(msgspec.Struct, frozen=True):
    """That the tree of *second* leaves begins with that of *first* leaves."""

    first: int
    second: int
    path: tuple[bytes, ...]
    root_first: bytes
    root_second: bytes


@dataclass(frozen=True)
class LogReader:
    """One tenant's log."""

    database: Database
    tables: Tables
    tenant: str

    def heads(self) -> list[Head]:
        """Read the heads of all partitions, in order; an empty one where nothing was indexed yet."""
        return read_heads(self.database, self.tables, [(self.tenant, partition) for partition in range(PARTITIONS)])

    def head(self, partition: int) -> Head:
        """
        Read how far a partition has come.

        Raises:
            NotFound: `partition_not_found`.
        """
        check_partition(partition)
        return read_heads(self.database, self.tables, [(self.tenant, partition)])[0]

    def entries(
        self, partition: int, after: int = 0, *, until: int | None = None, first_page: int | None = None
    ) -> Iterator[Entry]:
        """Yield the commits that hold positions beyond *after*, in order, read as they are asked for."""
        check_partition(partition)
        return entries(self.database, self.tables, self.tenant, partition, after, until=until, first_page=first_page)

    def segment(self, partition: int, last_position: int) -> Iterator[Entry]:
        """Yield the commits of the one segment that ends at *last_position*; none if there is none."""
        row = get(self.database, self.tables.log, segment_key(self.tenant, partition), ordered(last_position))
        if row:
            yield from entries_of(partition, row["first"], row["leaf"], row["refs"])

    def watermark(self, stream: str) -> Watermark:
        """Say how far the log holds a stream."""
        return watermark_of(get(self.database, self.tables.log, watermark_key(self.tenant, check_stream(stream)), SOLE))

    def place_of(self, stream: str, version: int) -> Place:
        """
        Find the leaf of the commit that holds *version*.

        Raises:
            Unavailable: `not_in_log_yet`; the indexer has not come so far, or there is no such version.
        """
        watermark = self.watermark(stream)
        if version > watermark.version:
            raise Unavailable(
                "not_in_log_yet", f"The log holds {stream!r} up to version {watermark.version} by now; repeat.",
                retry_after_seconds=1,
            )  # fmt: skip
        if version >= watermark.open_from:
            places = places_from(watermark.open_from, watermark.places)
        else:
            pk = block_key(self.tenant, stream, 0)
            rows = query(self.database, self.tables.log, pk, until=ordered(version), newest_first=True, limit=1)
            block = block_of(next(rows), 0)
            places = places_from(block.first_version, block.places)
        return next(place for place in places if place.first_version + place.events > version)

    def inclusion(self, partition: int, leaf: int, size: int | None = None) -> Inclusion:
        """
        Prove that *leaf* is in the tree of *size* leaves, by default all of them (RFC 9162, section 2.1.3).

        Raises:
            Invalid: `invalid_range`.
        """
        head = self.head(partition)
        size = head.size if size is None else size
        if not 0 <= leaf < size <= head.size:
            raise _invalid_range(head)
        tiles = self._tiles(partition)
        needed = {*proofs.needed_for_inclusion(leaf, size), *proofs.perfect_subtrees(size)}
        nodes = tiles.nodes(needed, head)
        path = proofs.inclusion_path(leaf, size, nodes)
        return Inclusion(leaf, size, tuple(path), proofs.root_at(size, nodes))

    def consistency(self, partition: int, first: int, second: int) -> Consistency:
        """
        Prove that the tree of *first* leaves is where that of *second* leaves began (RFC 9162, section 2.1.4).

        Raises:
            Invalid: `invalid_range`.
        """
        head = self.head(partition)
        if not 0 < first <= second <= head.size:
            raise _invalid_range(head)
        needed = {
            *proofs.needed_for_consistency(first, second),
            *proofs.perfect_subtrees(first),
            *proofs.perfect_subtrees(second),
        }
        nodes = self._tiles(partition).nodes(needed, head)
        path = proofs.consistency_path(first, second, nodes)
        return Consistency(first, second, tuple(path), proofs.root_at(first, nodes), proofs.root_at(second, nodes))

    def _tiles(self, partition: int) -> Tiles:
        return Tiles(self.database, self.tables, self.tenant, partition)


def check_partition(partition: int) -> int:
    if 0 <= partition < PARTITIONS:
        return partition
    raise NotFound("partition_not_found", f"A log has the partitions 0 to {PARTITIONS - 1}.")


def _invalid_range(head: Head) -> Invalid:
    return Invalid("invalid_range", f"Ask for sizes from 1 to {head.size}, the smaller first.", size=head.size)


__all__ = ["Consistency", "Inclusion", "LogReader", "check_partition"]
