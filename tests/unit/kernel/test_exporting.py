"""A log as pages of lines: complete, bounded, and true to the stored bytes."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from holdfast import exporting
from holdfast.archive.format import HEAD, FrameChanged
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.reads import get, query
from holdfast.errors import Invalid, NotFound
from holdfast.exporting import Bookmark, Exporter, Page
from holdfast.log import Entry, partition_of
from holdfast.log.bodies import Bodies
from holdfast.objects import Damaged
from holdfast.proofs import TILE_HASHES, Frontier, leaf_hash
from holdfast.streams.packing import pack
from tests.archive_lab import archive_lab
from tests.log_lab import LogLab, log_lab

STREAMS = ("orders/3", "orders/4", "orders/5")
PARTITION = partition_of(STREAMS[0])
COMMITS = TILE_HASHES + 20


@pytest.fixture(scope="module")
def long_lab() -> LogLab:
    """More commits than one tile holds, all in one partition."""
    lab = log_lab()
    lab.indexer().index([lab.append(STREAMS[number % len(STREAMS)], 1 + number % 3) for number in range(COMMITS)])
    assert lab.log().head(PARTITION).size == COMMITS
    return lab


@pytest.fixture(scope="module")
def whole(long_lab: LogLab) -> list[dict[str, Any]]:
    (page,) = pages(long_lab)
    return decoded(page)


@pytest.fixture
def lab() -> LogLab:
    lab = log_lab()
    lab.indexer().index([lab.append(STREAMS[number % 3], 2) for number in range(6)])
    return lab


def exporter(lab: LogLab, on_damaged: Callable[[Exception], None] = lambda _error: None) -> Exporter:
    return Exporter(lab.log(), Bodies(lab.database(), lab.tables), on_damaged)


def decoded(page: Page) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in page.lines]


def pages(lab: LogLab, from_leaf: int = 0) -> Iterator[Page]:
    place = None
    while True:
        page = exporter(lab).page(PARTITION, from_leaf, place)
        yield page
        place = page.following
        if place is None:
            return


def raw(value: str) -> bytes:
    return msgspec.convert(value, bytes)


def test_every_commit_is_exported_once_and_in_order(long_lab, whole):
    assert [line["leaf"] for line in whole] == list(range(COMMITS))
    positions = [1]
    for line in whole:
        assert line["position"] == positions[-1]
        positions.append(line["position"] + len(line["events"]))
    entries = list(long_lab.log().entries(PARTITION))
    assert [leaf_hash(raw(line["header"])) for line in whole] == [entry.reference.leaf_hash for entry in entries]


def test_an_empty_partition_is_an_empty_page(lab):
    other = (PARTITION + 1) % 4

    assert exporter(lab).page(other) == Page([], None)


@pytest.mark.parametrize("most", [1, 7, 100])
def test_pages_end_at_a_number_of_commits_and_go_on_where_they_ended(long_lab, whole, monkeypatch, most):
    monkeypatch.setattr(exporting, "PAGE_COMMITS_MAX", most)
    got = list(pages(long_lab, COMMITS - 30))

    assert [line for page in got for line in decoded(page)][1:] == whole[-30:]
    assert {len(page.lines) for page in got[1:-1]} <= {most}


def test_pages_end_before_they_are_too_large_and_hold_one_commit_at_least(lab, monkeypatch):
    (whole,) = pages(lab)
    size = max(len(bytes(line)) for line in whole.lines)
    for most, expected in ((size * 2, 2), (size, 1), (1, 1)):
        monkeypatch.setattr(exporting, "PAGE_BYTES_MAX", most)
        got = list(pages(lab))

        assert [len(page.lines) for page in got] == [expected] * (6 // expected)
        assert [line for page in got for line in page.lines] == whole.lines


@pytest.mark.parametrize("leaf", [1, 2, 3, 100, TILE_HASHES - 1, TILE_HASHES, TILE_HASHES + 1, COMMITS - 1, COMMITS])
def test_an_export_from_a_leaf_begins_with_what_stands_for_the_commits_before(long_lab, whole, leaf):
    lines = [line for page in pages(long_lab, leaf) for line in decoded(page)]

    assert lines[1:] == whole[leaf:]
    frontier = Frontier().extend(leaf_hash(raw(line["header"])) for line in whole[:leaf])
    assert lines[0] == {
        "type": "frontier",
        "partition": PARTITION,
        "size": leaf,
        "hashes": msgspec.to_builtins(list(frontier.hashes)),
    }


def test_a_page_ends_where_the_log_ends_and_the_next_begins_there(lab):
    (first,) = pages(lab)
    lab.indexer().index([lab.append(STREAMS[0])])

    page = exporter(lab).page(PARTITION, 0, Bookmark(6, 12))

    assert [line["leaf"] for line in decoded(page)] == [6]
    assert len(first.lines) == 6


def test_what_is_not_there_is_refused(lab):
    with pytest.raises(NotFound):
        exporter(lab).page(4)
    with pytest.raises(Invalid):
        exporter(lab).page(PARTITION, 7)
    with pytest.raises(Invalid):
        exporter(lab).page(PARTITION, -1)


def changed(lab: LogLab, leaf: int, change: Callable[[dict[str, Any]], object]) -> Entry:
    """Change the row of the commit at *leaf* as somebody with all rights would."""
    entry = list(lab.log().entries(PARTITION))[leaf]
    pk, sk = f"S#{lab.tenant}#{entry.reference.stream}", entry.reference.first_version
    row = get(lab.database(), lab.tables.commits, pk, sk)
    assert row
    change(row)
    lab.transport.call("PutItem", {"TableName": lab.tables.commits, "Item": to_item(row)})
    return entry


def damaged(entry: Entry, reason: str) -> dict[str, Any]:
    stream, version = entry.reference.stream, entry.reference.first_version
    place = {"partition": PARTITION, "leaf": entry.leaf, "stream": stream, "version": version}
    return {"type": "damaged", **place, "reason": reason}


def test_a_commit_that_was_removed_is_named_and_ends_the_export(lab):
    entry = list(lab.log().entries(PARTITION))[3]
    stream, first = entry.reference.stream, entry.reference.first_version
    key = to_item({"pk": f"S#{lab.tenant}#{stream}", "sk": first})
    lab.transport.call("DeleteItem", {"TableName": lab.tables.commits, "Key": key})

    (page,) = pages(lab)
    lines = decoded(page)

    assert [line["leaf"] for line in lines[:-1]] == [0, 1, 2]
    assert lines[-1] == damaged(entry, f"{lab.tenant}: commit {first} of {stream!r}")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda row: row.pop("root"), "KeyError"),
        (lambda row: row.pop("ev"), "KeyError"),
        (lambda row: row.update(rt=10**30), "OverflowError"),
        (lambda row: row.update(rt="soon"), "TypeError"),
        (lambda row: row.update(ev="no bytes"), "TypeError"),
        (lambda row: row.update(prev=7), "AttributeError"),
    ],
    ids=["no root", "no events", "a huge time", "a word for a time", "text for events", "a number for a hash"],
)
def test_a_row_that_is_no_commit_any_more_is_named_and_told_of(lab, change, word):
    entry = changed(lab, 3, change)
    told: list[Exception] = []

    page = exporter(lab, told.append).page(PARTITION)

    lines = decoded(page)
    assert [line["leaf"] for line in lines] == [0, 1, 2, 3]
    assert lines[-1] == damaged(entry, lines[-1]["reason"])
    assert word in lines[-1]["reason"]
    assert page.following is None
    assert [type(each) for each in told] == [Damaged]


def test_a_byte_that_was_changed_in_the_archive_is_named_with_the_first_commit_that_it_touches():
    lab = archive_lab()
    lab.index([lab.append(STREAMS[number % 3], 2) for number in range(9)])
    lab.age()
    lab.archiver().partition(lab.tenant, PARTITION).archive()
    (key,) = list(lab.objects.keys(""))
    body = bytearray(lab.objects._bodies[key])
    body[len(HEAD) + 9] ^= 1
    lab.objects._bodies[key] = bytes(body)
    told: list[Exception] = []

    reader = Exporter(lab.log(), Bodies(lab.database(), lab.tables, lab.reader()), told.append)
    lines = decoded(reader.page(PARTITION))

    assert lines[-1]["type"] == "damaged"
    assert (lines[-1]["leaf"], lines[-1]["stream"]) == (0, STREAMS[0])
    assert "lacks its digest" in lines[-1]["reason"]
    assert [type(each) for each in told] == [FrameChanged]


def test_a_row_of_the_log_itself_that_cannot_be_read_is_named_by_its_first_leaf(lab):
    lab.indexer().index([lab.append(STREAMS[0], 1)])
    pk = f"L#{lab.tenant}#{PARTITION}"
    newest = next(query(lab.database(), lab.tables.log, pk, newest_first=True, limit=1))
    lab.transport.call("PutItem", {"TableName": lab.tables.log, "Item": to_item(newest | {"refs": b"nonsense"})})

    lines = decoded(exporter(lab).page(PARTITION))

    assert [line["leaf"] for line in lines] == [0, 1, 2, 3, 4, 5, 6]
    assert lines[-1] | {"reason": ""} == {
        "type": "damaged", "partition": PARTITION, "leaf": 6, "stream": "", "version": 0, "reason": "",
    }  # fmt: skip


@pytest.mark.parametrize("packed", [b"no zlib", pack([b"{}"])], ids=["garbage", "another event"])
def test_a_commit_that_was_changed_is_exported_as_it_is(lab, packed):
    entry = list(lab.log().entries(PARTITION))[3]
    key = to_item({"pk": f"S#{lab.tenant}#{entry.reference.stream}", "sk": entry.reference.first_version})
    lab.transport.call(
        "UpdateItem",
        {
            "TableName": lab.tables.commits,
            "Key": key,
            "UpdateExpression": "SET ev = :ev",
            "ExpressionAttributeValues": to_item({":ev": packed}),
        },
    )

    (page,) = pages(lab)
    line = decoded(page)[3]

    assert leaf_hash(raw(line["header"])) == entry.reference.leaf_hash
    assert [raw(each) for each in line["events"]] == ([] if packed == b"no zlib" else [b"{}"])
