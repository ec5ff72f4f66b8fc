"""The other commands, and how every command ends: exit codes, what goes to stdout, and errors in words or JSON."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast_cli import audit_streams, stacking
from holdfast_cli.main import main
from holdfast_client.errors import NotRunning
from stacks.local import files, locks
from stacks.local.running import EngineAddress, Home, Running, ServiceAddress
from tests.unit.client.loopback import LostReply, Says


def error_of(err: str) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(err)["error"]
    return error


def test_an_event_is_appended_read_and_folded(run):
    code, out, _ = run("audit", "append", "orders/42", "--type", "placed", "--data", '{"total": 12}', "--json")

    appended = json.loads(out)
    assert code == 0
    assert (appended["stream"], appended["version"], appended["replayed"]) == ("orders/42", 1, False)
    (event,) = (json.loads(line) for line in run("audit", "events", "orders/42", "--json")[1].splitlines())
    assert (event["type"], event["data"], event["id"]) == ("placed", {"total": 12}, appended["event_id"])
    assert json.loads(run("audit", "state", "orders/42", "--json")[1]) == {"total": 12}


def test_an_append_that_expects_another_version_is_refused_with_the_version_that_is(run):
    run("audit", "append", "s", "--type", "t", "--data", "1")

    code, out, err = run("audit", "append", "s", "--type", "t", "--data", "2", "--expected", "none", "--json")

    assert (code, out) == (4, "")
    assert (error_of(err)["code"], error_of(err)["last_version"], error_of(err)["status"]) == ("stale", 1, 409)


def test_an_append_of_unknown_outcome_names_the_command_that_asks_again(run, trail, monkeypatch):
    trail.faults.extend([LostReply()] * 6)

    code, out, err = run("audit", "append", "s", "--type", "t", "--data", "1", "--json")
    error = error_of(err)
    again = error["next_command"].split()[1:]
    found_out = json.loads(run(*again)[1])

    assert (code, out, error["code"]) == (4, "", "outcome_unknown")
    assert (found_out["version"], found_out["replayed"]) == (1, True)
    assert len(trail.streams["s"]) == 1


def test_events_are_bounded_and_start_where_they_are_asked_to(run):
    for number in range(5):
        run("audit", "append", "s", "--type", f"t{number}", "--data", "1")

    lines = run("audit", "events", "s", "--after", "1", "--limit", "2", "--json")[1].splitlines()

    assert [json.loads(line)["type"] for line in lines] == ["t1", "t2"]


def test_a_stream_is_followed_until_ctrl_c_and_each_event_comes_once(run, trail, monkeypatch):
    for number in range(2):
        run("audit", "append", "s", "--type", f"t{number}", "--data", "1")
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt
        run("audit", "append", "s", "--type", f"t{len(waits) + 1}", "--data", "1")

    monkeypatch.setattr(audit_streams, "time", SimpleNamespace(sleep=wait))
    told: list[str] = []
    monkeypatch.setattr(audit_streams, "_print_event", lambda event: told.append(event.type))

    code, _, err = run("audit", "events", "s", "--follow", "--json")

    assert (code, told) == (0, ["t0", "t1", "t2", "t3"])
    assert waits == [audit_streams.FOLLOW_SECONDS] * 3
    assert "./holdfast audit events s --after 4 --follow" in err


def test_a_stream_is_followed_up_to_a_limit(run, monkeypatch):
    run("audit", "append", "s", "--type", "t", "--data", "1")

    def wait(_seconds: float) -> None:
        run("audit", "append", "s", "--type", "t", "--data", "1")

    monkeypatch.setattr(audit_streams, "time", SimpleNamespace(sleep=wait))

    assert run("audit", "events", "s", "--follow", "--limit", "3", "--after", "0")[0] == 0


def test_a_state_is_a_table_for_people_and_its_version_is_on_stderr(run):
    run("audit", "append", "s", "--type", "t", "--data", '{"a": "[red]x", "b\\u001b[2J": 1}')

    code, out, err = run("audit", "state", "s")

    assert code == 0
    assert "[red]x" in out
    assert "\x1b[2J" not in out
    assert "s at version 1 of 1" in err


def test_what_events_hold_cannot_steer_the_terminal(run):
    run("audit", "append", "s", "--type", "t", "--data", "1", "--subject", "\x1b[2J")

    assert "\x1b" not in run("audit", "events", "s")[1]


def test_an_unknown_stream_is_a_remote_error_with_its_request_id(run):
    code, out, err = run("audit", "state", "nothing", "--json")

    assert (code, out) == (4, "")
    assert (error_of(err)["code"], error_of(err)["request_id"]) == ("stream_not_found", "request-7")


def test_a_token_that_is_refused_leads_to_the_doctor(run, monkeypatch):
    monkeypatch.setenv("HOLDFAST_TOKEN", "wrong")

    code, _, err = run("audit", "state", "s")

    assert code == 4
    assert "The token is not accepted." in err
    assert "Next: ./holdfast doctor" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-verb"],
        ["audit", "no-such-verb"],
        ["audit", "state"],
        ["audit", "state", "s", "--version", "x"],
        ["audit", "append", "s", "--type", "t", "--data", "{"],
        ["audit", "append", "s", "--type", "t", "--data", "1", "--expected", "-1"],
        ["audit", "state", "a b"],
        ["token", "create", "--tenant", "t", "--scopes", ","],
        ["token", "create", "--tenant", "t", "--scopes", "a:b", "--ttl", "forever"],
        ["up", "--only", "nothing-we-have"],
        ["test", "tests/no-such-folder"],
    ],
)
def test_a_wrong_command_is_a_usage_error_in_words_and_in_json(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("holdfast: ")

    code, out, err = run(*arguments, "--json")
    assert (code, out) == (2, "")
    assert error_of(err)["exit_code"] == 2


def test_where_nothing_runs_the_next_command_is_up(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path))

    for arguments in (["audit", "state", "s"], ["plan"], ["token", "revoke", "x"], ["demo", "audit"]):
        assert main([*arguments, "--json"]) == 1
        assert error_of(capfd.readouterr().err.splitlines()[-1])["next_command"] == "./holdfast up --detach"


def test_status_has_its_keys_even_where_nothing_runs(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path))

    assert main(["status", "--json"]) == 1

    status = json.loads(capfd.readouterr().out)
    assert set(status) == {"ready", "console", "services", "tenant", "token_file", "engine"}
    assert status["ready"] is False


def test_doctor_finds_something_to_say_and_a_fix_for_whatever_is_not_ok(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path))

    main(["doctor", "--json"])

    findings = {finding["check"]: finding for finding in json.loads(capfd.readouterr().out)["findings"]}
    assert {"python", "environment", "engine", "port 4600", "port 4601", "disk", "stack"} <= set(findings)
    assert findings["stack"]["fix"] == "./holdfast up --detach"
    assert all(finding["fix"] for finding in findings.values() if finding["verdict"] != "ok")


def left_behind(home: Path) -> None:
    """Write what a stack says of itself while it runs."""
    running = Running(
        pid=1, engine_pid=1, engine_began="", started_at="", tenant="local", token_file=str(home / "token"),
        gateway_url="http://127.0.0.1:9", services={"audit": ServiceAddress(url="http://127.0.0.1:9/audit")},
        engine=EngineAddress(endpoint_url="http://127.0.0.1:10", region="eu-west-1", dynamodb_endpoint_url=""),
        control_secret="",
    )  # fmt: skip
    files.write(Home(home).run_file, running)


def test_what_a_killed_stack_left_behind_is_no_stack_that_runs(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path))
    left_behind(tmp_path)

    main(["doctor", "--json"])
    findings = {finding["check"]: finding for finding in json.loads(capfd.readouterr().out)["findings"]}
    assert findings["stack"]["fix"] == "./holdfast up --detach"
    assert not {"token", "service audit", "port 9"} & set(findings)
    with pytest.raises(NotRunning):
        stacking.target(aws=False)


def test_a_stack_whose_supervisor_lives_is_where_commands_go(monkeypatch, tmp_path):
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path))
    left_behind(tmp_path)

    with locks.held(Home(tmp_path).lock):
        where = stacking.target(aws=False)

    assert (where.is_local, where.endpoint_url, where.session.region_name) == (True, "http://127.0.0.1:10", "eu-west-1")


@pytest.mark.parametrize("arguments", [["reset"], ["destroy"]])
def test_what_deletes_asks_and_where_nobody_answers_it_refuses(monkeypatch, tmp_path, capfd, arguments):
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))

    assert main([*arguments, "--json"]) == 3

    assert error_of(capfd.readouterr().err)["code"] == "not_confirmed"


def test_a_reader_that_goes_away_ends_the_command_without_a_word(run, trail, url):
    for number in range(3):
        run("audit", "append", "s", "--type", f"t{number}", "--data", json.dumps("x" * 100_000))
    command = f"{sys.executable} -m holdfast_cli audit events s --json | head -c 10"

    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=False)

    assert done.stderr == b""


def test_audit_commands_start_without_the_stacks():
    code = "import sys, holdfast_cli.main; print({'stacks', 'boto3', 'botocore'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"set()"


def test_a_busy_service_is_waited_for_as_long_as_it_asks(run, trail):
    trail.faults.append(Says(429, {"code": "throttled"}, {"Retry-After": "1"}))
    started = time.monotonic()

    assert run("audit", "append", "s", "--type", "t", "--data", "1")[0] == 0
    assert time.monotonic() - started >= 1
