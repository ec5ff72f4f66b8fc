"""`./holdfast audit import`: what goes in, what is refused, and that running it again changes nothing."""

import gzip
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_cli.importing.items import Item
from holdfast_cli.importing.lines import read_items
from holdfast_client import Budget, Holdfast
from tests.unit.client.loopback import TOKEN, LostReply, Says


def history_line(number: int, **changes: str | None) -> dict[str, Any]:
    """A line of the shape of real histories; a path that is None was deleted."""
    return {
        "seq": number,
        "at": f"2020-01-01T00:00:{number:02d}Z",
        "actor": "ann",
        "commit": f"commit-{number}",
        "changes": [
            {"op": "modified", "path": path, "blob": blob, "mode": "100644"}
            if blob
            else {"op": "deleted", "path": path}
            for path, blob in changes.items()
        ],
    }


def cloudevent(number: int, subject: str = "shop", **more: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(number),
        "source": "urn:shop",
        "type": "sold",
        "subject": subject,
        "data": {f"item-{number}": number},
        **more,
    }


def write(path: Path, lines: list[Any]) -> Path:
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def tally(out: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(out)
    assert result.pop("seconds") >= 0
    return result


def test_a_history_becomes_one_event_per_line_whose_fold_is_the_tree(run, trail, tmp_path):
    file = write(tmp_path / "flask.jsonl.gz", [history_line(0, a="1", b="2"), history_line(1), history_line(2, a=None)])

    code, out, _ = run("audit", "import", file, "--json")

    assert code == 0
    assert tally(out) == {
        "events_read": 3,
        "events_appended": 3,
        "events_already_there": 0,
        "streams": {"flask": 3},
    }
    first = trail.streams["flask"][0]
    assert {name: first[name] for name in ("id", "source", "type", "subject", "actor", "time", "data")} == {
        "id": "commit-0",
        "source": "urn:holdfast:import:flask",
        "type": "holdfast.history.commit.v1",
        "subject": "flask",
        "actor": "ann",
        "time": "2020-01-01T00:00:00.000000Z",
        "data": {"a": "1", "b": "2"},
    }
    assert [event["data"] for event in trail.streams["flask"][1:]] == [{}, {"a": None}]
    assert json.loads(run("audit", "state", "flask", "--json")[1]) == {"b": "2"}


@pytest.mark.parametrize("batch", [1, 2, 3, 250])
def test_a_second_import_appends_nothing_at_any_batch_size(run, tmp_path, batch):
    file = write(tmp_path / "h.jsonl", [history_line(number, a=str(number + 1)) for number in range(7)])
    run("audit", "import", file, "--batch", "3")

    _, out, _ = run("audit", "import", file, "--batch", str(batch), "--json")

    assert tally(out) == {"events_read": 7, "events_appended": 0, "events_already_there": 7, "streams": {"h": 7}}


def test_a_file_that_has_grown_appends_only_what_is_new(run, trail, tmp_path):
    lines = [history_line(number, a=str(number + 1)) for number in range(5)]
    run("audit", "import", write(tmp_path / "h.jsonl", lines[:3]))

    _, out, _ = run("audit", "import", write(tmp_path / "h.jsonl", lines), "--json")

    assert tally(out)["events_appended"] == 2
    assert [event["id"] for event in trail.streams["h"]] == [f"commit-{number}" for number in range(5)]


def test_a_reply_that_is_lost_between_two_batches_appends_nothing_twice(run, trail, tmp_path):
    file = write(tmp_path / "h.jsonl", [history_line(number, a="1") for number in range(6)])
    trail.faults.extend([Says(404, {"code": "stream_not_found"}), LostReply(), LostReply()])

    code, _, _ = run("audit", "import", file, "--batch", "2")

    assert code == 0
    assert len(trail.streams["h"]) == 6


def test_cloudevents_go_to_the_streams_that_their_subjects_name(run, trail, tmp_path):
    lines = [cloudevent(number, subject=f"shops/{number % 3}") for number in range(9)]
    file = write(tmp_path / "mixed.jsonl", lines)

    assert tally(run("audit", "import", file, "--batch", "2", "--json")[1])["streams"] == {
        "shops/0": 3,
        "shops/1": 3,
        "shops/2": 3,
    }
    assert [event["id"] for event in trail.streams["shops/1"]] == ["1", "4", "7"]
    assert tally(run("audit", "import", file, "--json")[1])["events_appended"] == 0


def test_the_stream_can_be_named_or_taken_from_another_attribute(run, trail, tmp_path):
    file = write(tmp_path / "e.jsonl", [cloudevent(1, tenantname="acme")])

    run("audit", "import", file, "--stream", "one/stream")
    run("audit", "import", file, "--stream-from", "tenantname")

    assert set(trail.streams) == {"one/stream", "acme"}


def test_a_line_that_differs_from_what_the_stream_holds_stops_the_import(run, trail, tmp_path):
    lines = [cloudevent(number) for number in range(5)]
    run("audit", "import", write(tmp_path / "e.jsonl", lines[:3]))
    lines[1] = cloudevent(1, data={"item-1": 999})

    code, out, err = run("audit", "import", write(tmp_path / "e.jsonl", lines), "--json")

    error = json.loads(err)["error"]
    assert (code, out, error["code"]) == (1, "", "contradiction")
    assert (error["where"], error["stream"], error["version"]) == ("line 2", "shop", 2)
    assert "data" in error["detail"]
    assert len(trail.streams["shop"]) == 3


@pytest.mark.parametrize("change", [{"id": "other"}, {"source": "urn:x"}, {"type": "x"}, {"data": True}, {"custom": 1}])
def test_every_attribute_of_a_line_has_to_agree(run, tmp_path, change):
    run("audit", "import", write(tmp_path / "e.jsonl", [cloudevent(1, data=1)]), "--stream", "s")

    code, _, err = run(
        "audit", "import", write(tmp_path / "e.jsonl", [{**cloudevent(1, data=1), **change}]), "--stream", "s"
    )

    assert code == 1
    assert f"line 1 contradicts version 1 of s: {next(iter(change))}" in err


def test_a_line_that_was_left_out_is_a_contradiction_and_not_a_shorter_history(run, tmp_path):
    lines = [cloudevent(number) for number in range(4)]
    run("audit", "import", write(tmp_path / "e.jsonl", lines))

    code, _, err = run("audit", "import", write(tmp_path / "e.jsonl", [lines[0], *lines[2:]]))

    assert code == 1
    assert "line 2 contradicts version 2" in err


def test_equal_moments_agree_however_they_are_written(run, tmp_path):
    def write_with(time: str) -> Path:
        return write(tmp_path / "e.jsonl", [cloudevent(1, time=time)])

    run("audit", "import", write_with("2020-01-01T00:00:00Z"))

    assert tally(run("audit", "import", write_with("2020-01-01T01:00:00+01:00"), "--json")[1])["events_appended"] == 0
    assert run("audit", "import", write_with("2020-01-01T00:00:01Z"))[0] == 1


def test_events_of_others_in_the_stream_do_not_keep_a_history_from_growing(run, trail, tmp_path):
    lines = [history_line(number, a="1") for number in range(4)]
    run("audit", "import", write(tmp_path / "h.jsonl", lines[:2]))
    run("audit", "append", "h", "--type", "note", "--data", "{}")

    code, out, _ = run("audit", "import", write(tmp_path / "h.jsonl", lines), "--json")

    assert code == 0
    assert tally(out) == {"events_read": 4, "events_appended": 2, "events_already_there": 2, "streams": {"h": 5}}


@pytest.mark.parametrize(
    "damaged",
    [
        "{\n",
        '"text"\n',
        "[]\n",
        "{}\n",
        '{"id": "1", "source": "s", "type": "t", "subject": "x", "data": NaN}\n',
        '{"id": "1", "source": "s", "type": "t", "subject": "x", "data": 1e999}\n',
        '{"id": "1", "id": "2", "source": "s", "type": "t", "subject": "x"}\n',
        '{"id": "1", "source": "s", "type": "t", "subject": "x", "data": "\\ud800"}\n',
        '{"id": "1", "source": "s", "type": "t"}\n',
        '{"id": "1", "source": "s", "type": "t", "subject": "a b"}\n',
        '{"id": "1", "source": "s", "type": "", "subject": "shop"}\n',
        "[" * 100_000 + "\n",
        json.dumps({**history_line(1), "changes": [{"op": "renamed", "path": "a"}]}) + "\n",
        json.dumps({**history_line(1), "changes": [{"op": "added", "path": "a"}]}) + "\n",
        json.dumps({**history_line(1), "commit": 7}) + "\n",
    ],
)
def test_a_damaged_line_stops_with_its_number_after_what_was_good(run, trail, tmp_path, damaged):
    file = write(tmp_path / "e.jsonl", [cloudevent(1), "\n", cloudevent(2), damaged, cloudevent(3)])

    code, out, err = run("audit", "import", file, "--json")

    error = json.loads(err)["error"]
    assert (code, out) == (1, "")
    assert (error["code"], error["where"]) == ("damaged_line", "line 4")
    assert str(file) in error["next_command"]
    assert [event["id"] for event in trail.streams["shop"]] == ["1", "2"]

    write(tmp_path / "e.jsonl", [cloudevent(1), "\n", cloudevent(2), cloudevent(4), cloudevent(3)])
    assert tally(run("audit", "import", file, "--json")[1])["events_appended"] == 2


def test_a_gzip_file_that_was_cut_short_stops_after_its_last_whole_line(run, trail, tmp_path):
    file = write(tmp_path / "e.jsonl.gz", [cloudevent(number, noise="x" * number) for number in range(500)])
    file.write_bytes(file.read_bytes()[:-600])

    code, _, err = run("audit", "import", file)

    assert code == 1
    held = len(trail.streams["shop"])
    assert 0 < held < 500
    assert f"line {held + 1} cannot be imported" in err


def test_a_batch_that_is_too_large_is_halved_until_it_fits(run, trail, tmp_path):
    trail.commit_bytes_max = 1_000

    code, out, _ = run(
        "audit", "import", write(tmp_path / "e.jsonl", [cloudevent(number) for number in range(40)]), "--json"
    )

    assert code == 0
    assert tally(out)["events_appended"] == 40
    assert [event["id"] for event in trail.streams["shop"]] == [str(number) for number in range(40)]


def test_one_event_that_is_too_large_is_a_damaged_line_and_its_neighbours_are_in(run, trail, tmp_path):
    trail.event_bytes_max = 1_000
    lines = [cloudevent(number, data="x" * (5_000 if number == 7 else 5)) for number in range(20)]

    code, _, err = run("audit", "import", write(tmp_path / "e.jsonl", lines))

    assert code == 1
    assert "line 8 cannot be imported" in err
    assert "event_too_large" in err
    assert len(trail.streams["shop"]) == 7


def test_two_imports_of_one_history_at_once_end_with_one_history(run, trail, url, tmp_path):
    """The other importer comes in after our stream has been read, so our expectation is stale."""
    lines = [cloudevent(number) for number in range(6)]
    file = write(tmp_path / "e.jsonl", lines)
    with Holdfast(url, TOKEN, budget=Budget()) as other:
        honest = trail.append

        def append_after_the_other(stream: str, request: Any) -> Any:
            trail.append = honest
            trail.lock.release()
            other.audit.append(stream, lines[:4], None)
            trail.lock.acquire()
            return honest(stream, request)

        trail.append = append_after_the_other
        code, out, _ = run("audit", "import", file, "--json")

    assert code == 0
    assert tally(out) == {"events_read": 6, "events_appended": 2, "events_already_there": 4, "streams": {"shop": 6}}
    assert [event["id"] for event in trail.streams["shop"]] == [str(number) for number in range(6)]


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(run, trail, tmp_path, monkeypatch):
    file = write(tmp_path / "e.jsonl", [cloudevent(number) for number in range(10)])

    def read_five_then_ctrl_c(*arguments: Any) -> Iterator[Item]:
        yield from itertools.islice(read_items(*arguments), 5)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("holdfast_cli.audit_import.read_items", read_five_then_ctrl_c)
        code, out, err = run("audit", "import", file, "--batch", "2")

    assert (code, out) == (130, "")
    assert f"./holdfast audit import {file} --batch 2" in err
    assert tally(run("audit", "import", file, "--batch", "2", "--json")[1])["events_already_there"] == 4
    assert [event["id"] for event in trail.streams["shop"]] == [str(number) for number in range(10)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_history_comes_from_stdin(run, trail, monkeypatch, pack):
    lines = b"".join(json.dumps(cloudevent(number)).encode() + b"\n" for number in range(5))
    for read, appended in ((5, 5), (5, 0)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(pack(lines)))))

        code, out, _ = run("audit", "import", "-", "--json")

        assert code == 0
        told = tally(out)
        assert (told["events_read"], told["events_appended"], told["streams"]) == (read, appended, {"shop": 5})
    assert [event["id"] for event in trail.streams["shop"]] == [str(number) for number in range(5)]


def test_a_damaged_line_of_stdin_is_named_by_its_number(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"{}"))))

    code, _, err = run("audit", "import", "-", "--json")

    assert code == 1
    assert json.loads(err)["error"]["where"] == "line 1"


def test_a_file_that_is_not_there_is_told_in_words(run):
    code, _, err = run("audit", "import", "nowhere.jsonl")

    assert code == 1
    assert "nowhere.jsonl cannot be read: No such file or directory." in err


@pytest.mark.parametrize("arguments", [[], ["x.jsonl", "--git", "."], ["x.jsonl", "--batch", "0"]])
def test_what_to_import_has_to_be_said_once(run, arguments):
    code, out, err = run("audit", "import", *arguments, "--json")

    assert (code, out) == (2, "")
    assert json.loads(err)["error"]["code"] == "usage"
