"""
Merkle trees as in RFC 6962, section 2.1: hashes over lists of byte strings, with no I/O.

Leaves and nodes are hashed under different prefixes, so that no list of leaves can be passed off as
another one's tree.
"""

from collections.abc import Iterable
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """
    Hash a list of leaf hashes into the root of its tree.

    Works in one pass with one pending hash per level: after n leaves the pending hashes are the roots
    of the perfect subtrees that n's binary digits name, largest first.
    """
    pending: list[bytes] = []
    for size, leaf in enumerate(leaf_hashes, start=1):
        pending.append(leaf)
        for _ in range((size & -size).bit_length() - 1):  # the trailing zeros of size: that many subtrees are full
            right = pending.pop()
            pending.append(node_hash(pending.pop(), right))
    if not pending:
        return EMPTY_ROOT
    result = pending.pop()
    while pending:
        result = node_hash(pending.pop(), result)
    return result
