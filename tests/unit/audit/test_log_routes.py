"""The log and its proofs through the door, checked as a stranger would."""

from base64 import b64decode
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from functions.audit import adapters
from holdfast import proofs
from holdfast.dynamodb import DynamoEventStores
from holdfast.log import PARTITIONS, LogReader, log_id, partition_of
from holdfast.log.missing import PAGES_MAX, Missing
from holdfast.streams import RawCodec
from tests.audit_lab import AuditLab, event
from tests.log_lab import LogLab, log_lab

PARTITION = "/v1/log/{partition}"
INCLUSION = "/v1/log/{partition}/inclusion"
CONSISTENCY = "/v1/log/{partition}/consistency"
HEAD = "/v1/log/{partition}/head"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    return AuditLab(log_lab(), monkeypatch)


def ask(audit: AuditLab, template: str, query: str = "", partition: object = 0) -> tuple[int, Any]:
    return audit.get(template, query, parameters={"partition": str(partition)})[:2]


def code(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["code"]


def same_partition(count: int) -> list[str]:
    """Name streams that lie in one partition."""
    names = (f"s/{number}" for number in range(1_000))
    return [name for name in names if partition_of(name) == 2][:count]


def decoded(hashes: list[str]) -> list[bytes]:
    return [b64decode(each) for each in hashes]


def test_a_log_says_what_it_is_called(audit: AuditLab):
    status, answer, _ = audit.get("/v1/log")

    assert (status, answer) == (200, {"log_id": log_id("audit", audit.lab.tenant), "partitions": PARTITIONS})


def test_an_empty_partition_has_the_root_of_an_empty_tree(audit: AuditLab):
    head = {"partition": 3, "size": 0, "position": 0, "root": proofs.EMPTY_ROOT, "recorded_at": None}
    expected = msgspec.json.decode(msgspec.json.encode(head))

    assert ask(audit, HEAD, partition=3) == (200, expected)
    page = {"partition": 3, "entries": [], "next_after": None, "head": expected}
    assert ask(audit, PARTITION, partition=3) == (200, page)


def test_pages_of_a_partition_hold_every_commit_and_make_its_root(audit: AuditLab):
    one, other = same_partition(2)
    for number in range(6):
        audit.append((one, other)[number % 2], event(f"{number}a"), event(f"{number}b"))
    audit.index()

    entries: list[Any] = []
    after: int | None = 0
    while after is not None:
        status, page = ask(audit, PARTITION, f"after={after}&limit=4", 2)
        assert status == 200
        entries += page["entries"]
        after = page["next_after"]

    assert [entry["leaf"] for entry in entries] == [0, 1, 2, 3, 4, 5]
    assert [entry["position"] for entry in entries] == [1, 3, 5, 7, 9, 11]
    assert {entry["events"] for entry in entries} == {2}
    assert {entry["stream"] for entry in entries} == {one, other}
    assert page["head"] == ask(audit, HEAD, partition=2)[1]
    assert b64decode(page["head"]["root"]) == proofs.root(b64decode(entry["leaf_hash"]) for entry in entries)
    assert (page["head"]["size"], page["head"]["position"]) == (6, 12)
    assert page["head"]["recorded_at"] == max(entry["recorded_at"] for entry in entries)
    middle = ask(audit, PARTITION, "after=4", 2)[1]["entries"]
    assert [entry["position"] for entry in middle] == [5, 7, 9, 11]
    inside = ask(audit, PARTITION, "after=3", 2)[1]["entries"]
    assert [entry["position"] for entry in inside] == [3, 5, 7, 9, 11]


def test_a_page_holds_nothing_beyond_the_head_that_it_tells(audit: AuditLab, monkeypatch: pytest.MonkeyPatch):
    (one,) = same_partition(1)
    audit.append(one, event(1))
    audit.index()
    before = audit.lab.log().head(2)
    audit.append(one, event(2))
    audit.index()
    # As if the log had grown between the two reads.
    monkeypatch.setattr(LogReader, "head", lambda self, partition: before)

    page = ask(audit, PARTITION, "", 2)[1]

    assert ([entry["leaf"] for entry in page["entries"]], page["next_after"], page["head"]["size"]) == ([0], None, 1)


def test_an_event_is_proved_from_its_bytes_up_to_the_root(audit: AuditLab):
    one, other = same_partition(2)
    audit.append(one, *(event(number) for number in range(5)))
    audit.append(other, event("x"))
    audit.append(one, event("y"))
    audit.index()

    for stream, version in [*((one, version) for version in range(1, 7)), (other, 1)]:
        for size in (None, 3):
            query = f"stream={stream}&version={version}" + ("" if size is None else f"&size={size}")
            status, proof = ask(audit, INCLUSION, query, 2)
            assert status == 200, proof
            header = b64decode(proof["header"])
            said = msgspec.json.decode(header)
            stored = b64decode(proof["event_bytes"])
            assert (said["stream"], said["first"] + proof["event_index"]) == (stream, version)
            assert proofs.verify_inclusion(
                proofs.leaf_hash(stored),
                proof["event_index"],
                said["n"],
                decoded(proof["event_path"]),
                bytes.fromhex(said["events_root"]),
            )
            assert proofs.verify_inclusion(
                proofs.leaf_hash(header), proof["leaf"], proof["size"], decoded(proof["path"]), b64decode(proof["root"])
            )
            assert proof["size"] == 3
            assert proof["root"] == ask(audit, HEAD, partition=2)[1]["root"]
    # The header is the one that readers of the stream are told the hash of.
    _, page, _ = audit.door.events("limit=1", stream=one.replace("/", "~"))
    first = ask(audit, INCLUSION, f"stream={one}&version=1", 2)[1]
    assert sha256(b64decode(first["header"])).hexdigest() == page["events"][0]["commithash"]


def test_an_event_is_proved_in_the_tree_as_it_was(audit: AuditLab):
    one, other = same_partition(2)
    audit.append(one, event(1))
    audit.index()
    before = ask(audit, HEAD, partition=2)[1]
    audit.append(other, event(2))
    audit.index()

    proof = ask(audit, INCLUSION, f"stream={one}&version=1&size=1", 2)[1]
    assert (proof["size"], proof["root"]) == (1, before["root"])
    assert code(ask(audit, INCLUSION, f"stream={other}&version=1&size=1", 2)) == (400, "invalid_range")


def test_a_changed_event_has_no_proof_that_holds(audit: AuditLab, monkeypatch: pytest.MonkeyPatch):
    (one,) = same_partition(1)
    audit.append(one, event(1), event(2))
    audit.index()

    class Forging(RawCodec):
        def decode(self, stored: bytes) -> bytes:
            return stored.replace(b'"2"', b'"3"')

    forged = DynamoEventStores(audit.lab.database(), Forging(), audit.lab.tables)
    monkeypatch.setattr(adapters, "event_stores", lambda: forged)
    proof = ask(audit, INCLUSION, f"stream={one}&version=2", 2)[1]

    assert b'"3"' in b64decode(proof["event_bytes"])
    assert not proofs.verify_inclusion(
        proofs.leaf_hash(b64decode(proof["header"])), proof["leaf"], proof["size"], [], b64decode(proof["root"])
    )


def test_a_partition_is_proved_to_have_only_grown(audit: AuditLab):
    (one,) = same_partition(1)
    roots = {}
    for size in range(1, 6):
        audit.append(one, event(size))
        audit.index()
        roots[size] = ask(audit, HEAD, partition=2)[1]["root"]

    for first, root_from in roots.items():
        for second in range(first, 6):
            status, proof = ask(audit, CONSISTENCY, f"from={first}&to={second}", 2)
            assert status == 200
            expected = {"from": first, "to": second, "root_from": root_from, "root_to": roots[second]}
            assert {name: proof[name] for name in expected} == expected
            assert proofs.verify_consistency(
                first, second, decoded(proof["path"]), b64decode(root_from), b64decode(roots[second])
            )


@pytest.mark.parametrize("partition", ["4", "-1", "x", "00", "", "²", "1.0"])
@pytest.mark.parametrize("template", [PARTITION, HEAD, INCLUSION, CONSISTENCY])
def test_a_partition_that_is_none_is_not_found(audit: AuditLab, partition: str, template: str):
    query = {INCLUSION: "stream=s&version=1", CONSISTENCY: "from=1&to=1"}.get(template, "")

    assert code(ask(audit, template, query, partition)) == (404, "partition_not_found")


@pytest.mark.parametrize("scope", ["audit:read", "audit:verify"])
def test_who_follows_the_tail_may_read_what_was_lost_on_the_way(audit: AuditLab, scope: str):
    audit.door.principal = msgspec.structs.replace(audit.door.principal, scopes=frozenset({scope}))

    assert (ask(audit, PARTITION)[0], ask(audit, HEAD)[0]) == (200, 200)
    assert (audit.get("/v1/log")[0], ask(audit, CONSISTENCY, "from=1&to=1")[0]) == (
        (403, 403) if scope == "audit:read" else (200, 400)
    )


def test_a_partition_is_shown_to_nobody_else(audit: AuditLab):
    audit.door.principal = msgspec.structs.replace(
        audit.door.principal, scopes=audit.door.principal.scopes - {"audit:read", "audit:verify"}
    )

    assert (code(ask(audit, PARTITION)), code(ask(audit, HEAD))) == ((403, "scope_missing"),) * 2


def test_what_cannot_be_proved_is_refused(audit: AuditLab):
    (one,) = same_partition(1)
    audit.append(one, event(1), event(2))
    audit.index()
    audit.append(one, event(3))

    for query, refusal in {
        f"stream={one}&version=4": (404, "version_not_found"),
        f"stream={one}&version=3": (503, "not_in_log_yet"),
        f"stream={one}&version=0": (400, "invalid_query"),
        f"stream={one}": (400, "invalid_query"),
        "stream=nothing/here&version=1": (404, "stream_not_found"),
        "stream=..&version=1": (400, "invalid_stream"),
        f"stream={one}&version=1&size=0": (400, "invalid_range"),
        f"stream={one}&version=1&size=2": (400, "invalid_range"),
    }.items():
        assert code(ask(audit, INCLUSION, query, 2)) == refusal, query
    status, problem = ask(audit, INCLUSION, f"stream={one}&version=1", 3)
    assert (status, problem["code"], problem["partition"]) == (404, "stream_not_found", 2)
    for query, refusal in {
        "from=0&to=1": (400, "invalid_range"),
        "from=1&to=2": (400, "invalid_range"),
        "from=2&to=1": (400, "invalid_range"),
        "from=1": (400, "invalid_query"),
        "from=x&to=1": (400, "invalid_query"),
    }.items():
        assert code(ask(audit, CONSISTENCY, query, 2)) == refusal, query
    assert code(ask(audit, PARTITION, "after=-1")) == (400, "invalid_query")


def test_a_log_is_one_tenant_s(audit: AuditLab):
    (one,) = same_partition(1)
    audit.append(one, event(1))
    audit.index()
    audit.as_tenant("other")

    assert ask(audit, HEAD, partition=2)[1]["size"] == 0
    assert code(ask(audit, INCLUSION, f"stream={one}&version=1", 2)) == (404, "stream_not_found")


def missing(audit: AuditLab) -> tuple[list[Any], int, list[str]]:
    """Walk to the end: what is named, how many of the caller's commits were looked at, and the cursors on the way."""
    items, commits, cursors, cursor = list[Any](), 0, list[str](), None
    while True:
        status, answer, _ = audit.get("/v1/log/missing", f"cursor={cursor}" if cursor else "")
        assert status == 200, answer
        items += answer["items"]
        commits, cursor = commits + answer["commits"], answer["cursor"]
        if cursor is None:
            return items, commits, cursors
        cursors.append(cursor)


def test_what_is_stored_and_not_in_the_log_is_named_by_its_stream(audit: AuditLab):
    audit.append("orders/1", event(1))
    audit.append("orders/2", event(2))
    audit.index()
    assert missing(audit) == ([], 2, [])

    audit.append("orders/1", event(3), event(4))
    audit.append("orders/1", event(5))
    audit.append("orders/new", event(6))

    items, commits, _ = missing(audit)
    assert sorted(items, key=lambda item: str(item["stream"])) == [
        {"stream": "orders/1", "logged": 1, "version": 4, "commits": 2},
        {"stream": "orders/new", "logged": 0, "version": 1, "commits": 1},
    ]
    assert commits == 5
    audit.index()
    assert missing(audit)[0] == []


def test_a_walk_over_what_is_stored_shows_nothing_of_another_tenant(audit: AuditLab, monkeypatch: pytest.MonkeyPatch):
    request = Missing._request
    monkeypatch.setattr(Missing, "_request", lambda self, start: {**request(self, start), "Limit": 1})
    audit.append("orders/1", event(1))
    other = LogLab(audit.lab.transport, audit.lab.tables, tenant="rival")
    for number in range(12):
        other.append(f"secret-{number}")

    items, commits, cursors = missing(audit)

    assert ([item["stream"] for item in items], commits) == (["orders/1"], 1)
    assert len(cursors) >= 13 // PAGES_MAX
    for cursor in cursors:
        assert b"secret" not in b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_")
    audit.as_tenant("rival")
    assert code(audit.get("/v1/log/missing", f"cursor={cursors[0]}")[:2]) == (400, "invalid_cursor")
    assert code(audit.get("/v1/log/missing", "cursor=AAAA")[:2]) == (400, "invalid_cursor")
