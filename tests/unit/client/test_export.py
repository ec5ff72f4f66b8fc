"""Fetching a whole log, and keeping it in a file: against the real pages and anchors, without a network between."""

import gzip
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from holdfast import exporting
from holdfast.dynamodb.attributes import to_item
from holdfast.log import Hint
from holdfast.log.missing import Missing
from holdfast_client import Holdfast, verifier
from holdfast_client import export as module
from holdfast_client.audit_queries import partition_of
from holdfast_client.errors import Unavailable
from holdfast_client.export import Export, closed, write_lines
from holdfast_client.verifier import Broken, Proven, read_lines, verify
from tests.export_door import ExportDoor
from tests.exported_log import STREAMS, ExportedLog, pem
from tests.log_lab import LogLab, log_lab

COMMITS = 7


def grow(lab: LogLab, commits: int = COMMITS) -> None:
    hints = [lab.append(STREAMS[number % len(STREAMS)], 1 + number % 3) for number in range(commits)]
    lab.indexer().index(hints)


@pytest.fixture
def empty_door() -> ExportDoor:
    """A service that has nothing yet."""
    return ExportDoor(log_lab())


@pytest.fixture
def door(empty_door: ExportDoor) -> ExportDoor:
    door = empty_door
    grow(door.lab)
    door.anchors.sign()
    return door


@pytest.fixture
def export(door: ExportDoor) -> Export:
    return door.export()


def lines_of(export: Export, **rest: Any) -> list[bytes]:
    anchor = export.anchor()
    assert anchor
    return list(export.lines(anchor, **rest))


def kinds(lines: list[bytes]) -> list[str]:
    return [kind for kind, _ in itertools.groupby(msgspec.json.decode(line)["type"] for line in lines)]


def ended(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


# --- Lines


def test_what_is_fetched_is_proven(door, export):
    lines = lines_of(export)

    result = verify(lines, pem(door.signer))

    assert isinstance(result, Proven)
    assert (result.commits, result.not_yet_anchored) == (COMMITS, 0)
    assert result.events == sum(door.lab.written.values())
    assert kinds(lines) == ["manifest", "commit", "anchor", "end"]


@pytest.mark.parametrize("most", [1, 3])
def test_pages_are_followed(door, export, monkeypatch, most):
    whole = lines_of(export)
    monkeypatch.setattr(exporting, "PAGE_COMMITS_MAX", most)
    door.asked.clear()

    assert ended(lines_of(export))[1:] == ended(whole)[1:]
    assert door.asked.count("/v1/export") >= COMMITS // most


def test_what_comes_while_it_is_fetched_stays_out(door, export):
    asked = itertools.count()

    def grow_once(path: str) -> None:
        if path == "/v1/export" and next(asked) == 1:
            grow(door.lab, 5)
            door.anchors.sign()

    door.before_answer = grow_once
    lines = lines_of(export)

    result = verify(lines, pem(door.signer))
    assert isinstance(result, Proven), result
    assert (result.commits, result.not_yet_anchored) == (COMMITS, 0)


def test_what_is_not_anchored_yet_comes_with_it_and_is_told_apart(door, export):
    grow(door.lab, 5)

    result = verify(lines_of(export), pem(door.signer))

    assert isinstance(result, Proven)
    assert (result.commits, result.not_yet_anchored) == (COMMITS, 5)


def test_who_has_seen_an_anchor_gets_those_since(door, export):
    first = verify(lines_of(export), pem(door.signer))
    assert isinstance(first, Proven)
    for _ in range(3):
        grow(door.lab, 2)
        door.anchors.sign()

    lines = lines_of(export, seen_seq=1)

    seqs = [line["seq"] for line in map(msgspec.json.decode, lines) if line["type"] == "anchor"]
    assert seqs == [2, 3, 4]
    again = verify(lines, pem(door.signer), first.state)
    assert isinstance(again, Proven)
    assert again.state.seq == 4


def test_of_a_long_chain_only_the_newest_come(door, export, monkeypatch):
    monkeypatch.setattr(module, "ANCHORS_MAX", 1)
    for _ in range(3):
        grow(door.lab, 2)
        door.anchors.sign()

    seqs = [line["seq"] for line in map(msgspec.json.decode, lines_of(export, seen_seq=1)) if line["type"] == "anchor"]

    assert seqs == [3, 4]


def test_an_export_from_where_the_last_one_ended_is_proven_by_what_was_seen(door, export):
    first = verify(lines_of(export), pem(door.signer))
    assert isinstance(first, Proven)
    grow(door.lab, 6)
    door.anchors.sign()
    from_leaves = {partition: size for partition, (size, _) in first.state.heads.items()}

    lines = lines_of(export, from_leaves=from_leaves)

    result = verify(lines, pem(door.signer), first.state)
    assert isinstance(result, Proven), result
    assert (result.commits, result.from_leaves) == (6, from_leaves)


def test_a_log_that_ends_too_early_is_broken(door, export, monkeypatch):
    page = exporting.Exporter.page

    def shorter(*args: Any) -> Any:
        whole = page(*args)
        return exporting.Page(whole.lines[:-1], None)

    monkeypatch.setattr(exporting.Exporter, "page", shorter)

    assert isinstance(verify(lines_of(export), pem(door.signer)), Broken)


def test_a_service_that_answers_with_nothing_for_ever_is_left(door, export, monkeypatch):
    monkeypatch.setattr(exporting.Exporter, "page", lambda *_args: exporting.Page([], exporting.Bookmark(0, 0)))

    with pytest.raises(Unavailable):
        lines_of(export)


def test_a_client_is_asked_at_its_own_address_with_its_own_token():
    with Holdfast("http://127.0.0.1:1", "secret") as holdfast:
        export = Export.of(holdfast.audit)
        requests = [
            call.request
            for call in (
                export._calls.page(2, 7, None),
                export._calls.page(2, 7, "a+b/c="),
                export._calls.head(3),
                export._calls.log(3, 9, 1_000),
                export._calls.behind(None),
                export._calls.behind("a+b"),
                export._calls.anchor(None),
                export._calls.anchor(4),
                export._calls.keys(),
            )
        ]

    assert [request.url.removeprefix("http://127.0.0.1:1/audit/v1/") for request in requests] == [
        "export?partition=2&from_leaf=7",
        "export?partition=2&from_leaf=7&cursor=a%2Bb%2Fc%3D",
        "log/3/head",
        "log/3?after=9&limit=1000",
        "log/missing",
        "log/missing?cursor=a%2Bb",
        "anchors/latest",
        "anchors/4",
        "keys",
    ]
    assert {request.headers["authorization"] for request in requests} == {"Bearer secret"}
    assert {request.method for request in requests} == {"GET"}


# --- Waiting for an anchor


class Timing:
    """Time that passes only by waiting; *during* is told of each second."""

    def __init__(self, during: Any = None) -> None:
        self.now = 0.0
        self.during = during

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.during:
            self.during(self.now)


def test_an_anchor_that_covers_everything_is_taken_at_once(door, export):
    timing = Timing()

    anchor = export.covering(monotonic=timing.monotonic, sleep=timing.sleep)

    assert anchor == export.anchor()
    assert timing.now == 0


def test_an_anchor_is_waited_for(door, export):
    grow(door.lab, 3)
    timing = Timing(lambda now: door.anchors.sign() if now == 40 else None)

    anchor = export.covering(monotonic=timing.monotonic, sleep=timing.sleep)

    assert anchor
    assert anchor.seq == 2
    assert timing.now == 40


def append(lab: LogLab, stream: str, commits: int = 1) -> list[Hint]:
    """Store commits that no indexer has heard of."""
    return [lab.append(stream) for _ in range(commits)]


def test_what_is_stored_and_not_yet_in_the_log_is_waited_for(door, export):
    hints = append(door.lab, STREAMS[0], 2) + append(door.lab, "orders/new", 3)

    def later(now: float) -> None:
        if now == 20:
            door.lab.indexer().index(hints[:2])
        if now == 30:
            door.lab.indexer().index(hints)
        if now == 40:
            door.anchors.sign()

    timing = Timing(later)
    anchor = export.covering(monotonic=timing.monotonic, sleep=timing.sleep)

    assert anchor
    assert sum(head.size for head in anchor.heads) == COMMITS + 5
    assert timing.now == 40


@pytest.mark.parametrize("most", [1, 3])
def test_what_is_stored_is_looked_through_slice_by_slice(door, export, monkeypatch, most):
    append(door.lab, "orders/new", 3)
    request = Missing._request
    monkeypatch.setattr(Missing, "_request", lambda self, start: {**request(self, start), "Limit": most})
    looked_at: list[int] = []
    timing = Timing()

    with pytest.raises(Unavailable, match="3 commits of stream orders/new, from version 1 on"):
        export.covering(show=looked_at.append, monotonic=timing.monotonic, sleep=timing.sleep)

    assert looked_at[-1] == COMMITS + 3
    assert len(looked_at) >= (COMMITS + 3) // most


LEADING = {
    "itself": ("/v1/log/missing", lambda _page: {"cursor": "here"}, 2),
    "anywhere": ("/v1/log/missing", lambda page: {"cursor": f"{page}"}, 3),
    "back": (f"/v1/log/{partition_of('orders/new')}", lambda _page: {"next_after": 0}, 1),
    "ever on": (f"/v1/log/{partition_of('orders/new')}", lambda page: {"next_after": 1_000 + page}, 3),
}


@pytest.mark.parametrize(("path", "leading", "most"), LEADING.values(), ids=LEADING)
def test_pages_that_lead_nowhere_are_not_followed_for_ever(door, export, monkeypatch, path, leading, most):
    append(door.lab, "orders/new")
    monkeypatch.setattr(module, "PAGES_MAX", 3)
    answer, pages = door.answer, itertools.count(1)

    def astray(asked: str, query: dict[str, str]) -> Any:
        if asked != path:
            return answer(asked, query)
        page = next(pages)
        assert page <= most
        return answer(asked, {**query, "cursor": "null"}) | leading(page)

    monkeypatch.setattr(door, "answer", astray)
    timing = Timing()

    with pytest.raises(Unavailable, match="endless_answer"):
        export.covering(monotonic=timing.monotonic, sleep=timing.sleep)

    assert next(pages) == most + 1
    assert timing.now == 0


def test_an_indexer_that_stands_still_is_told_with_every_stream_that_waits(door, export):
    append(door.lab, STREAMS[0], 2)
    append(door.lab, "orders/new", 3)
    timing = Timing()

    with pytest.raises(Unavailable, match="not in the log after 60 s") as raised:
        export.covering(monotonic=timing.monotonic, sleep=timing.sleep)

    assert raised.value.code == "not_in_log"
    known = {(each["stream"], each["logged"], each["commits"]) for each in raised.value.facts["streams"]}
    before = door.lab.log().watermark(STREAMS[0]).version
    assert known == {(STREAMS[0], before, 2), ("orders/new", 0, 3)}
    assert module.COVER_SECONDS_MAX <= timing.now <= module.COVER_SECONDS_MAX + 1


def test_a_stream_that_was_broken_before_it_was_logged_is_told(door, export):
    lab = door.lab
    (hint,) = append(lab, "orders/new")
    key = to_item({"pk": f"S#{lab.tenant}#orders/new", "sk": 1})
    lab.transport.call("UpdateItem", {
        "TableName": lab.tables.commits, "Key": key, "UpdateExpression": "SET actor = :eve",
        "ExpressionAttributeValues": to_item({":eve": "eve"}),
    })  # fmt: skip
    lab.indexer().index([hint])
    assert [broken.stream for broken in lab.broken] == ["orders/new"]
    timing = Timing()

    with pytest.raises(Unavailable, match="1 commits of stream orders/new, from version 1 on"):
        export.covering(monotonic=timing.monotonic, sleep=timing.sleep)


def test_of_many_streams_that_wait_only_some_are_named(door, export):
    for number in range(7):
        append(door.lab, f"orders/new-{number}")
    timing = Timing()

    with pytest.raises(Unavailable, match="orders/new-4, from version 1 on; those of 2 other streams are stored"):
        export.covering(monotonic=timing.monotonic, sleep=timing.sleep)


def test_what_another_tenant_has_stored_is_nobodys_business(door, export):
    other = LogLab(door.lab.transport, door.lab.tables)
    append(other, "orders/theirs", 3)
    looked_at: list[int] = []
    timing = Timing()

    assert export.covering(show=looked_at.append, monotonic=timing.monotonic, sleep=timing.sleep)
    assert looked_at == [COMMITS]


def test_a_wait_for_an_anchor_ends(door, export):
    grow(door.lab, 3)
    timing = Timing()

    with pytest.raises(Unavailable, match="no anchor covers"):
        export.covering(monotonic=timing.monotonic, sleep=timing.sleep)
    assert timing.now <= module.COVER_SECONDS_MAX + 1


def test_where_nothing_is_stored_there_is_nothing_to_wait_for(empty_door):
    timing = Timing()
    export = empty_door.export()

    assert export.covering(monotonic=timing.monotonic, sleep=timing.sleep) is None
    assert export.anchor() is None


def test_the_keys_are_those_that_the_service_names(door, export):
    (key,) = export.named_keys()

    assert key["kid"] == export.anchor().key_id


# --- Files


@pytest.fixture
def written(tmp_path):
    log = ExportedLog().fill(3)
    log.anchor()
    path = tmp_path / "log.jsonl.gz"
    write_lines(path, log.lines())
    return log, path


def test_a_file_is_read_as_it_was_written(written):
    log, path = written

    assert list(read_lines(path)) == log.lines()
    assert isinstance(verify(read_lines(path), pem(log.signer)), Proven)


def test_the_same_export_is_the_same_file(written, tmp_path):
    log, path = written
    write_lines(tmp_path / "again.gz", log.lines())

    assert (tmp_path / "again.gz").read_bytes() == path.read_bytes()


def test_a_plain_file_is_read_too(written, tmp_path):
    log, path = written
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(gzip.decompress(path.read_bytes()))

    assert list(read_lines(plain)) == log.lines()


def test_a_file_appears_when_it_is_whole(tmp_path):
    def failing() -> Iterator[bytes]:
        yield b"{}\n"
        raise Unavailable("gone", "The service went away.")

    path = tmp_path / "log.jsonl.gz"
    with pytest.raises(Unavailable):
        write_lines(path, failing())

    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_broken_and_never_a_traceback(written):
    log, path = written
    body = path.read_bytes()
    key = pem(log.signer)

    for end in range(0, len(body), 13):
        path.write_bytes(body[:end])
        assert isinstance(verify(read_lines(path), key), Broken), end
    # The header of a gzip file says nothing of its contents; of the last byte before its end some bits mean nothing.
    for at in {*range(10, len(body), 3)} - {len(body) - 9}:
        flipped = bytearray(body)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        assert isinstance(verify(read_lines(path), key), Broken), at


def test_a_line_without_end_is_not_read_into_memory(written, monkeypatch):
    log, path = written
    monkeypatch.setattr(verifier, "LINE_BYTES_MAX", 1_000)
    path.write_bytes(gzip.compress(b"[" * 1_000_000))

    assert len(next(read_lines(path))) == 1_000
    assert isinstance(verify(read_lines(path), pem(log.signer)), Broken)


def test_lines_are_closed_with_their_number_and_digest():
    lines = list(closed([b"{}", b"[]"]))

    assert lines[:2] == [b"{}\n", b"[]\n"]
    assert msgspec.json.decode(lines[2]) == {
        "type": "end",
        "lines": 2,
        "sha256": hashlib.sha256(b"{}\n[]\n").hexdigest(),
    }
