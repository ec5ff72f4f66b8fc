"""The verifier as a program of its own: what it prints, with what code it ends, and what it keeps."""

from pathlib import Path
from typing import Any

import pytest

from holdfast_client.verifier import State, main
from tests.exported_log import ExportedLog, pem
from tests.unit.client.verifier.made_exports import forked, proven

USAGE = "(run: python verifier.py EXPORT KEY.pem [STATE.json])\n"


@pytest.fixture
def folder(log, tmp_path, monkeypatch) -> Path:
    write(tmp_path, log)
    (tmp_path / "key.pem").write_bytes(pem(log.signer))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, log: ExportedLog) -> None:
    (folder / "log.jsonl").write_bytes(b"".join(log.lines()))


@pytest.fixture
def run(folder, capsys) -> Any:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_what_is_proven_ends_with_0_and_is_kept_where_asked(run, folder, log):
    code, out, err = run("log.jsonl", "key.pem")
    assert (code, out.startswith("Proven("), err) == (0, True, "")
    assert {path.name for path in folder.iterdir()} == {"log.jsonl", "key.pem"}

    assert run("log.jsonl", "key.pem", "state.json")[0] == 0
    assert State.from_bytes((folder / "state.json").read_bytes()) == proven(log).state
    assert {path.name for path in folder.iterdir()} == {"log.jsonl", "key.pem", "state.json"}


def test_what_is_broken_ends_with_1_and_changes_nothing_that_was_seen(run, folder, log):
    run("log.jsonl", "key.pem", "state.json")
    kept = (folder / "state.json").read_bytes()
    write(folder, forked(log.signer, at=3))

    code, out, err = run("log.jsonl", "key.pem", "state.json")

    assert (code, out.startswith("Broken("), err) == (1, True, "")
    assert (folder / "state.json").read_bytes() == kept


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("log.jsonl",),
        ("log.jsonl", "key.pem", "state.json", "more"),
        ("none.jsonl", "key.pem"),
        (".", "key.pem"),
        ("log.jsonl", "none.pem"),
        ("log.jsonl", "log.jsonl"),
        ("log.jsonl", "key.pem", "key.pem"),
        ("log.jsonl", "key.pem", "none/state.json"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_checked_or_kept_ends_with_2_and_a_line_that_says_how(run, arguments):
    code, out, err = run(*arguments)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith(USAGE)


def test_what_was_seen_stays_if_what_is_seen_now_cannot_be_written(run, folder, log, monkeypatch):
    run("log.jsonl", "key.pem", "state.json")
    kept = (folder / "state.json").read_bytes()
    log.fill(1, first=100)
    log.anchor()
    write(folder, log)

    def write_half(path: Path, body: bytes) -> None:
        with path.open("wb") as file:
            file.write(body[: len(body) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_half)
        code, _, err = run("log.jsonl", "key.pem", "state.json")
    assert (code, "No space left" in err) == (2, True)
    assert (folder / "state.json").read_bytes() == kept

    assert run("log.jsonl", "key.pem", "state.json")[0] == 0
    assert State.from_bytes((folder / "state.json").read_bytes()) == proven(log).state
