"""
The rows by which the archive is found and moved, in the log's table.

    AC#<tenant>#<partition> / 0                the cursor: how far the partition is archived, and which range is next
    A#<tenant>#<stream> / <first version>      a piece: the object, place and digest of consecutive commits
    AO#<tenant>#<partition> / <last position>  an object: the range that it holds

A piece and an object's row are a pure function of the object, which is written once: to put them again changes nothing.
"""

import msgspec

from holdfast.archive.format import Piece, Range
from holdfast.dynamodb.attributes import ordered
from holdfast.dynamodb.reads import Row


class Cursor(msgspec.Struct, frozen=True):
    """How far a partition is archived: up to *position*."""

    position: int = 0
    sealing: int = 0
    """Where the range ends that has been begun; 0 if none has."""
    freed: int = 0
    """Streams of that range, in the order of its object, whose commits have been removed from the table."""


class ObjectPiece(msgspec.Struct, frozen=True):
    """A piece, and the object that holds it."""

    key: str
    piece: Piece


def cursor_of(row: Row | None) -> Cursor:
    return Cursor(row["pos"], row["sealing"], row["freed"]) if row else Cursor()


def cursor_row(cursor: Cursor) -> Row:
    return {"pos": cursor.position, "sealing": cursor.sealing, "freed": cursor.freed}


def cursor_key(tenant: str, partition: int) -> str:
    return f"AC#{tenant}#{partition}"


def piece_key(tenant: str, stream: str) -> str:
    return f"A#{tenant}#{stream}"


def object_key(tenant: str, partition: int) -> str:
    return f"AO#{tenant}#{partition}"


def piece_row(held: Range, piece: Piece) -> Row:
    return {
        "pk": piece_key(held.tenant, piece.stream),
        "sk": ordered(piece.first_version),
        "v": piece.version,
        "object": held.key,
        "at": piece.offset,
        "bytes": piece.length,
        "digest": piece.digest,
        "tlo": piece.earliest,
        "thi": piece.latest,
    }


def piece_of(stream: str, row: Row) -> ObjectPiece:
    piece = Piece(
        stream=stream,
        first_version=int(row["sk"]),
        version=row["v"],
        earliest=row["tlo"],
        latest=row["thi"],
        positions=(),  # which the footer alone keeps
        offset=row["at"],
        length=row["bytes"],
        digest=row["digest"],
    )
    return ObjectPiece(row["object"], piece)


def object_row(held: Range, size_bytes: int) -> Row:
    return {
        "pk": object_key(held.tenant, held.partition),
        "sk": ordered(held.last_position),
        "first": held.first_position,
        "leaf": held.first_leaf,
        "bytes": size_bytes,
    }


def range_of(tenant: str, partition: int, row: Row) -> Range:
    return Range(tenant, partition, row["first"], int(row["sk"]), row["leaf"])
