"""An archive object's bytes: the same for the same range, readable in parts, and no bit of them without a guard."""

from hashlib import sha256
from typing import Any

import msgspec
import pytest

from holdfast.archive import format as form
from holdfast.archive.format import (
    END,
    FRAME_BYTES,
    FRAME_COMMITS_MAX,
    HEAD,
    CutShort,
    FooterChanged,
    FrameChanged,
    NotACommit,
    NotAnArchive,
    Placed,
    Range,
    read_footer,
    read_frame,
    read_whole,
    write,
)
from holdfast.objects import Damaged
from holdfast.streams.packing import pack

HELD = Range("t", 2, 11, 18, 5)


def row(first_version: int, count: int = 1, *, packed: bytes | None = None) -> dict[str, Any]:
    events = [f"{first_version + n}".encode() for n in range(count)]
    return {
        "sk": first_version,
        "n": count,
        "ev": packed or pack(events),
        "commit_id": f"c{first_version}",
        "fp": b"f" * 32,
        "actor": "ann",
        "rt": 1_000 + first_version,
        "tlo": 100 + first_version,
        "thi": 200 + first_version,
        "prev": b"p" * 32,
        "root": b"r" * 32,
        "hash": b"h" * 32,
    }


COMMITS = [
    Placed("a/1", 11, row(4, 2)),
    Placed("b/1", 13, row(1)),
    Placed("a/1", 14, row(6, 3)),
    Placed("b/1", 17, row(2, 2)),
]


def body() -> bytes:
    return write(HELD, COMMITS)[0]


def test_what_was_written_is_read_back():
    written, pieces = write(HELD, COMMITS)

    assert read_footer(written).range == HELD
    found = list(read_whole(written))
    assert tuple(piece for piece, _ in found) == pieces
    assert [(piece.stream, rows) for piece, rows in found] == [
        ("a/1", [COMMITS[0].row, COMMITS[2].row]),
        ("b/1", [COMMITS[1].row, COMMITS[3].row]),
    ]
    assert [piece.positions for piece in pieces] == [(11, 14), (13, 17)]


def test_a_piece_says_what_is_in_its_frame():
    (first, _) = write(HELD, COMMITS)[1]

    assert (first.first_version, first.version, first.earliest, first.latest) == (4, 8, 104, 206)


def test_a_frame_is_read_without_the_rest():
    written, pieces = write(HELD, COMMITS)

    rows = read_frame(pieces[1], written[pieces[1].offset : pieces[1].offset + pieces[1].length])

    assert rows == [COMMITS[1].row, COMMITS[3].row]


def test_the_same_range_has_the_same_bytes():
    shuffled = [Placed(commit.stream, commit.position, dict(reversed(list(commit.row.items())))) for commit in COMMITS]

    assert write(HELD, shuffled)[0] == body()


def test_the_form_of_today_can_be_read_for_ever():
    """What has been written stays as it is: other bytes are a new version of the format."""
    # Compressed events are left out: another zlib packs the same events into other bytes.
    written = write(HELD, [Placed("a/1", 11, row(4, packed=b"packed")), Placed("b/1", 12, row(1, packed=b"too"))])[0]

    assert written.startswith(b"holdfast/archive")
    assert written.endswith(b"/archive")
    assert sha256(written).hexdigest() == "c0a427507551c03dac3d3489f9a54826da508be7e1830880ef21aa33a9c648c5"


def test_an_attribute_that_is_added_to_commits_one_day_is_kept():
    commit = Placed("a/1", 11, row(1) | {"later": [1, "two", {"three": b"3"}]})

    ((_, rows),) = read_whole(write(HELD, [commit])[0])

    assert rows == [commit.row]


def test_a_frame_holds_so_many_commits_at_most():
    commits = [Placed("a/1", number, row(number)) for number in range(1, 2 * FRAME_COMMITS_MAX + 2)]

    sizes = [len(rows) for _, rows in read_whole(write(HELD, commits)[0])]

    assert sizes == [FRAME_COMMITS_MAX, FRAME_COMMITS_MAX, 1]


def test_a_frame_closes_when_it_is_large_enough():
    large = b"x" * (FRAME_BYTES // 2)
    commits = [Placed("a/1", number, row(number, packed=large)) for number in range(1, 6)]

    assert [len(rows) for _, rows in read_whole(write(HELD, commits)[0])] == [2, 2, 1]


def test_every_bit_counts():
    written = body()
    for at in range(len(written)):
        for bit in range(8):
            changed = bytearray(written)
            changed[at] ^= 1 << bit
            with pytest.raises(Damaged):
                list(read_whole(bytes(changed)))


def test_cut_anywhere_it_is_not_taken_for_whole():
    written = body()
    for length in range(len(written)):
        with pytest.raises(Damaged):
            list(read_whole(written[:length]))
        with pytest.raises(Damaged):
            list(read_whole(written[length + 1 :]))


def changed(at: int) -> bytes:
    written = bytearray(body())
    written[at] ^= 1
    return bytes(written)


@pytest.mark.parametrize(
    ("damaged", "error"),
    [
        (b"", NotAnArchive),
        (changed(0), NotAnArchive),
        (HEAD, CutShort),
        (HEAD + END, CutShort),
        (body()[:-1], CutShort),
        (changed(-1), CutShort),
        (body()[: -len(END) - 8] + (10**6).to_bytes(8, "big") + END, CutShort),
        (changed(-len(END) - 20), FooterChanged),
        (changed(-60), FooterChanged),
        (changed(len(HEAD)), FrameChanged),
    ],
)
def test_each_damage_has_a_name(damaged, error):
    with pytest.raises(error):
        list(read_whole(damaged))


def test_an_object_of_a_later_version_is_not_guessed_at():
    footer = msgspec.msgpack.encode({"v": 2})
    later = HEAD + footer + sha256(footer).digest() + len(footer).to_bytes(8, "big") + END

    with pytest.raises(NotAnArchive):
        read_footer(later)


@pytest.mark.parametrize("rows", [[], [row(4, 2)], [row(4, 2), row(7, 2)], [row(3, 3), row(6, 3)]])
def test_a_frame_that_holds_other_versions_than_its_piece_says_is_refused(rows):
    frame = form._ENCODER.encode(rows)
    piece = msgspec.structs.replace(write(HELD, COMMITS)[1][0], digest=sha256(frame).digest())

    with pytest.raises(FrameChanged):
        read_frame(piece, frame)


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (b"", FrameChanged),
        (form._ENCODER.encode("no rows"), FrameChanged),
        (form._ENCODER.encode([{"sk": 4}]), NotACommit),
        (form._ENCODER.encode([row(4, 2) | {"rt": "noon"}]), NotACommit),
    ],
)
def test_a_frame_that_holds_no_commits_is_refused_whatever_its_digest(frame, error):
    piece = msgspec.structs.replace(write(HELD, COMMITS)[1][0], digest=sha256(frame).digest())

    with pytest.raises(error):
        read_frame(piece, frame)


def test_a_footer_that_says_something_else_is_refused_whatever_its_digest():
    for footer in (b"", msgspec.msgpack.encode([]), msgspec.msgpack.encode({"v": 1})):
        with pytest.raises(FooterChanged):
            read_footer(HEAD + footer + sha256(footer).digest() + len(footer).to_bytes(8, "big") + END)


@pytest.mark.parametrize("shift", [1, -1])
def test_frames_with_bytes_between_them_are_refused(shift):
    written, pieces = write(HELD, COMMITS)
    moved = msgspec.structs.replace(pieces[1], offset=pieces[1].offset + shift)
    footer = form._ENCODER.encode(form.Footer(HELD, (pieces[0], moved)))
    frames = written[: pieces[1].offset + pieces[1].length]

    with pytest.raises(FooterChanged):
        read_footer(frames + footer + sha256(footer).digest() + len(footer).to_bytes(8, "big") + END)


def test_bytes_before_the_footer_that_belong_to_no_frame_are_refused():
    written, pieces = write(HELD, COMMITS)
    footer = form._ENCODER.encode(form.Footer(HELD, pieces))
    frames = written[: pieces[1].offset + pieces[1].length]

    with pytest.raises(FooterChanged):
        read_footer(frames + b"!" + footer + sha256(footer).digest() + len(footer).to_bytes(8, "big") + END)
