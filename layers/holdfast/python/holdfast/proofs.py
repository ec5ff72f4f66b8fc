"""
Merkle trees as in RFC 6962, section 2.1: what they hash to, and proofs of what they hold, with no I/O.

Leaves and nodes are hashed under different prefixes, so that no list of leaves can be passed off as another one's tree.
A tree of any size is a row of *perfect subtrees*, whose hashes never change however the tree grows. So they are all
that is ever kept or asked for; whatever lies at the right edge and will change is composed from them.

A root does not say how many leaves are under it. Whoever checks a proof takes size and root from the same signed
statement, and never from the answer that brings the proof.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Final

import msgspec

EMPTY_ROOT = sha256(b"").digest()
HASH_BYTES: Final = 32
SIZE_MAX: Final = 2**63 - 1
"""Leaves in a tree. No log comes near; it bounds what a proof from a stranger may cost."""
TILE_HEIGHT: Final = 8
"""Levels of the tree in one tile."""
TILE_HASHES: Final = 1 << TILE_HEIGHT
"""Hashes in a full tile."""

Node = tuple[int, int]
"""A perfect subtree: its level (0 are the leaves) and its index there."""
Nodes = Callable[[int, int], bytes] | Mapping[Node, bytes]
"""Answers the hash of a perfect subtree, by its level and its index."""
Hashes = list[bytes] | tuple[bytes, ...]


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """Hash a list of leaf hashes into the root of its tree."""
    hashes: list[bytes] = []
    _grow(hashes, 0, leaf_hashes)
    return _join(hashes)


class Frontier(msgspec.Struct, frozen=True):
    """
    All that must be kept of a tree so that it can grow: its size and the roots of its perfect subtrees, largest first.

    Raises:
        ValueError: there is no such tree.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= SIZE_MAX or len(self.hashes) != self.size.bit_count():
            raise ValueError(f"{len(self.hashes)} subtrees cannot make a tree of {self.size} leaves.")
        if not _are_hashes(self.hashes):
            raise ValueError(f"A hash has {HASH_BYTES} bytes.")

    def extend(self, leaf_hashes: Iterable[bytes]) -> "Frontier":
        """Grow by these leaves, in order; this frontier stays as it is."""
        hashes = list(self.hashes)
        size = _grow(hashes, self.size, leaf_hashes)
        return Frontier(size, tuple(hashes))

    @property
    def root(self) -> bytes:
        return _join(self.hashes)


def perfect_subtrees(size: int) -> list[Node]:
    """List the perfect subtrees that make up a tree, largest first; a frontier holds their hashes."""
    return list(_cover(0, size))


def root_at(size: int, node: Nodes) -> bytes:
    """Compute the root that the tree had at *size* from the nodes of `perfect_subtrees`."""
    return _root_of(0, size, _asked(node))


def needed_for_inclusion(index: int, size: int) -> list[Node]:
    """List the nodes that `inclusion_path` will ask for."""
    return [node for start, end in _inclusion_ranges(index, size) for node in _cover(start, end)]


def inclusion_path(index: int, size: int, node: Nodes) -> list[bytes]:
    """
    Prove that the leaf at *index* is in the tree of *size* leaves: the hashes beside its way up, from below.

    RFC 9162, section 2.1.3.1.

    Raises:
        ValueError: the tree has no such leaf.
    """
    ask = _asked(node)
    return [_root_of(start, end, ask) for start, end in _inclusion_ranges(index, size)]


def needed_for_consistency(first: int, second: int) -> list[Node]:
    """List the nodes that `consistency_path` will ask for."""
    return [node for start, end in _consistency_ranges(first, second) for node in _cover(start, end)]


def consistency_path(first: int, second: int, node: Nodes) -> list[bytes]:
    """
    Prove that the tree of *second* leaves begins with the *first* leaves of it.

    RFC 9162, section 2.1.4.1.

    Raises:
        ValueError: *first* is not from 1 to *second*. Every tree begins with the empty one: nothing is proved.
    """
    ask = _asked(node)
    return [_root_of(start, end, ask) for start, end in _consistency_ranges(first, second)]


def verify_inclusion(leaf_hash: bytes, index: int, size: int, path: Hashes, root: bytes) -> bool:
    """
    Say whether *path* proves that the leaf is at *index* in the tree with this *size* and *root*.

    RFC 9162, section 2.1.3.2. Never raises: whatever is no proof is false.
    """
    if not (_is_size(index) and _is_size(size) and index < size and _is_path(path)):
        return False
    if not (_is_hash(leaf_hash) and _is_hash(root)):
        return False
    at, last, computed = index, size - 1, leaf_hash
    for beside in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            computed = node_hash(beside, computed)
            # A node without a right neighbour climbs to where it has a left one: no hash is beside that way.
            turns = _trailing_zeros(at)
            at, last = at >> turns, last >> turns
        else:
            computed = node_hash(computed, beside)
        at, last = at >> 1, last >> 1
    return last == 0 and computed == root


def verify_consistency(first: int, second: int, path: Hashes, root_first: bytes, root_second: bytes) -> bool:
    """
    Say whether *path* proves that the tree with *second* leaves begins with the one with *first* leaves.

    A tree is consistent with itself by an empty path; with the empty tree nothing is, for nothing is proved.
    RFC 9162, section 2.1.4.2. Never raises: whatever is no proof is false.
    """
    if not (_is_size(first) and _is_size(second) and 0 < first <= second and _is_path(path)):
        return False
    if not (_is_hash(root_first) and _is_hash(root_second)):
        return False
    if first == second:
        return not path and root_first == root_second
    if not path:
        return False
    # The path begins with the first tree's smallest perfect subtree; where that is the whole tree, its root is known.
    begin, *besides = (root_first, *path) if first.bit_count() == 1 else path
    level = _trailing_zeros(first)
    at, last = (first - 1) >> level, (second - 1) >> level
    computed_first = computed_second = begin
    for beside in besides:
        if last == 0:
            return False
        if at & 1 or at == last:
            computed_first = node_hash(beside, computed_first)
            computed_second = node_hash(beside, computed_second)
            turns = _trailing_zeros(at)
            at, last = at >> turns, last >> turns
        else:
            computed_second = node_hash(computed_second, beside)
        at, last = at >> 1, last >> 1
    return last == 0 and computed_first == root_first and computed_second == root_second


class TileSpan(msgspec.Struct, frozen=True):
    """Where a perfect subtree stands on the tiles: on *count* hashes of one tile, from the one at *first* on."""

    tile: Node
    """Its level (tile level n holds the hashes of the tree's level 8n) and its index there."""
    first: int
    count: int


def tile_of(level: int, index: int) -> TileSpan:
    """
    Say which hashes of which tile make up a perfect subtree.

    They are there as soon as the subtree is whole, also where the tile is still open. The layout is that of C2SP's
    "Static Certificate Transparency API" and "Tiled Transparency Logs".
    """
    tile_level, height = divmod(level, TILE_HEIGHT)
    tile_index, first = divmod(index << height, TILE_HASHES)
    return TileSpan((tile_level, tile_index), first, 1 << height)


def node_in_tile(tile: bytes, level: int, index: int) -> bytes:
    """
    Compute a perfect subtree's hash from the packed hashes of its tile, which may be an open one.

    Raises:
        ValueError: the tile does not reach so far.
    """
    span = tile_of(level, index)
    end = (span.first + span.count) * HASH_BYTES
    if len(tile) < end:
        raise ValueError(f"A tile of {len(tile)} bytes does not hold the node {index} of level {level}.")
    return tile_root(tile[span.first * HASH_BYTES : end])


def tile_root(tile: bytes) -> bytes:
    """Hash packed hashes into their root; that of a full tile is its hash in the tile above."""
    return root(tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES))


def _grow(hashes: list[bytes], size: int, leaf_hashes: Iterable[bytes]) -> int:
    """Push leaves onto the roots of a tree's perfect subtrees, joining those that become full; answer the new size."""
    for leaf in leaf_hashes:
        if len(leaf) != HASH_BYTES:
            raise ValueError(f"A hash has {HASH_BYTES} bytes.")
        size += 1
        hashes.append(leaf)
        for _ in range(_trailing_zeros(size)):  # that many subtrees are full
            right = hashes.pop()
            hashes.append(node_hash(hashes.pop(), right))
    return size


def _join(hashes: Sequence[bytes]) -> bytes:
    """Compose a root from those of perfect subtrees, largest first."""
    if not hashes:
        return EMPTY_ROOT
    *lefts, result = hashes
    for left in reversed(lefts):
        result = node_hash(left, result)
    return result


def _cover(start: int, end: int) -> Iterator[Node]:
    """Cut a range of leaves, which begins where a subtree begins, into perfect subtrees, largest first."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def _root_of(start: int, end: int, ask: Callable[[int, int], bytes]) -> bytes:
    return _join([ask(level, index) for level, index in _cover(start, end)])


def _asked(node: Nodes) -> Callable[[int, int], bytes]:
    return (lambda level, index: node[level, index]) if isinstance(node, Mapping) else node


def _inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """List the ranges of leaves beside the way from a leaf to the root, from below."""
    if not 0 <= index < size:
        raise ValueError(f"A tree of {size} leaves has no leaf {index}.")
    ranges = []
    start, end = 0, size
    while end - start > 1:
        middle = _middle(start, end)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def _consistency_ranges(first: int, second: int) -> list[tuple[int, int]]:
    """List the ranges beside the way from the first tree's last perfect subtree to the root, from that one on up."""
    if not 0 < first <= second:
        raise ValueError(f"No proof leads from {first} to {second} leaves.")
    ranges = []
    start, end = 0, second
    while first != end:
        middle = _middle(start, end)
        if first <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    if start > 0:  # else that subtree is the first tree itself, whose root the verifier has
        ranges.append((start, end))
    return ranges[::-1]


def _middle(start: int, end: int) -> int:
    """Say where a tree of at least two leaves parts: its left side is the largest perfect one that leaves a right."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= SIZE_MAX


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == HASH_BYTES


def _are_hashes(values: Iterable[object]) -> bool:
    return all(map(_is_hash, values))


def _is_path(path: object) -> bool:
    return isinstance(path, list | tuple) and _are_hashes(path)
