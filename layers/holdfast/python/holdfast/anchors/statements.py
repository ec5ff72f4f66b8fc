"""
The bytes that outlive us: head leaves, statements and anchors, which verifiers in other hands read.

What is hashed or signed is compact JSON of strings and integers with sorted keys, and is never written a second time to
be checked.
"""

import gzip
import zlib
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from holdfast.log.values import PARTITIONS, Head, empty_head, log_id
from holdfast.proofs import inclusion_path, leaf_hash, node_hash, root

_encode: Final = msgspec.json.Encoder(order="sorted").encode


class HeadLeaf(msgspec.Struct, frozen=True):
    """One partition of one tenant's log, as a leaf of the tree that an anchor signs."""

    tenant: str
    partition: int
    log_id: str
    size: int
    root: str
    """In hexadecimal, like every hash in what is signed."""
    v: int = 1


class Statement(msgspec.Struct, frozen=True):
    """What is signed: one root over the heads of all logs, and which statement came before."""

    seq: int
    """From 1, without gaps."""
    time: int
    """Microseconds since 1970; later than in the statement before."""
    service: str
    leaves: int
    super_root: str
    previous: str
    """The SHA-256 of the statement before; empty in the first."""
    v: int = 1

    def to_bytes(self) -> bytes:
        return _encode(self)


class Anchor(msgspec.Struct, frozen=True):
    """A signed statement, with the heads that it is about: what lies in the bucket."""

    statement: bytes
    signature: bytes
    key_id: str
    heads: tuple[bytes, ...]
    """Head leaves, ordered by tenant and partition."""

    @property
    def said(self) -> Statement:
        return _STATEMENT.decode(self.statement)

    @property
    def digest(self) -> str:
        """What the next statement calls *previous*."""
        return sha256(self.statement).hexdigest()

    def to_bytes(self) -> bytes:
        """Write it as gzipped JSON: heads are much alike, all are kept, and for years."""
        return gzip.compress(msgspec.json.encode(self), mtime=0)

    @classmethod
    def from_bytes(cls, body: bytes) -> "Anchor":
        """
        Read what `to_bytes` wrote.

        Raises:
            ValueError: it is not what was written.
        """
        try:
            return _ANCHOR.decode(gzip.decompress(body))
        except (OSError, EOFError, zlib.error, msgspec.MsgspecError) as error:
            raise ValueError(f"{len(body)} bytes are no anchor: {error}") from error


class SignedHead(msgspec.Struct, frozen=True):
    """One of a tenant's heads, and the path from its leaf to the root that is signed."""

    partition: int
    size: int
    root: bytes
    leaf: bytes
    index: int
    path: tuple[bytes, ...]


class TenantAnchor(msgspec.Struct, frozen=True):
    """An anchor as one tenant may see it: its own heads, and of the others' only hashes."""

    seq: int
    statement: bytes
    signature: bytes
    key_id: str
    heads: tuple[SignedHead, ...]


_STATEMENT: Final = msgspec.json.Decoder(Statement)
_ANCHOR: Final = msgspec.json.Decoder(Anchor)
_HEAD_LEAF: Final = msgspec.json.Decoder(HeadLeaf)


def leaf_of(service: str, head: Head) -> bytes:
    """Write *head* as a leaf."""
    leaf = HeadLeaf(head.tenant, head.partition, log_id(service, head.tenant), head.size, head.root.hex())
    return _encode(leaf)


def read_leaf(leaf: bytes) -> HeadLeaf:
    return _HEAD_LEAF.decode(leaf)


def leaves_of(service: str, heads: Iterable[Head]) -> tuple[bytes, ...]:
    """
    Write the heads of all logs as leaves, in their order.

    A log without commits has none. Every other one has a leaf for each partition, also for one that is empty: so a head
    that somebody leaves out is never taken for that of an empty partition.
    """
    begun = {(head.tenant, head.partition): head for head in heads if head.size}
    tenants = sorted({tenant for tenant, _ in begun})
    places = [(tenant, partition) for tenant in tenants for partition in range(PARTITIONS)]
    return tuple(leaf_of(service, begun.get(place) or empty_head(*place)) for place in places)


def super_root_of(leaves: Iterable[bytes]) -> str:
    return root(map(leaf_hash, leaves)).hex()


def view_of(anchor: Anchor, tenant: str) -> TenantAnchor:
    """Show an anchor to one tenant, with the inclusion paths of its heads (RFC 6962, section 2.1.1)."""
    levels = _levels([leaf_hash(leaf) for leaf in anchor.heads])
    size = len(anchor.heads)
    own = [(index, leaf, told) for index, leaf in enumerate(anchor.heads) if (told := read_leaf(leaf)).tenant == tenant]
    heads = (
        SignedHead(
            partition=told.partition,
            size=told.size,
            root=bytes.fromhex(told.root),
            leaf=leaf,
            index=index,
            path=tuple(inclusion_path(index, size, lambda level, at: levels[level][at])),
        )
        for index, leaf, told in own
    )
    return TenantAnchor(anchor.said.seq, anchor.statement, anchor.signature, anchor.key_id, tuple(heads))


def _levels(hashes: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Hash the roots of all perfect subtrees, level by level."""
    levels = [hashes]
    while len(hashes) > 1:
        hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=False)]
        levels.append(hashes)
    return levels
