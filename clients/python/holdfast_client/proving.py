"""
Check that one event is in a history that was signed, with the verifier's own eyes.

The event hashes to its commit's root, the commit's header to a leaf of the log, the leaf to the root of a head, and the
head to what an anchor signs. Only the anchor's key is taken on trust, and that is pinned. What one event's proof cannot
say is that nothing before it was changed since an earlier look: that is `verifier.verify`'s.
"""

from base64 import b64decode
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import Struct

from holdfast_client.audit_queries import Proof, partition_of
from holdfast_client.errors import Unavailable
from holdfast_client.export_lines import Anchor, SignedHead, log_of
from holdfast_client.verifier import Broken, State, keys_of, read_anchor, read_header, root_by_path


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


class _Said(Struct, frozen=True):
    """What a header says beside what is checked."""

    actor: str
    commit_id: str


def head_of(anchor: Anchor, stream: str) -> SignedHead | None:
    """Give the head under which *stream* lies; None if the anchor has none yet."""
    return next((head for head in anchor.heads if head.partition == partition_of(stream)), None)


def check_proof(proof: Proof, stream: str, version: int, anchor: Anchor, public_keys: bytes) -> Shown | Broken:
    """
    Check that *proof* shows *version* of *stream*, under *anchor*, signed by one of *public_keys* (PEM, pinned).

    Raises:
        ValueError: *public_keys* holds something else than public keys on P-256.
    """
    keys = keys_of(public_keys)
    place: dict[str, Any] = {
        "partition": partition_of(stream),
        "leaf": proof.leaf,
        "stream": stream,
        "version": version,
    }
    told = (anchor.seq, anchor.statement, anchor.signature, list(map(msgspec.structs.astuple, anchor.heads)))
    try:
        signed, _ = read_anchor(told, log_of(anchor), keys)
        return _shown(proof, stream, version, signed)
    except Broken as broken:
        return replace(broken, **place)
    except (ValueError, Unavailable) as error:
        return Broken(f"The proof or its anchor cannot be read: {error}", **place)


def _shown(proof: Proof, stream: str, version: int, signed: State) -> Shown:
    partition = partition_of(stream)
    size, root = signed.heads[partition]
    header, event = _bytes(proof.header), _bytes(proof.event_bytes)
    events_root, first, n, _, recorded_at, named, tenant = read_header(header.decode())
    if (tenant, named, first + proof.event_index) != (signed.tenant, stream, version):
        raise Broken("The proof is of another event.")
    if _root(event, proof.event_index, n, proof.event_path) != events_root:
        raise Broken("The event is not in its commit as it was recorded: one of the two was changed.")
    if proof.size != size or _root(header, proof.leaf, size, proof.path) != root:
        raise Broken("The commit is not in the log that was signed.")
    said = msgspec.json.decode(header, type=_Said)
    return Shown(
        tenant=tenant,
        stream=stream,
        version=version,
        partition=partition,
        leaf=proof.leaf,
        size=size,
        anchor=signed.seq,
        anchored_at=signed.time,
        commit_id=said.commit_id,
        actor=said.actor,
        recorded_at=recorded_at,
        event=event,
    )


def _root(leaf: bytes, index: int, size: int, path: list[str]) -> str:
    if index < 0:
        raise Broken("The proof has a place before the first.")
    return root_by_path(leaf, index, size, list(map(_bytes, path))).hex()


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)
