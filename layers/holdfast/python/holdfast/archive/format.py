"""
An archive object: one range of a log partition, its commits as they lay in their table.

    head      16 bytes that say what this is
    frames    each a msgpack list of maps: consecutive commits of one stream, every attribute that they had in the
              table but for the partition key, their events packed as they were
    footer    a msgpack map: which range this is, and of every frame its stream, versions, times, place and digest
    trailer   SHA-256 of the footer, the footer's length in 8 bytes (big-endian), and 8 bytes that end the object

Every byte is under a digest or has one value that it may have, and a range has one form in bytes. Whoever holds an
object needs nothing else to read it, and a frame can be read without the rest of it. Pure.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Any, Final

import msgspec

from holdfast.clock import to_micros
from holdfast.dynamodb.attributes import ordered
from holdfast.objects import Damaged

FRAME_BYTES: Final = 256_000
"""Packed events after which a frame closes: what is fetched, at least, to read one archived commit."""
FRAME_COMMITS_MAX: Final = 128
"""Commits of one frame."""

HEAD: Final = b"holdfast/archive"
END: Final = b"/archive"
_LENGTH_BYTES: Final = 8
_DIGEST_BYTES: Final = 32
_TRAILER_BYTES: Final = _DIGEST_BYTES + _LENGTH_BYTES + len(END)

Row = dict[str, Any]
"""A commit's attributes in its table, without the partition key."""


class NotAnArchive(Damaged):
    """The bytes do not begin as an archive object does, or are of a version that is not known here."""


class CutShort(Damaged):
    """The bytes do not end as an archive object does."""


class FooterChanged(Damaged):
    """The footer is not what was written."""


class FrameChanged(Damaged):
    """A frame is not what was written, or does not hold what the footer says."""


class NotACommit(Damaged):
    """A row lacks what every commit has, or has it in another form."""


_FIRST_MOMENT: Final = to_micros(datetime.min.replace(tzinfo=UTC))
_LAST_MOMENT: Final = to_micros(datetime.max.replace(tzinfo=UTC))

Micros = Annotated[int, msgspec.Meta(ge=_FIRST_MOMENT, le=_LAST_MOMENT)]


class _Whole(msgspec.Struct):
    """What every commit has."""

    sk: int
    n: int
    ev: bytes
    commit_id: str
    fp: bytes
    actor: str
    rt: Micros
    tlo: Micros
    thi: Micros
    prev: bytes
    root: bytes
    hash: bytes


class Range(msgspec.Struct, frozen=True):
    """What one object holds: all commits of a partition at these positions."""

    tenant: str
    partition: int
    first_position: int
    last_position: int
    """Of the last event of the last commit."""
    first_leaf: int

    @property
    def key(self) -> str:
        """Name the object."""
        span = f"{ordered(self.first_position)}-{ordered(self.last_position)}"
        return f"archive/{self.tenant}/{self.partition}/{span}"


class Piece(msgspec.Struct, frozen=True):
    """One frame: consecutive commits of a stream, and where their bytes are."""

    stream: str
    first_version: int
    version: int
    """Of its last event."""
    earliest: int
    latest: int
    """Bounds of its events' own times, in microseconds."""
    positions: tuple[int, ...]
    """Of each commit in the log's partition."""
    offset: int
    length: int
    digest: bytes


class Footer(msgspec.Struct, frozen=True):
    range: Range
    pieces: tuple[Piece, ...]
    v: int = 1


class Placed(msgspec.Struct, frozen=True):
    """A commit on its way into an object."""

    stream: str
    position: int
    """Of its first event."""
    row: Row

    @property
    def last_position(self) -> int:
        last: int = self.position + self.row["n"] - 1
        return last


def checked(stream: str, row: Row) -> Row:
    """
    Let through a row that is a whole commit of *stream*, whatever it says.

    Raises:
        NotACommit
    """
    try:
        msgspec.convert(row, _Whole, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise NotACommit(f"Version {row.get('sk')} of {stream!r} is no whole commit: {error}.") from error
    return row


def version_of(row: Row) -> int:
    """Say which version a commit ends at."""
    last: int = row["sk"] + row["n"] - 1
    return last


def write(held: Range, commits: Iterable[Placed]) -> tuple[bytes, tuple[Piece, ...]]:
    """
    Write *commits*, which come in the order of the log, as the one object of their range.

    Raises:
        NotACommit
    """
    streams: dict[str, list[Placed]] = {}
    for commit in commits:
        streams.setdefault(commit.stream, []).append(commit)
    body, pieces = bytearray(HEAD), list[Piece]()
    for stream in streams.values():
        for members in _framed(stream):
            frame = _frame_of(members)
            pieces.append(_piece(members, len(body), frame))
            body += frame
    footer = _ENCODER.encode(Footer(held, tuple(pieces)))
    body += footer + sha256(footer).digest() + len(footer).to_bytes(_LENGTH_BYTES, "big") + END
    return bytes(body), tuple(pieces)


def read_footer(body: bytes) -> Footer:
    """
    Read what an object holds, and where.

    Raises:
        NotAnArchive, CutShort, FooterChanged
    """
    if not body.startswith(HEAD):
        raise NotAnArchive("These bytes do not begin as an archive object does.")
    if len(body) < len(HEAD) + _TRAILER_BYTES or not body.endswith(END):
        raise CutShort("These bytes do not end as an archive object does.")
    trailer = body[-_TRAILER_BYTES:]
    length = int.from_bytes(trailer[_DIGEST_BYTES : _DIGEST_BYTES + _LENGTH_BYTES], "big")
    start = len(body) - _TRAILER_BYTES - length
    if start < len(HEAD):
        raise CutShort(f"A footer of {length} bytes does not fit before the trailer.")
    packed = body[start:-_TRAILER_BYTES]
    if sha256(packed).digest() != trailer[:_DIGEST_BYTES]:
        raise FooterChanged("The footer does not have its digest.")
    footer = _footer_of(packed)
    at = len(HEAD)
    for piece in footer.pieces:
        if piece.offset != at:
            raise FooterChanged("The frames do not lie one behind the other.")
        at += piece.length
    if at != start:
        raise FooterChanged("The frames do not end where the footer begins.")
    return footer


def read_frame(piece: Piece, frame: bytes) -> list[Row]:
    """
    Read the commits of one frame.

    Raises:
        FrameChanged, NotACommit
    """
    if sha256(frame).digest() != piece.digest:
        raise FrameChanged(f"The frame of {piece.stream!r} from version {piece.first_version} lacks its digest.")
    try:
        rows = [checked(piece.stream, row) for row in _ROWS.decode(frame)]
    except msgspec.MsgspecError as error:
        raise FrameChanged(f"The frame of {piece.stream!r} holds no commits.") from error
    follow = all(version_of(before) + 1 == after["sk"] for before, after in pairwise(rows))
    if not rows or not follow or (rows[0]["sk"], version_of(rows[-1])) != (piece.first_version, piece.version):
        raise FrameChanged(f"The frame of {piece.stream!r} does not hold versions {piece.first_version} on.")
    return rows


def read_whole(body: bytes) -> Iterator[tuple[Piece, list[Row]]]:
    """
    Read everything that an object holds, frame by frame.

    Raises:
        NotAnArchive, CutShort, FooterChanged, FrameChanged, NotACommit
    """
    for piece in read_footer(body).pieces:
        yield piece, read_frame(piece, body[piece.offset : piece.offset + piece.length])


def _framed(commits: Iterable[Placed]) -> Iterator[list[Placed]]:
    members, weight = list[Placed](), 0
    for commit in commits:
        members.append(commit)
        weight += len(commit.row["ev"])
        if weight >= FRAME_BYTES or len(members) == FRAME_COMMITS_MAX:
            yield members
            members, weight = [], 0
    if members:
        yield members


def _frame_of(members: list[Placed]) -> bytes:
    try:
        return _ENCODER.encode([commit.row for commit in members])
    except OverflowError as error:
        raise NotACommit(f"A number in a commit of {members[0].stream!r} is none that commits have.") from error


def _piece(members: list[Placed], offset: int, frame: bytes) -> Piece:
    return Piece(
        stream=members[0].stream,
        first_version=members[0].row["sk"],
        version=version_of(members[-1].row),
        earliest=min(commit.row["tlo"] for commit in members),
        latest=max(commit.row["thi"] for commit in members),
        positions=tuple(commit.position for commit in members),
        offset=offset,
        length=len(frame),
        digest=sha256(frame).digest(),
    )


def _footer_of(packed: bytes) -> Footer:
    try:
        if msgspec.msgpack.decode(packed, type=_Versioned).v == 1:
            return msgspec.msgpack.decode(packed, type=Footer)
    except msgspec.MsgspecError as error:
        raise FooterChanged("The footer says nothing of an archive.") from error
    raise NotAnArchive("This archive object is of a later version.")


class _Versioned(msgspec.Struct):
    v: int


_ENCODER: Final = msgspec.msgpack.Encoder(order="sorted")
_ROWS: Final = msgspec.msgpack.Decoder(list[Row])
