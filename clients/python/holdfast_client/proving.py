"""
Check that one event is in a history that was signed, with the verifier's own eyes.

The event hashes to its commit's root, the commit's header to a leaf of the log, the leaf to the root of a head, and the
head to what an anchor signs. Only the anchor's key is taken on trust, and that is pinned. What one event's proof cannot
say is that nothing before it was changed since an earlier look: that is `verifier.verify`'s.
"""

import base64
import binascii
from hashlib import sha256

import msgspec
from msgspec import Struct

from holdfast_client.audit_queries import Proof, partition_of
from holdfast_client.verifier import Broken, _Found, _read, _root_by_path, _signature_check, _stop
from holdfast_client.verifier_lines import Anchor, Header, HeadLeaf, SignedHead, Statement


class Shown(Struct, frozen=True):
    """The event is where it is said to be, under an anchor that a pinned key has signed."""

    tenant: str
    stream: str
    version: int
    partition: int
    leaf: int
    size: int
    """Of the tree that the anchor signs, in commits."""
    anchor: int
    anchored_at: int
    """In microseconds since 1970, as the signer says."""
    commit_id: str
    actor: str
    recorded_at: int
    """In microseconds since 1970, as the service says."""
    event: bytes
    """As it is stored; sealed content stays sealed."""


def head_of(anchor: Anchor, stream: str) -> SignedHead | None:
    """Give the head under which *stream* lies; None if the anchor has none yet."""
    return next((head for head in anchor.heads if head.partition == partition_of(stream)), None)


def check_proof(proof: Proof, stream: str, version: int, anchor: Anchor, public_keys: bytes) -> Shown | Broken:
    """
    Check that *proof* shows *version* of *stream*, under *anchor*, signed by one of *public_keys* (PEM, pinned).

    Raises:
        Invalid: *public_keys* holds something else than public keys on P-256.
    """
    is_signed = _signature_check(public_keys)
    try:
        if not is_signed(anchor.signature, anchor.statement):
            _stop(f"Anchor {anchor.seq} was not signed by a pinned key.")
        statement = _read(anchor.statement, Statement, f"Anchor {anchor.seq}")
        if statement.seq != anchor.seq:
            _stop(f"Anchor {anchor.seq} is another one: {statement.seq}.")
        head, leaf = _signed_head(anchor, statement, stream)
        return _shown(proof, stream, version, (statement, head, leaf))
    except _Found as found:
        return msgspec.structs.replace(
            found.broken, partition=partition_of(stream), leaf=proof.leaf, stream=stream, version=version
        )


def _signed_head(anchor: Anchor, statement: Statement, stream: str) -> tuple[SignedHead, HeadLeaf]:
    head = head_of(anchor, stream)
    if head is None:
        _stop(f"Anchor {anchor.seq} has no head of the partition in which the stream lies.")
    leaf = _read(head.leaf, HeadLeaf, f"A head of anchor {anchor.seq}")
    root = _root(head.leaf, head.index, statement.leaves, head.path)
    told = (head.partition, head.size, head.root.hex())
    if (leaf.partition, leaf.size, leaf.root) != told or root.hex() != statement.super_root:
        _stop(f"Anchor {anchor.seq} does not sign this head.")
    return head, leaf


def _shown(proof: Proof, stream: str, version: int, signed: tuple[Statement, SignedHead, HeadLeaf]) -> Shown:
    statement, head, leaf = signed
    header_bytes, event = _bytes(proof.header), _bytes(proof.event_bytes)
    header = _read(header_bytes, Header, "The commit's header")
    if (header.tenant, header.stream) != (leaf.tenant, stream) or version != header.first + proof.event_index:
        _stop("The proof is of another event.")
    if _root(event, proof.event_index, header.n, list(map(_bytes, proof.event_path))).hex() != header.events_root:
        _stop("The event is not in its commit as it was recorded: one of the two was changed.")
    in_log = _root(header_bytes, proof.leaf, head.size, list(map(_bytes, proof.path)))
    if proof.size != head.size or in_log != head.root:
        _stop("The commit is not in the log that was signed.")
    return Shown(
        tenant=header.tenant,
        stream=stream,
        version=version,
        partition=head.partition,
        leaf=proof.leaf,
        size=head.size,
        anchor=statement.seq,
        anchored_at=statement.time,
        commit_id=header.commit_id,
        actor=header.actor,
        recorded_at=header.rt,
        event=event,
    )


def _root(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    if index < 0:
        _stop("The proof has a place before the first.")
    return _root_by_path(sha256(b"\x00" + leaf).digest(), index, size, path)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        _stop(f"The proof cannot be read: {error}")
