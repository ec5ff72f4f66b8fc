"""
Tiles: the log's Merkle tree in rows of 256 hashes, so that a proof reads a handful of rows however large the log is.

A tile of level 0 holds 256 leaf hashes, one of level n + 1 the roots of 256 tiles of level n. A tile of level 0 is
written when its last leaf is there, together with its root's place in the tile above, in one transaction; so a tile's
root is never missing where the tile is there. Tiles repeat what the segments say: whoever misses one makes it.
(The layout is that of RFC 6962 logs served as tiles; see C2SP, "Tiled Transparency Logs".)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from holdfast.dynamodb.attributes import ordered, to_item
from holdfast.dynamodb.reads import Row, RowKey, get_many, query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database, carry_out, put_action, update_action
from holdfast.errors import Unavailable
from holdfast.log.segments import entries
from holdfast.log.values import Head, tile_key
from holdfast.proofs import TILE_HASHES, Node, TileSpan, node_in_tile, tile_of, tile_root
from holdfast.streams.companions import Change, Is

TILES_MAX: Final = 1_000
"""Tiles made in one call; the next call goes on."""


NO_TILE: Final[Row] = {"n": 0, "hashes": b""}


@dataclass(frozen=True)
class Tiles:
    """The tiles of one partition."""

    database: Database
    tables: Tables
    tenant: str
    partition: int

    def extend(self, head: Head) -> None:
        """
        Make the tiles that are full and not there yet.

        May be repeated, and run beside itself.
        """
        newest = next(query(self.database, self.tables.log, self._pk, prefix="0#", newest_first=True, limit=1), None)
        index, position = (int(newest["sk"][2:]) + 1, newest["pos"]) if newest else (0, 0)
        for _ in range(TILES_MAX):
            if head.size < (index + 1) * TILE_HASHES:
                return
            leaves = list(
                islice(entries(self.database, self.tables, self.tenant, self.partition, position), TILE_HASHES)
            )
            hashes = b"".join(entry.reference.leaf_hash for entry in leaves)
            position = leaves[-1].last_position
            self._put(index, hashes, position)
            index += 1

    def _put(self, index: int, hashes: bytes, position: int) -> None:
        """Put one tile of level 0 and its root's place in the tiles above; somebody else's is the same."""
        tile = {"n": TILE_HASHES, "hashes": hashes, "pos": position}
        actions: list[Mapping[str, Any]] = [{"Put": put_action(self.tables.log, to_item(self._key(0, index) | tile))}]
        level, at = 1, index
        while True:
            place, offset = divmod(at, TILE_HASHES)
            above = self._read([(level, place)]).get((level, place), NO_TILE)
            if above["n"] != offset:
                return  # another writer is ahead, and has put this tile
            hashes = above["hashes"] + tile_root(hashes)
            actions.append(self._grown(level, place, offset, hashes))
            if offset + 1 < TILE_HASHES:
                break
            level, at = level + 1, place
        carry_out(self.database, actions)

    def _grown(self, level: int, index: int, before: int, hashes: bytes) -> Mapping[str, Any]:
        key, row = self._key(level, index), {"n": before + 1, "hashes": hashes}
        if before == 0:
            return {"Put": put_action(self.tables.log, to_item(key | row))}
        return {"Update": update_action(self.tables.log, Change(key, (Is("n", before),), set=row))}

    def nodes(self, needed: Iterable[Node], head: Head) -> dict[Node, bytes]:
        """Read the hashes of perfect subtrees that lie within *head*; they never change."""
        spans = {node: tile_of(*node) for node in needed}
        open_tile = (0, head.size // TILE_HASHES)
        tiles = {span.tile for span in spans.values()}
        rows = self._read(tiles - {open_tile})
        if self._lacks(rows, spans.values(), open_tile):
            self.extend(head)  # whoever was to make them was stopped before
            rows = self._read(tiles - {open_tile})
        if self._lacks(rows, spans.values(), open_tile):
            raise Unavailable("not_in_log_yet", "The log's tree is still being made up; repeat.", retry_after_seconds=1)
        if open_tile in tiles:
            rows[open_tile] = self._open_tile(open_tile[1], head)
        return {node: node_in_tile(rows[span.tile]["hashes"], *node) for node, span in spans.items()}

    @staticmethod
    def _lacks(rows: Mapping[Node, Row], spans: Iterable[TileSpan], open_tile: Node) -> bool:
        """Tell whether a hash is missing that a tile should have; the open one is made, not read."""
        return any(
            rows.get(span.tile, NO_TILE)["n"] < span.first + span.count for span in spans if span.tile != open_tile
        )

    def _open_tile(self, index: int, head: Head) -> Row:
        """Make the tile at the right edge, which is not full, of the segments."""
        before = self._read([(0, index - 1)]).get((0, index - 1)) if index else {"pos": 0}
        if before is None:
            self.extend(head)
            before = self._read([(0, index - 1)])[0, index - 1]
        found = entries(self.database, self.tables, self.tenant, self.partition, before["pos"], until=head.position)
        return {"hashes": b"".join(entry.reference.leaf_hash for entry in found)}

    def _read(self, tiles: Iterable[Node]) -> dict[Node, Row]:
        keys: dict[RowKey, Node] = {(self.tables.log, self._pk, _sk(*tile)): tile for tile in tiles}
        return {keys[key]: row for key, row in get_many(self.database, list(keys)).items()}

    @property
    def _pk(self) -> str:
        return tile_key(self.tenant, self.partition)

    def _key(self, level: int, index: int) -> Row:
        return {"pk": self._pk, "sk": _sk(level, index)}


def _sk(level: int, index: int) -> str:
    return f"{level}#{ordered(index)}"
