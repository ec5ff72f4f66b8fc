"""What an object holds, proven against the log before anything is removed for its sake. Pure."""

import zlib
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from holdfast.archive.format import Piece, Range, Row, read_footer, read_whole
from holdfast.clock import from_micros
from holdfast.log.values import Entry, Reference
from holdfast.objects import Damaged
from holdfast.proofs import leaf_hash
from holdfast.streams.packing import header_of, root_of, unpack


class NotTheLog(Damaged):
    """The object does not hold what the log says of its range."""


class Contents(msgspec.Struct, frozen=True):
    """A range as it was read back, every commit of it proven to be the log's."""

    range: Range
    pieces: tuple[Piece, ...]
    streams: dict[str, list[Row]]
    """The commits of each stream, in order."""
    size_bytes: int


def prove(body: bytes, held: Range, entries: Sequence[Entry]) -> Contents:
    """
    Read an object back, and compare it with what the log says of the range that it should hold.

    Each commit's leaf is computed anew, from the bytes of its events on; the log's own leaf hash is what counts.

    Raises:
        Damaged: it was changed, cut short, or is something else.
    """
    if read_footer(body).range != held:
        raise NotTheLog("The object holds another range.")
    wanted = {entry.position: entry.reference for entry in entries}
    pieces, streams = list[Piece](), dict[str, list[Row]]()
    for piece, rows in read_whole(body):
        pieces.append(piece)
        streams.setdefault(piece.stream, []).extend(rows)
        if len(piece.positions) != len(rows):
            raise NotTheLog(f"The object does not say where each commit of {piece.stream!r} lies.")
        for position, row in zip(piece.positions, rows, strict=True):
            reference = wanted.pop(position, None)
            if reference is None or not _is(reference, held.tenant, piece.stream, row):
                raise NotTheLog(f"Version {row['sk']} of {piece.stream!r} is not what the log names.")
    if wanted:
        raise NotTheLog(f"The object lacks {len(wanted)} commits that the log names.")
    return Contents(held, tuple(pieces), streams, len(body))


def _is(reference: Reference, tenant: str, stream: str, row: Row) -> bool:
    """Tell whether a commit is the one that the log means, and says of itself what it is."""
    try:
        events = unpack(row["ev"])
    except zlib.error:
        return False
    root = root_of(events)
    header = header_of(
        tenant=tenant,
        stream=stream,
        first_version=row["sk"],
        count=len(events),
        events_root=root,
        commit_id=row["commit_id"],
        actor=row["actor"],
        recorded_at=from_micros(row["rt"]),
        previous_hash=row["prev"],
    )
    said = row["n"], row["root"], row["hash"]
    return leaf_hash(header) == reference.leaf_hash and said == (len(events), root, sha256(header).digest())
