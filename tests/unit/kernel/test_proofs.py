"""Trees, frontiers and tiles; the known answers are those of Certificate Transparency's reference tests."""

import math

import pytest

from holdfast.proofs import (
    EMPTY_ROOT,
    HASH_BYTES,
    SIZE_MAX,
    TILE_HASHES,
    Frontier,
    TileSpan,
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

ENTRIES = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    bytes(range(0x50, 0x58)),
    bytes(range(0x60, 0x70)),
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def node_of(leaves: list[bytes]):
    """Answer perfect subtrees of these leaves; asked for any other, break."""

    def node(level: int, index: int) -> bytes:
        start, end = index << level, (index + 1) << level
        assert 0 <= start < end <= len(leaves)
        return root(leaves[start:end])

    return node


@pytest.mark.parametrize("size", range(9))
def test_a_tree_has_its_known_root(size):
    assert root(LEAVES[:size]).hex() == ROOTS[size]
    assert root_at(size, node_of(LEAVES)).hex() == ROOTS[size]
    assert Frontier().extend(LEAVES[:size]).root.hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_a_leaf_has_its_known_path(index, size):
    path = inclusion_path(index, size, node_of(LEAVES))

    assert [hash_.hex() for hash_ in path] == INCLUSION[index, size]
    assert verify_inclusion(LEAVES[index], index, size, path, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("first", "second"), CONSISTENCY)
def test_two_sizes_have_their_known_path(first, second):
    path = consistency_path(first, second, node_of(LEAVES))

    assert [hash_.hex() for hash_ in path] == CONSISTENCY[first, second]
    assert verify_consistency(first, second, path, bytes.fromhex(ROOTS[first]), bytes.fromhex(ROOTS[second]))


def test_a_path_may_be_made_of_a_mapping_that_holds_just_what_is_needed():
    ask = node_of(LEAVES)

    held = {node: ask(*node) for node in needed_for_inclusion(2, 7)}
    assert inclusion_path(2, 7, held) == inclusion_path(2, 7, ask)
    held = {node: ask(*node) for node in needed_for_consistency(3, 7)}
    assert consistency_path(3, 7, held) == consistency_path(3, 7, ask)
    held = {node: ask(*node) for node in perfect_subtrees(7)}
    assert root_at(7, held) == root(LEAVES[:7])


def test_a_range_at_the_right_edge_is_composed_of_perfect_subtrees():
    # Seven leaves: beside the left four stand three, which are no perfect subtree.
    assert needed_for_inclusion(0, 7) == [(0, 1), (1, 1), (1, 2), (0, 6)]
    assert perfect_subtrees(7) == [(2, 0), (1, 2), (0, 6)]


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 1), (8, 8)])
def test_a_leaf_outside_the_tree_has_no_path(index, size):
    for ask in (lambda: needed_for_inclusion(index, size), lambda: inclusion_path(index, size, node_of(LEAVES))):
        with pytest.raises(ValueError, match="has no leaf"):
            ask()


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (2, 1), (-1, 1)])
def test_no_path_leads_from_an_empty_or_a_larger_tree(first, second):
    for ask in (lambda: needed_for_consistency(first, second), lambda: consistency_path(first, second, {})):
        with pytest.raises(ValueError, match="No proof leads"):
            ask()


def test_a_frontier_grows_leaf_by_leaf_or_by_many_and_stays_as_it_was():
    one_by_one = Frontier()
    for size, leaf in enumerate(LEAVES, start=1):
        before, one_by_one = one_by_one, one_by_one.extend([leaf])
        assert one_by_one == Frontier().extend(iter(LEAVES[:size]))
        assert before.size == size - 1
        assert one_by_one.hashes == tuple(node_of(LEAVES)(*node) for node in perfect_subtrees(size))
    assert one_by_one.extend([]) == one_by_one
    assert Frontier().root == EMPTY_ROOT


@pytest.mark.parametrize(
    ("size", "hashes"),
    [
        (-1, (bytes(32),)),
        (0, (bytes(32),)),
        (1, ()),
        (3, (bytes(32),)),
        (4, (bytes(32), bytes(32))),
        (SIZE_MAX + 1, (bytes(32),)),
        (1, (bytes(31),)),
        (3, (bytes(32), bytes(33))),
        (1, ("x" * 32,)),
    ],
)
def test_what_cannot_be_a_tree_is_no_frontier(size, hashes):
    with pytest.raises(ValueError, match=r"cannot make a tree|has 32 bytes"):
        Frontier(size, hashes)


def test_a_leaf_that_is_no_hash_is_refused_even_where_it_would_vanish_in_a_node():
    with pytest.raises(ValueError, match="has 32 bytes"):
        Frontier().extend([bytes(32), bytes(31)])


def test_a_tree_no_larger_than_its_bound_grows_to_it_and_not_beyond():
    almost = Frontier(SIZE_MAX - 1, tuple(bytes([at]) * HASH_BYTES for at in range(62)))
    full = almost.extend([bytes(32)])

    assert full.size == SIZE_MAX
    with pytest.raises(ValueError, match="cannot make a tree"):
        full.extend([bytes(32)])


@pytest.mark.parametrize(
    ("level", "index", "tile", "first", "count"),
    [
        (0, 0, (0, 0), 0, 1),
        (0, 255, (0, 0), 255, 1),
        (0, 256, (0, 1), 0, 1),
        (7, 1, (0, 0), 128, 128),
        (7, 2, (0, 1), 0, 128),
        (8, 0, (1, 0), 0, 1),
        (8, 257, (1, 1), 1, 1),
        (9, 3, (1, 0), 6, 2),
        (16, 0, (2, 0), 0, 1),
    ],
)
def test_a_node_stands_in_one_tile(level, index, tile, first, count):
    assert tile_of(level, index) == TileSpan(tile, first, count)


def tiles_of(leaves: list[bytes]) -> dict[tuple[int, int], bytes]:
    """Cut a tree into tiles; the last of each level may be an open one, and a level above holds full tiles' roots."""
    tiles, level = {}, 0
    while leaves:
        for index in range(math.ceil(len(leaves) / TILE_HASHES)):
            tiles[level, index] = b"".join(leaves[index * TILE_HASHES : (index + 1) * TILE_HASHES])
        full = [tiles[level, index] for index in range(len(leaves) // TILE_HASHES)]
        leaves, level = [tile_root(tile) for tile in full], level + 1
    return tiles


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 258, 511, 512, 700, 1_000])
def test_every_perfect_subtree_comes_from_one_tile_also_an_open_one(size):
    leaves = [leaf_hash(str(number).encode()) for number in range(size)]
    tiles, row = tiles_of(leaves), leaves

    for level in range(size.bit_length()):
        for index, expected in enumerate(row):
            assert node_in_tile(tiles[tile_of(level, index).tile], level, index) == expected
        row = [node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=False)]


def test_a_tile_does_not_answer_beyond_what_it_holds():
    tile = bytes(3 * HASH_BYTES)

    assert node_in_tile(tile, 0, 2) == bytes(32)
    for level, index in [(0, 3), (1, 1), (2, 0)]:
        with pytest.raises(ValueError, match="does not hold"):
            node_in_tile(tile, level, index)


def test_the_empty_tree_proves_nothing():
    assert not verify_inclusion(LEAVES[0], 0, 0, [], EMPTY_ROOT)
    for bogus in (EMPTY_ROOT, LEAVES[0], bytes(32)):
        assert not verify_consistency(0, 0, [], bogus, bogus)
        assert not verify_consistency(0, 0, [bogus], bogus, bogus)
        assert not verify_consistency(0, 1, [], bogus, bogus)
        assert not verify_consistency(0, 1, [bogus], bogus, bogus)
        assert not verify_inclusion(bogus, 0, 0, [], bogus)


def test_a_tree_is_consistent_with_itself_by_an_empty_path_and_equal_roots_only():
    for size in range(1, 9):
        same = root(LEAVES[:size])
        assert verify_consistency(size, size, [], same, same)
        assert not verify_consistency(size, size, [same], same, same)
        assert not verify_consistency(size, size, [], same, bytes(32))


def test_a_root_does_not_say_its_size():
    """Why size and root must come together from what is signed: this proof is good for two sizes."""
    leaf, path = LEAVES[2], [root(LEAVES[:2])]

    assert verify_inclusion(leaf, 2, 3, path, root(LEAVES[:3]))
    assert verify_inclusion(leaf, 1, 2, path, root(LEAVES[:3]))


GOOD = bytes(32)


def test_no_tree_is_larger_than_its_bound():
    perfect = [leaf_hash(b"equal")]
    for _ in range(SIZE_MAX.bit_length()):
        perfect.append(node_hash(perfect[-1], perfect[-1]))
    *path, top = perfect

    assert verify_inclusion(perfect[0], 0, (SIZE_MAX + 1) // 2, path[:-1], path[-1])
    assert not verify_inclusion(perfect[0], 0, SIZE_MAX + 1, path, top)
    assert verify_consistency(1, (SIZE_MAX + 1) // 2, path[:-1], perfect[0], path[-1])
    assert not verify_consistency(1, SIZE_MAX + 1, path, perfect[0], top)


NO_SIZES = {"huge": 2**100_000, "minus huge": -(2**100_000), "nan": math.nan} | {
    str(size): size for size in (-1, SIZE_MAX + 1, True, 1.0, "1", None)
}


@pytest.mark.parametrize("size", NO_SIZES.values(), ids=NO_SIZES)
def test_a_size_that_is_none_proves_nothing_and_raises_nothing(size):
    for other in (0, 1, 2, SIZE_MAX):
        assert verify_inclusion(GOOD, size, other, [], GOOD) is False
        assert verify_inclusion(GOOD, other, size, [], GOOD) is False
        assert verify_consistency(size, other, [], GOOD, GOOD) is False
        assert verify_consistency(other, size, [], GOOD, GOOD) is False


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("bad", [b"", bytes(31), bytes(33), bytearray(32), "0" * 32, [0] * 32, 32, None])
def test_a_hash_that_is_none_proves_nothing_and_raises_nothing(size, bad):
    path = [GOOD] * (size - 1)

    assert verify_inclusion(bad, 0, size, path, GOOD) is False
    assert verify_inclusion(GOOD, 0, size, path, bad) is False
    assert verify_inclusion(GOOD, 0, 2, [bad], GOOD) is False
    assert verify_consistency(1, size, path, bad, bad) is False
    assert verify_consistency(1, size, path, GOOD, bad) is False
    assert verify_consistency(1, 2, [bad], GOOD, GOOD) is False


@pytest.mark.parametrize("path", [None, b"", "", bytes(32), {}, iter([]), 0, [GOOD] * 1_000, [*[GOOD] * 1_000, None]])
def test_a_path_that_is_none_proves_nothing_and_raises_nothing(path):
    assert verify_inclusion(GOOD, 0, 1, path, GOOD) is False
    assert verify_consistency(1, 1, path, GOOD, GOOD) is False
    assert verify_consistency(3, SIZE_MAX, path, GOOD, GOOD) is False
