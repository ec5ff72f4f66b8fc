"""
What an export is made of, to the byte: JSON lines, and in them what is hashed and signed.

What is unknown here is refused and not skipped: a verifier that overlooks something proves something else.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

PARTITIONS: Final = 4
"""Of one tenant's log; a stream lies in one of them."""
HASH_BYTES: Final = 32
PATH_HASHES_MAX: Final = 64
"""Of a proof: more than any log has levels."""

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Number = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Partition = Annotated[int, Meta(ge=0, lt=PARTITIONS)]
One = Annotated[int, Meta(ge=1, le=1)]
"""The only version of these formats that there is."""
Hash = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
Hashes = Annotated[list[Hash], Meta(max_length=PATH_HASHES_MAX)]


# What is hashed and signed. The fields are in the order of the bytes.


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    actor: str
    commit_id: str
    events_root: str
    first: Number
    n: Number
    prev: str
    rt: int
    stream: str
    tenant: str
    v: One


class HeadLeaf(Struct, frozen=True, forbid_unknown_fields=True):
    log_id: str
    partition: Partition
    root: str
    size: Count
    tenant: str
    v: One


class Statement(Struct, frozen=True, forbid_unknown_fields=True):
    leaves: Number
    previous: str
    seq: Number
    service: str
    super_root: str
    time: Count
    v: One


# The lines of an export.


class Extent(Struct, frozen=True, forbid_unknown_fields=True):
    partition: Partition
    from_leaf: Count
    size: Count


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, tag="manifest"):
    v: One
    service: str
    tenant: str
    log_id: str
    exported_at: str
    partitions: Annotated[list[Extent], Meta(max_length=PARTITIONS)]


class Frontier(Struct, frozen=True, forbid_unknown_fields=True, tag="frontier"):
    partition: Partition
    size: Number
    hashes: Hashes


class Commit(Struct, frozen=True, forbid_unknown_fields=True, tag="commit"):
    partition: Partition
    leaf: Count
    position: Number
    header: bytes
    events: list[bytes]


class Lost(Struct, frozen=True, forbid_unknown_fields=True, tag="lost"):
    """The exporter itself cannot find a commit that its log names."""

    partition: Partition
    leaf: Count
    stream: str
    version: Number


class SignedHead(Struct, frozen=True, forbid_unknown_fields=True):
    partition: Partition
    size: Count
    root: Hash
    leaf: bytes
    index: Count
    path: Hashes


class Anchor(Struct, frozen=True, forbid_unknown_fields=True, tag="anchor"):
    seq: Number
    statement: bytes
    signature: bytes
    key_id: str
    """For people: which key is asked is never up to the export."""
    heads: Annotated[list[SignedHead], Meta(max_length=PARTITIONS)]


class End(Struct, frozen=True, forbid_unknown_fields=True, tag="end"):
    lines: Count
    sha256: str


Line = Manifest | Frontier | Commit | Lost | Anchor | End
