"""What operators and auditors ask from the command line: search, differences, proofs, holds and erasures."""

import base64
import io
import json
from typing import Any

import pytest

from functions.audit import adapters
from holdfast.archive import Archiver
from holdfast.log.values import partition_of
from holdfast_cli.main import main
from tests.archive_lab import AGED
from tests.unit.cli.printed import error_of, lines
from tests.unit.cli.whole_trail import WholeTrail, a_moment

LATE = 3
"""The look at the newest anchor for which one is signed."""


# --- Search, lists, differences


def test_a_search_finds_in_all_streams_and_in_one(told):
    by_type = lines(told("audit", "events", "--type", "order.paid", "--json")[1])
    by_subject = lines(told("audit", "events", "--subject", "ann", "--json")[1])
    in_one = lines(told("audit", "events", "people/ann", "--from", "2020-01-01T00:00:00Z", "--json")[1])
    nowhere = told("audit", "events", "--type", "order.paid", "--to", "2001-01-01T00:00:00Z", "--json")

    assert [(each["stream"], each["version"]) for each in by_type] == [("orders/1", 2)]
    assert [each["type"] for each in by_subject] == ["order.placed"]
    assert [each["stream"] for each in in_one] == ["people/ann"]
    assert nowhere == (0, "", "")


def test_a_search_is_bounded_and_knows_what_was_known(told, whole):
    early = a_moment(whole)
    told("audit", "append", "orders/2", "--type", "order.placed", "--data", "{}")

    assert len(told("audit", "events", "--actor", "ann", "--limit", "3")[1].splitlines()) == 3
    known = lines(told("audit", "events", "--actor", "ann", "--known-at", early, "--json")[1])
    assert {each["stream"] for each in known} == {"orders/1", "people/ann"}


def test_a_search_without_bounds_is_refused_by_the_service(told):
    code, _, err = told("audit", "events", "--json")

    assert (code, error_of(err)["code"]) == (4, "unbounded_search")


@pytest.mark.parametrize("option", [("--after", "1"), ("--follow",)])
def test_what_reads_one_stream_is_no_part_of_a_search(told, option):
    assert told("audit", "events", "--actor", "ann", *option)[0] == 2
    assert told("audit", "events", "orders/1", "--actor", "ann", *option)[0] == 2


def test_what_a_search_shows_cannot_steer_the_terminal(told):
    told("audit", "append", "s", "--type", "t", "--data", "1", "--subject", "\x1b[2J")

    assert "\x1b" not in told("audit", "events", "--type", "t")[1]


def test_streams_are_listed_by_name(told):
    everything = lines(told("audit", "streams", "--json")[1])

    assert [(each["stream"], each["version"]) for each in everything] == [("orders/1", 2), ("people/ann", 1)]
    assert lines(told("audit", "streams", "--prefix", "people/", "--json")[1]) == everything[1:]
    assert told("audit", "streams", "--limit", "1")[1].split()[-2:] == ["orders/1", "ann"]


def test_a_difference_is_a_merge_patch(told):
    code, out, err = told("audit", "diff", "orders/1", "--from", "1")

    assert json.loads(told("audit", "diff", "orders/1", "--from", "1", "--to", "2", "--json")[1]) == {
        "patch": {"paid": True, "note": None},
        "from": 1,
        "to": 2,
    }
    assert (code, sorted(out.splitlines())) == (0, ["- note", "~ paid  True"])
    assert "orders/1 from version 1 to 2" in err


# --- Proofs


def test_an_event_is_proven_under_the_newest_anchor(told):
    code, out, err = told("audit", "prove", "orders/1", "2")

    assert (code, out) == (0, "")
    assert "at first sight" in err
    assert "Proven: orders/1 version 2 is order.paid" in err
    proven = json.loads(told("audit", "prove", "orders/1", "1", "--json")[1])
    assert (proven["result"], proven["version"], proven["type"]) == ("proven", 1, "order.placed")


@pytest.mark.parametrize(("stream", "version"), [("orders/1", 3), ("orders/2", 1)], ids=["late", "new partition"])
def test_an_event_that_no_anchor_covers_yet_is_waited_for(told, whole, monkeypatch, stream, version):
    whole.does_work = False
    told("audit", "append", stream, "--type", "order.sent", "--data", "1")
    whole.lab.lab.repair().walk()
    monkeypatch.setattr("holdfast_client.export.POLL_SECONDS", 0.0)
    signed: list[str] = []

    def sign_late(_method: str, path: str) -> None:
        if path == "/v1/anchors/latest":
            signed.append(path)
            if len(signed) == LATE:
                adapters.anchors().sign()

    whole.before_answer = sign_late

    code, out, _ = told("audit", "prove", stream, version, "--json")

    assert (code, json.loads(out)["type"]) == (0, "order.sent")


def test_an_event_that_does_not_exist_is_not_waited_for(told):
    for stream, version, code in (("orders/1", 9, "version_not_found"), ("nothing", 1, "stream_not_found")):
        assert error_of(told("audit", "prove", stream, version, "--json")[2])["code"] == code


def changed(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize("member", ["event_bytes", "event_path", "header", "path", "leaf", "event_index", "size"])
def test_a_proof_that_shows_another_event_is_broken(told, whole, member):
    def tampered(path: str, body: Any) -> Any:
        if not path.endswith("/inclusion"):
            return body
        value = body[member]
        match value:
            case int():
                return {**body, member: value + 1}
            case [first, *rest]:
                return {**body, member: [changed(first), *rest]}
            case []:
                return {**body, member: [base64.b64encode(bytes(32)).decode()]}
            case _:
                return {**body, member: changed(value)}

    whole.after_answer = tampered

    code, out, err = told("audit", "prove", "orders/1", "2", "--json")

    assert (code, out) == (1, "")
    assert (error_of(err)["code"], error_of(err)["stream"], error_of(err)["version"]) == ("broken", "orders/1", 2)


def test_a_true_proof_of_another_event_is_no_proof_of_this_one(told, whole):
    other = whole.lab.get("/v1/log/{partition}/inclusion", "stream=orders/1&version=1", parameters={"partition": "2"})
    assert other[0] in (200, 404)
    if other[0] == 404:
        parameters = {"partition": str(other[1]["partition"])}
        other = whole.lab.get("/v1/log/{partition}/inclusion", "stream=orders/1&version=1", parameters=parameters)
    whole.after_answer = lambda path, body: other[1] if path.endswith("/inclusion") else body

    assert told("audit", "prove", "orders/1", "2", "--json")[0] == 1


@pytest.mark.parametrize("member", ["statement", "signature", "leaf", "root", "size"])
def test_an_anchor_that_was_not_signed_like_this_proves_nothing(told, whole, member):
    def tampered(path: str, body: Any) -> Any:
        if not path.startswith("/v1/anchors"):
            return body
        if member in body:
            return {**body, member: changed(body[member])}
        one = {member: body["heads"][0][member]}
        heads = [
            {**head, member: changed(head[member]) if isinstance(one[member], str) else head[member] - 1}
            for head in body["heads"]
        ]
        return {**body, "heads": heads}

    whole.after_answer = tampered

    assert told("audit", "prove", "orders/1", "2", "--json")[0] in (1, 4)
    assert told("audit", "prove", "orders/1", "1", "--json")[1] == ""


def test_a_head_that_says_the_same_as_its_leaf_and_is_not_what_was_signed_proves_nothing(told, whole):
    def forged(head: dict[str, Any]) -> dict[str, Any]:
        leaf = json.loads(base64.b64decode(head["leaf"])) | {"root": "00" * 32}
        encoded = json.dumps(leaf, sort_keys=True, separators=(",", ":")).encode()
        root = base64.b64encode(bytes(32)).decode()
        return {**head, "leaf": base64.b64encode(encoded).decode(), "root": root}

    def tampered(path: str, body: Any) -> Any:
        if not path.startswith("/v1/anchors"):
            return body
        return {**body, "heads": [forged(head) for head in body["heads"]]}

    whole.after_answer = tampered

    code, _, err = told("audit", "prove", "orders/1", "2", "--json")

    assert (code, error_of(err)["reason"]) == (1, "Anchor 3 does not sign this head.")


def test_a_proof_is_checked_with_the_key_that_is_given(told, tmp_path):
    told("audit", "prove", "orders/1", "1")
    pinned = tmp_path / "home/verifier/key.pem"
    own = tmp_path / "own.pem"
    own.write_bytes(pinned.read_bytes())
    pinned.unlink()

    assert told("audit", "prove", "orders/1", "1", "--key", own)[0] == 0
    assert told("audit", "prove", "orders/1", "1", "--key", tmp_path / "none.pem")[0] == 1


def archived(whole: WholeTrail, stream: str) -> None:
    """Let months pass, and archive the partition in which a stream lies."""
    lab = whole.lab.lab
    lab.clock.advance(AGED)
    archiver = Archiver(lab.database(), lab.tables, whole.lab.objects, lambda _stuck: None, workers=1)
    moved = archiver.partition(lab.tenant, partition_of(stream)).archive()
    assert moved
    assert moved.removed


def flipped(body: bytes) -> bytes:
    return body[:20] + bytes([body[20] ^ 1]) + body[21:]


def cut_short(body: bytes) -> bytes:
    return body[:40]


@pytest.mark.parametrize("damage", [flipped, cut_short])
def test_an_archive_that_was_changed_is_broken_with_the_commit_that_it_cannot_show(told, whole, damage):
    archived(whole, "orders/1")
    assert json.loads(told("audit", "verify", "--json")[1])["result"] == "proven"
    (key,) = (key for key in whole.lab.objects.keys("") if key.startswith("archive/"))
    whole.lab.objects._bodies[key] = damage(whole.lab.objects._bodies[key])
    whole.lab.forget_archived()

    code, _, err = told("audit", "verify", "--json")

    assert code == 1
    found = error_of(err)
    assert (found["code"], found["partition"], found["leaf"]) == ("broken", partition_of("orders/1"), 0)
    assert (found["stream"], found["version"]) == ("orders/1", 1)
    assert "cannot show this commit" in found["reason"]


# --- Holds and erasures


def test_what_is_held_is_not_erased_and_what_is_erased_is_gone_but_proven(told):
    held = json.loads(told("audit", "hold", "ann", "--reason", "court", "--json")[1])
    refused = told("audit", "erase", "ann", "--reason", "asked", "--yes", "--json")
    released = json.loads(told("audit", "release", "ann", "--reason", "court", "--json")[1])
    erased = json.loads(told("audit", "erase", "ann", "--reason", "asked", "--yes", "--json")[1])

    assert ([each["reason"] for each in held["holds"]], released["holds"]) == (["court"], [])
    assert (refused[0], error_of(refused[2])["code"]) == (4, "held")
    assert (erased["state"], erased["final_at"] > erased["erased_at"]) == ("erased", True)
    (event,) = lines(told("audit", "events", "people/ann", "--json")[1])
    assert ("data" in event, event["erased"]) == (False, True)
    assert told("audit", "prove", "people/ann", "1")[0] == 0


def test_a_hold_says_who_holds_until_when(told):
    code, out, err = told("audit", "hold", "ann", "--reason", "court", "--until", "2099-01-01T00:00:00Z")

    assert (code, out) == (0, "")
    assert "Held by ann until 2099-01-01 00:00:00: court" in err


def test_an_erasure_tells_when_it_is_final(told):
    assert "A backup could bring the key back until" in told("audit", "erase", "ann", "--reason", "r", "--yes")[2]


def test_an_erasure_asks_and_where_nobody_answers_it_refuses(told, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))

    code, _, err = told("audit", "erase", "ann", "--reason", "r", "--json")

    assert (code, error_of(err)["code"]) == (3, "not_confirmed")
    assert "erased" not in lines(told("audit", "events", "people/ann", "--json")[1])[0]


def test_a_name_with_slashes_reaches_its_subject(told):
    told("audit", "append", "people/bob", "--type", "t", "--data", "1", "--shredkey", "customers/bob")

    erased = json.loads(told("audit", "erase", "customers/bob", "--reason", "r", "--yes", "--json")[1])

    assert (erased["subject"], erased["state"]) == ("customers/bob", "erased")


# --- Reset


def test_a_reset_forgets_the_key_and_the_memory_of_the_stack_before(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path))
    pinned = tmp_path / "verifier"
    pinned.mkdir()
    (pinned / "key.pem").write_text("old")
    (pinned / "state.json").write_text("{}")

    assert main(["reset", "--yes", "--json"]) == 0

    assert not pinned.exists()
    assert json.loads(capfd.readouterr().out) == {"reset": True}
