"""
Every proof of small trees, and what is left when somebody has altered it: nothing.

For each index of each tree, and each pair of sizes, the valid proof is made and verified, and then its negatives. One
hash of each proof (which of them goes around from proof to proof) is tried with its bits flipped.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from holdfast.proofs import (
    EMPTY_ROOT,
    Hashes,
    consistency_path,
    inclusion_path,
    leaf_hash,
    root,
    verify_consistency,
    verify_inclusion,
)
from tests.soak import examples

SIZES = (*range(41), 255, 256, 257, 258)
PROOFS = sum(SIZES)
"""Of each kind: every index of every tree, and every size from 1 up to every tree's."""
BITS = examples(8, soak=256)
"""Flipped in one hash of each proof, spread over its bytes."""
NEGATIVES_MIN = 20_000
OTHER_FORGED_INCLUSIONS = 49_504
OTHER_FORGED_CONSISTENCIES = 58_283
"""Negatives that are no flipped bits, counted so that none is lost; with the bits 137,323 in all (soak: 1,052,939)."""

LEAVES = [leaf_hash(str(number).encode()) for number in range(max(SIZES))]
ROOTS = [root(LEAVES[:size]) for size in range(len(LEAVES) + 1)]
STRANGER = leaf_hash(b"never in the tree")
NODES = {
    (level, index): root(LEAVES[index << level : (index + 1) << level])
    for level in range(len(LEAVES).bit_length())
    for index in range(len(LEAVES) >> level)
}


def flipped(hash_: bytes) -> Iterator[bytes]:
    for number in range(BITS):
        place = number * 37 % 256  # an odd step meets every bit once, and the first eight are one of each weight
        altered = bytearray(hash_)
        altered[place // 8] ^= 1 << place % 8
        yield bytes(altered)


def other_lengths(path: list[bytes]) -> Iterator[list[bytes]]:
    """Cut or extend a path by one, at either end, by a stranger and by what is in it already."""
    if path:
        yield path[1:]
        yield path[:-1]
    for more in {STRANGER, EMPTY_ROOT, *path[:1], *path[-1:]}:
        yield [more, *path]
        yield [*path, more]


def one_replaced(hashes: Hashes, turn: int) -> Iterator[list[bytes]]:
    at = turn % len(hashes)
    for altered in flipped(hashes[at]):
        yield [*hashes[:at], altered, *hashes[at + 1 :]]


def forged_inclusions(index: int, size: int, path: list[bytes], turn: int) -> Iterator[tuple[Any, ...]]:
    leaf, top = LEAVES[index], ROOTS[size]
    for leaf_, top_, *path_ in one_replaced([leaf, top, *path], turn):
        yield leaf_, index, size, path_, top_
    for path_ in other_lengths(path):
        yield leaf, index, size, path_, top
    if path[::-1] != path:
        yield leaf, index, size, path[::-1], top
    # Another index in the same tree always means other turns, or another number of them.
    for other in {0, index - 1, index + 1, index ^ 1, size - 1, size, index + size, -index - 1} - {index}:
        yield leaf, other, size, path, top
    yield leaf, size, index, path, top
    yield leaf, index, 0, path, top
    yield leaf, index, index, path, top
    yield leaf, index, size + (1 << size.bit_length()), path, top  # a tree so much larger is higher
    yield top, index, size, path, leaf if leaf != top else STRANGER
    yield STRANGER, index, size, path, top
    for wrong in {STRANGER, EMPTY_ROOT, ROOTS[size - 1]}:
        yield leaf, index, size, path, wrong


def forged_consistencies(first: int, second: int, path: list[bytes], turn: int) -> Iterator[tuple[Any, ...]]:
    one, two = ROOTS[first], ROOTS[second]
    for one_, two_, *path_ in one_replaced([one, two, *path], turn):
        yield first, second, path_, one_, two_
    for path_ in other_lengths(path):
        yield first, second, path_, one, two
    if path[::-1] != path:
        yield first, second, path[::-1], one, two
    if first != second:
        yield first, second, path, two, one
        yield second, first, path, one, two
        yield second, first, path, two, one
        yield first, second, path, one, one
        yield first, second, path, two, two
        yield first, second, [], one, two
        # The two roots of an honest log, and a size that is not that of its root.
        yield first, first, path, one, two
        yield second, second, path, one, two
    yield first, second + (1 << second.bit_length()), path, one, two  # a tree so much larger is higher
    for none in (0, -first):
        yield none, second, path, one, two
        yield none, second, path, EMPTY_ROOT, two
        yield first, none, path, one, two
        yield none, none, path, one, one
    for wrong in {STRANGER, EMPTY_ROOT}:
        yield first, second, path, wrong, two
        yield first, second, path, one, wrong


def test_every_inclusion_is_proved_and_no_forgery_of_it():
    turns, negatives, accepted = count(), 0, []
    for size in SIZES:
        for index in range(size):
            path = inclusion_path(index, size, NODES)
            assert verify_inclusion(LEAVES[index], index, size, path, ROOTS[size])
            for forged in forged_inclusions(index, size, path, next(turns)):
                negatives += 1
                if verify_inclusion(*forged):
                    accepted.append((index, size, forged))

    assert accepted == []
    assert next(turns) == PROOFS
    assert negatives == PROOFS * BITS + OTHER_FORGED_INCLUSIONS >= NEGATIVES_MIN


def test_every_consistency_is_proved_and_no_forgery_of_it():
    turns, negatives, accepted = count(), 0, []
    for second in SIZES:
        for first in range(1, second + 1):
            path = consistency_path(first, second, NODES)
            assert verify_consistency(first, second, path, ROOTS[first], ROOTS[second])
            for forged in forged_consistencies(first, second, path, next(turns)):
                negatives += 1
                if verify_consistency(*forged):
                    accepted.append((first, second, forged))

    assert accepted == []
    assert next(turns) == PROOFS
    assert negatives == PROOFS * BITS + OTHER_FORGED_CONSISTENCIES >= NEGATIVES_MIN


@pytest.mark.parametrize("bogus", [EMPTY_ROOT, STRANGER, bytes(32), b""])
@pytest.mark.parametrize("path", [[], [EMPTY_ROOT], [STRANGER], [bytes(32)] * 2], ids=len)
def test_empty_trees_prove_nothing_whatever_their_roots_agree_on(bogus, path):
    for size in SIZES:
        assert not verify_consistency(0, size, path, bogus, bogus)
        assert not verify_consistency(size, 0, path, bogus, bogus)
        assert not verify_consistency(0, size, path, EMPTY_ROOT, ROOTS[size])
        assert not verify_inclusion(bogus, 0, 0, path, bogus)
        assert not verify_inclusion(bogus, size, size, path, bogus)
