"""Roots and proofs against an independent implementation (pymerkle), and in trees of every size there can be."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import ConsistencyProof, InclusionProof, InmemoryTree  # type: ignore[import-untyped]

from holdfast.proofs import (
    HASH_BYTES,
    SIZE_MAX,
    TILE_HASHES,
    TILE_HEIGHT,
    Frontier,
    consistency_path,
    inclusion_path,
    leaf_hash,
    needed_for_consistency,
    needed_for_inclusion,
    node_hash,
    node_in_tile,
    perfect_subtrees,
    root,
    root_at,
    tile_of,
    tile_root,
    verify_consistency,
    verify_inclusion,
)
from tests.soak import examples

SIZES = (*range(41), 255, 256, 257, 258)
ENTRIES = [str(number).encode() for number in range(max(SIZES))]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
NODES = {
    (level, index): root(LEAVES[index << level : (index + 1) << level])
    for level in range(len(LEAVES).bit_length())
    for index in range(len(LEAVES) >> level)
}


@pytest.fixture(scope="module")
def theirs() -> InmemoryTree:
    """Its leaves are hashed as ours are: of the same entries, under the same prefix."""
    tree = InmemoryTree.init_from_entries(ENTRIES, algorithm="sha256")
    assert [tree.get_leaf(index + 1) for index in range(len(LEAVES))] == LEAVES
    return tree


def consistency_of(proof: ConsistencyProof) -> list[bytes]:
    """
    Put their proof into the words of RFC 9162.

    Theirs goes down to the first leaf after the first tree, where the RFC stops at the subtree that begins with it; it
    always holds the first tree's smallest subtree, and the RFC leaves it out where the verifier has it.
    """
    if proof.prior_size == proof.size:
        return []
    fold = proof.subset.index(1)
    below, *above = proof.path[:fold]
    for turn, beside in zip(proof.rule, above, strict=False):
        below = node_hash(beside, below) if turn else node_hash(below, beside)
    smallest, *rest = proof.path[fold:]
    return [*([] if proof.prior_size.bit_count() == 1 else [smallest]), below, *rest]


@pytest.mark.parametrize("size", SIZES)
def test_roots_and_proofs_agree_with_pymerkle(theirs: InmemoryTree, size: int):
    top = theirs.get_root(size)
    assert root(LEAVES[:size]) == root_at(size, NODES) == Frontier().extend(LEAVES[:size]).root == top

    for index in range(size):
        inclusion: InclusionProof = theirs.prove_inclusion(index + 1, size)
        assert [LEAVES[index], *inclusion_path(index, size, NODES)] == inclusion.path
    for first in range(1, size + 1):
        consistency: ConsistencyProof = theirs.prove_consistency(first, size)
        assert consistency_path(first, size, NODES) == consistency_of(consistency)
        consistency.verify(root_at(first, NODES), top)


@settings(max_examples=examples(30, soak=300), deadline=None)
@given(st.integers(1, 3 * TILE_HASHES**2), st.data())
def test_proofs_from_tiles_read_just_what_they_need(size: int, data: st.DataObject):
    tiles = EqualLeaves(size)
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    top = root_at(size, tiles)
    tiles.asked.clear()

    path = inclusion_path(index, size, tiles)

    assert tiles.asked == needed_for_inclusion(index, size)
    assert verify_inclusion(EQUAL[0], index, size, path, top)
    tiles.asked.clear()

    path = consistency_path(first, size, tiles)

    assert tiles.asked == needed_for_consistency(first, size)
    assert verify_consistency(first, size, path, root_at(first, tiles), top)


EQUAL = [leaf_hash(b"equal")]
"""The root of a perfect tree of equal leaves, by its height: so the largest tree can be had without its leaves."""
for _ in range(SIZE_MAX.bit_length()):
    EQUAL.append(node_hash(EQUAL[-1], EQUAL[-1]))


class EqualLeaves:
    """A tree of equal leaves that answers from tiles, open ones at the right edge, and says what it was asked."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[tuple[int, int]] = []

    def __call__(self, level: int, index: int) -> bytes:
        self.asked.append((level, index))
        (tile_level, tile_index) = tile_of(level, index).tile
        hashes = (self.size >> tile_level * TILE_HEIGHT) - tile_index * TILE_HASHES
        return node_in_tile(equal_tile(tile_level, min(hashes, TILE_HASHES)), level, index)


@cache
def equal_tile(level: int, hashes: int) -> bytes:
    return EQUAL[level * TILE_HEIGHT] * hashes


SIZES_OF_ALL = st.integers(1, SIZE_MAX) | st.integers(0, 62).map(lambda height: 1 << height)


@settings(max_examples=examples(200, soak=5_000), deadline=None)
@given(SIZES_OF_ALL, st.data())
def test_the_largest_trees_are_proved_by_short_paths(size: int, data: st.DataObject):
    def node(level: int, index: int) -> bytes:
        assert (index + 1) << level <= size
        return EQUAL[level]

    top = root_at(size, node)
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size) | st.just(size))

    path = inclusion_path(index, size, node)
    assert len(path) <= size.bit_length()
    assert verify_inclusion(EQUAL[0], index, size, path, top)
    assert not verify_inclusion(LEAVES[0], index, size, path, top)

    path = consistency_path(first, size, node)
    assert len(path) <= size.bit_length() + 1
    assert verify_consistency(first, size, path, root_at(first, node), top)
    assert not verify_consistency(first, size, path, LEAVES[0], top)
    assert not verify_consistency(first, size, path, root_at(first, node), LEAVES[0])


@given(st.lists(st.integers(0, 100), max_size=20))
def test_a_frontier_is_the_same_however_its_leaves_come(batches: list[int]):
    frontier, size = Frontier(), 0
    for batch in batches:
        frontier = frontier.extend(LEAVES[at % len(LEAVES)] for at in range(size, size + batch))
        size += batch
    leaves = [LEAVES[at % len(LEAVES)] for at in range(size)]

    assert frontier == Frontier().extend(leaves)
    assert frontier.root == root(leaves)
    assert len(perfect_subtrees(size)) == len(frontier.hashes)


@given(st.integers(0, 40), st.data())
def test_a_node_of_any_level_is_in_the_tile_whose_hashes_it_covers(level: int, data: st.DataObject):
    index = data.draw(st.integers(0, 2**20))
    span = tile_of(level, index)

    # Counted in leaves, the node and its hashes on the tile span the same.
    hash_leaves = 1 << span.tile[0] * TILE_HEIGHT
    first = (span.tile[1] * TILE_HASHES + span.first) * hash_leaves
    assert (first, first + span.count * hash_leaves) == (index << level, (index + 1) << level)
    assert span.first + span.count <= TILE_HASHES


ARGUMENTS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 4)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=33)
    | st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)
)
PATHS = ARGUMENTS | st.lists(ARGUMENTS, max_size=4) | st.lists(st.sampled_from([*LEAVES[:3], EQUAL[1]]), max_size=4)


@settings(max_examples=examples(300, soak=10_000))
@given(ARGUMENTS, ARGUMENTS, PATHS, ARGUMENTS, ARGUMENTS)
def test_whatever_a_stranger_sends_is_answered_and_seldom_true(first, second, path, one, two):
    for answer in (
        verify_inclusion(one, first, second, path, two),
        verify_consistency(first, second, path, one, two),
    ):
        assert type(answer) is bool
        # The one way to be right by chance: a tree that is its own proof.
        assert not answer or (list(path) == [] and one == two)


def test_the_root_of_a_full_tile_is_its_hash_in_the_tile_above():
    assert tile_root(equal_tile(0, TILE_HASHES)) == EQUAL[TILE_HEIGHT] == equal_tile(1, 1)
