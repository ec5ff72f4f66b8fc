"""`./holdfast audit export` and `verify`, told by what they print, write and remember."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from holdfast.anchors import MemorySigner
from holdfast.dynamodb.attributes import to_item
from holdfast_cli import audit_verify
from holdfast_cli.main import main
from holdfast_client import export as exporting
from holdfast_client.export import Export
from tests.export_door import ExportDoor
from tests.exported_log import STREAMS, ExportedLog, closed_parts, event, pem
from tests.log_lab import LogLab, log_lab

COMMITS = 7


def grow(lab: LogLab, commits: int = COMMITS) -> None:
    lab.indexer().index([lab.append(STREAMS[number % len(STREAMS)]) for number in range(commits)])


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> ExportDoor:
    """A running local service, as far as these commands see it, with a home of its own."""
    door = ExportDoor(log_lab())

    @contextmanager
    def connect() -> Iterator[Any]:
        yield SimpleNamespace(audit=None)

    monkeypatch.setattr(audit_verify, "connect", connect)
    monkeypatch.setattr(audit_verify, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(Export, "of", lambda _audit: door.export())
    monkeypatch.setattr(exporting, "POLL_SECONDS", 0.0)
    covering = Export.covering
    monkeypatch.setattr(Export, "covering", lambda self, **rest: covering(self, seconds_max=0.1, **rest))
    for name in ("HOLDFAST_AUDIT_URL", "HOLDFAST_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return door


@pytest.fixture
def signed(door: ExportDoor) -> ExportDoor:
    grow(door.lab)
    door.anchors.sign()
    return door


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*words: Any) -> tuple[int, str, str]:
        code = main(["audit", *map(str, words)])
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def log(tmp_path: Any) -> ExportedLog:
    log = ExportedLog().fill(9)
    log.anchor()
    (tmp_path / "key.pem").write_bytes(pem(log.signer))
    (tmp_path / "log.gz").write_bytes(b"".join(log.lines()))
    return log


# --- The running service


def test_the_first_look_pins_the_local_key_and_says_so(signed, command, tmp_path):
    code, out, err = command("verify")

    assert (code, out) == (0, "")
    assert "at first sight" in err
    assert "Proven: 7 events in 7 commits" in err
    assert (tmp_path / "home/verifier/key.pem").read_bytes() == pem(signed.signer)
    assert (tmp_path / "home/verifier/state.json").exists()


def test_the_second_look_holds_it_against_the_first(signed, command):
    command("verify")
    grow(signed.lab, 3)
    signed.anchors.sign()

    code, out, err = command("verify", "--json")

    assert code == 0
    assert "first sight" not in err
    told = json.loads(out)
    assert (told["result"], told["commits"], told["anchor"], told["not_yet_anchored"]) == ("proven", 10, 2, 0)
    assert told["tenant"] == signed.lab.tenant


def test_a_local_key_that_changed_is_no_key(signed, command):
    command("verify")
    signed.signer = MemorySigner()

    code, _, err = command("verify")

    assert code == 1
    assert "another key" in err


def test_a_history_that_was_rewritten_since_is_broken(signed, command, tmp_path):
    command("verify")
    state_file = tmp_path / "home/verifier/state.json"
    state = json.loads(state_file.read_text())
    partition = next(iter(state["heads"]))
    state["heads"][partition][1] = "0" * 64
    state_file.write_text(json.dumps(state))
    assert "seen before" in command("verify")[2]
    grow(signed.lab, 3)
    signed.anchors.sign()

    code, out, err = command("verify", "--json")

    assert (code, out) == (1, "")
    told = json.loads(err)["error"]
    assert (told["code"], told["partition"]) == ("broken", int(partition))
    assert "seen before" in told["reason"]
    assert json.loads(state_file.read_text()) == state


def test_a_partition_that_the_service_keeps_back_is_missed_at_first_sight(signed, command, monkeypatch):
    answer = signed.answer

    def without_the_last(path: str, query: dict[str, str]) -> Any:
        told = answer(path, query)
        if path == "/v1/anchors/latest":
            return msgspec.structs.replace(told, heads=told.heads[:-1])
        return told | {"size": 0, "position": 0} if path == "/v1/log/3/head" else told

    monkeypatch.setattr(signed, "answer", without_the_last)

    code, _, err = command("verify")

    assert code == 1
    assert "kept back" in err


def test_a_changed_event_is_told_with_its_place(signed, command):
    command("verify")
    entry = next(signed.lab.log().entries(next(p for p in range(4) if signed.lab.log().head(p).size)))
    reference = entry.reference
    packing = import_module("holdfast.streams.packing")
    key = to_item({"pk": f"S#{signed.lab.tenant}#{reference.stream}", "sk": reference.first_version})
    signed.lab.transport.call(
        "UpdateItem",
        {
            "TableName": signed.lab.tables.commits,
            "Key": key,
            "UpdateExpression": "SET ev = :ev",
            "ExpressionAttributeValues": to_item({":ev": packing.pack([event(999)])}),
        },
    )

    code, _, err = command("verify")

    assert code == 1
    assert f"partition {entry.partition}, leaf {entry.leaf}, stream {reference.stream}" in err
    assert "An event of this commit was changed" in err


def test_what_is_stored_and_not_in_the_log_is_not_covered_and_every_stream_is_named(signed, command):
    command("verify")
    signed.lab.append("orders/new", 2)
    signed.lab.append("orders/new", 2)

    code, out, err = command("verify", "--json")

    assert (code, out) == (1, "")
    told = json.loads(err.splitlines()[-1])["error"]
    assert told["code"] == "not_in_log"
    assert "2 commits of stream orders/new, from version 1 on are stored and not in the log" in told["detail"]
    assert told["streams"] == [{"stream": "orders/new", "logged": 0, "version": 3, "commits": 2}]


def test_what_is_not_anchored_in_time_is_an_end_in_words(signed, command):
    grow(signed.lab, 1)

    code, _, err = command("verify")

    assert code == 4
    assert "no anchor covers" in err


def test_where_nothing_is_stored_nothing_is_to_prove(door, command):
    code, _, err = command("verify")
    assert code == 0
    assert err.endswith("Nothing is stored yet, so there is nothing to prove.\n")
    code, out, _ = command("verify", "--json")
    assert (code, json.loads(out)) == (0, {"result": "nothing_stored"})


def test_a_history_that_is_gone_altogether_is_broken(signed, command):
    command("verify")
    signed.lab = LogLab(signed.lab.transport, signed.lab.tables)

    code, _, err = command("verify")

    assert code == 1
    assert "something was" in err


def test_a_remote_service_does_not_pin_its_own_key(signed, command, monkeypatch, tmp_path):
    monkeypatch.setenv("HOLDFAST_AUDIT_URL", "https://audit.example")
    monkeypatch.setenv("HOLDFAST_TOKEN", "token")

    code, _, err = command("verify")
    assert code == 1
    assert "--key" in err

    (tmp_path / "key.pem").write_bytes(pem(signed.signer))
    code, out, _ = command("verify", "--key", tmp_path / "key.pem", "--json")
    assert (code, json.loads(out)["state"]) == (0, None)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("jwk", [{}, {"x": "AA", "y": "AA"}, {"x": 1, "y": 2}, {"x": "é", "y": ""}])
def test_a_key_that_is_none_is_an_end_in_words(signed, command, monkeypatch, jwk):
    monkeypatch.setattr(Export, "named_keys", lambda _self: [jwk])

    code, _, err = command("verify")

    assert code == 1
    assert "P-256" in err


def test_only_what_lies_behind_what_was_seen_is_fetched_and_proven(signed, command, tmp_path):
    command("verify")
    seen = json.loads((tmp_path / "home/verifier/state.json").read_text())["heads"]
    grow(signed.lab, 3)
    signed.anchors.sign()
    signed.asked.clear()

    code, out, _ = command("verify", "--since-seen", "--json")

    told = json.loads(out)
    assert (code, told["result"], told["commits"], told["anchor"]) == (0, "proven", 3, 2)
    assert told["from_leaves"] == {partition: size for partition, (size, _) in seen.items()}
    # What was seen now is the whole again: the next look goes on from here, and finds nothing new.
    assert json.loads(command("verify", "--since-seen", "--json")[1])["commits"] == 0
    assert json.loads(command("verify", "--json")[1])["commits"] == COMMITS + 3


def test_what_lies_behind_a_seen_history_that_was_rewritten_is_broken(signed, command, tmp_path):
    command("verify", "--state", tmp_path / "s.json")
    state = json.loads((tmp_path / "s.json").read_text())
    next(iter(state["heads"].values()))[1] = "0" * 64
    (tmp_path / "s.json").write_text(json.dumps(state))
    grow(signed.lab, 3)
    signed.anchors.sign()

    code, _, err = command("verify", "--since-seen", "--state", tmp_path / "s.json")

    assert code == 1
    assert "seen before" in err


@pytest.mark.parametrize("words", [("verify", "--since-seen"), ("export", "--out", "log.gz", "--since", "none.json")])
def test_who_has_seen_nothing_has_nothing_to_go_on_from(signed, command, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)

    code, out, err = command(*words, "--json")

    assert (code, out) == (2, "")
    assert json.loads(err.splitlines()[-1])["error"]["code"] == "nothing_seen"
    assert not (tmp_path / "log.gz").exists()


def test_a_file_is_not_asked_for_less_than_it_holds(log, command, tmp_path):
    assert command("verify", "--since-seen", "--export", tmp_path / "log.gz", "--key", tmp_path / "key.pem")[0] == 2


# --- Files


def test_an_export_since_a_state_is_proven_by_that_state(signed, command, tmp_path):
    state, key, first, second = (tmp_path / name for name in ("s.json", "key.pem", "first.gz", "second.gz"))
    key.write_bytes(pem(signed.signer))
    command("export", "--out", first)
    assert command("verify", "--export", first, "--key", key, "--state", state)[0] == 0
    grow(signed.lab, 3)
    signed.anchors.sign()

    code, _, err = command("export", "--out", second, "--since", state)
    assert code == 0
    assert f"--export {second} --key FILE --state {state}" in err

    code, out, _ = command("verify", "--export", second, "--key", key, "--state", state, "--json")
    assert (code, json.loads(out)["commits"], json.loads(out)["anchor"]) == (0, 3, 2)


def test_an_export_is_written_and_proven_by_another_command(signed, command, tmp_path):
    out_file = tmp_path / "log.gz"
    (tmp_path / "key.pem").write_bytes(pem(signed.signer))

    code, out, _ = command("export", "--out", out_file, "--json")
    told = json.loads(out)
    assert (code, told["anchor"], told["lines"]) == (0, 1, COMMITS + 3)

    code, out, _ = command("verify", "--export", out_file, "--key", tmp_path / "key.pem", "--json")
    assert (code, json.loads(out)["commits"]) == (0, COMMITS)


def test_an_export_of_nothing_is_an_end_in_words(door, command, tmp_path):
    code, _, err = command("export", "--out", tmp_path / "log.gz")

    assert (code, list(tmp_path.glob("log*"))) == (1, [])
    assert "nothing to export" in err


def test_an_export_that_cannot_be_written_is_an_end_in_words(signed, command, tmp_path):
    code, _, err = command("export", "--out", tmp_path / "no" / "log.gz")

    assert code == 1
    assert "cannot be written" in err


def test_a_file_is_proven_and_remembered_where_asked(log, command, tmp_path):
    words = ("verify", "--export", tmp_path / "log.gz", "--key", tmp_path / "key.pem", "--state", tmp_path / "s.json")

    code, _, err = command(*words)
    assert code == 0
    assert "Remembered" in err
    assert command(*words)[0] == 0

    forked = ExportedLog(log.signer).fill(10)
    forked.anchor()
    (tmp_path / "log.gz").write_bytes(b"".join(forked.lines()))
    code, _, err = command(*words)
    assert code == 1
    assert "forked" in err


def test_what_is_beyond_the_anchor_is_told(log, command, tmp_path):
    log.fill(2, first=9)
    (tmp_path / "log.gz").write_bytes(b"".join(log.lines()))

    code, _, err = command("verify", "--export", tmp_path / "log.gz", "--key", tmp_path / "key.pem")

    assert code == 0
    assert "Not yet anchored, and not proven: 2 commits" in err


def test_a_name_in_an_export_cannot_steer_the_terminal(log, command, tmp_path):
    parts = log.parts()
    place = {"partition": 0, "leaf": 0, "stream": "a\x1b[2J", "version": 1}
    parts[1] = {"type": "damaged", **place, "reason": "\x1b[2Jgone"}
    (tmp_path / "log.gz").write_bytes(b"".join(closed_parts(parts)))

    code, _, err = command("verify", "--export", tmp_path / "log.gz", "--key", tmp_path / "key.pem")

    assert code == 1
    assert "cannot show" in err
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--export", "none.gz", "--key", "key.pem"), "no file"),
        (("--export", "log.gz", "--key", "none.pem"), "pinned"),
        (("--export", "log.gz"), "pinned"),
        (("--export", "log.gz", "--key", "log.gz"), "P-256|PEM"),
        (("--export", "log.gz", "--key", "key.pem", "--state", "key.pem"), "proven before"),
    ],
)
def test_what_is_given_wrongly_is_an_end_in_words(log, command, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(audit_verify, "home", lambda: tmp_path / "home")

    code, out, err = command("verify", *words)

    assert code in {1, 2}
    assert out == ""
    assert any(word in err for word in message.split("|"))


def test_a_damaged_file_ends_with_1(log, command, tmp_path):
    lines = [*log.lines()]
    lines[3] = msgspec.json.encode({"type": "else"}) + b"\n"
    (tmp_path / "log.gz").write_bytes(b"".join(lines))

    assert command("verify", "--export", tmp_path / "log.gz", "--key", tmp_path / "key.pem")[0] == 1
