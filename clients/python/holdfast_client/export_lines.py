"""
The lines of an export that this client makes or fetches: what it is of, its anchors, and its end.

A line has one form in bytes, and these members in this order: `holdfast_client.verifier`, which stands alone and takes
nothing from here, refuses every other.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from holdfast_client.audit_queries import PARTITIONS
from holdfast_client.errors import Unavailable

PATH_HASHES_MAX: Final = 64
"""Of a proof: more than any log has levels."""

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]


class Extent(Struct, frozen=True):
    """What an export holds of one partition."""

    partition: int
    from_leaf: int
    size: int


class Manifest(Struct, frozen=True, tag="manifest"):
    v: int
    service: str
    tenant: str
    log_id: str
    exported_at: str
    partitions: list[Extent]


class SignedHead(Struct, frozen=True):
    """How far a partition had come, and the path to the root that its anchor signs."""

    partition: int
    size: int
    root: Hash
    leaf: bytes
    index: int
    path: Annotated[list[Hash], Meta(max_length=PATH_HASHES_MAX)]


class Anchor(Struct, frozen=True, tag="anchor"):
    seq: int
    statement: bytes
    signature: bytes
    key_id: str
    """For people: which key is asked is never up to the service."""
    heads: Annotated[list[SignedHead], Meta(max_length=PARTITIONS)]


class End(Struct, frozen=True, tag="end"):
    lines: int
    sha256: str


class _Statement(Struct, frozen=True):
    service: str


class _HeadLeaf(Struct, frozen=True):
    tenant: str
    log_id: str


def log_of(anchor: Anchor) -> tuple[str, str, str]:
    """
    Say of which log *anchor* claims to be: its service, tenant and id.

    Raises:
        Unavailable: `unreadable_answer`; it is of none.
    """
    try:
        leaf = msgspec.json.decode(anchor.heads[0].leaf, type=_HeadLeaf)
        return msgspec.json.decode(anchor.statement, type=_Statement).service, leaf.tenant, leaf.log_id
    except (msgspec.MsgspecError, IndexError) as error:
        raise Unavailable("unreadable_answer", f"The service's anchor is none of this log: {error}") from error
