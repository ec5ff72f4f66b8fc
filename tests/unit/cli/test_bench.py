"""`./holdfast audit bench`: from its words to the bench itself and back, with measuring left out."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast_cli import audit_bench
from tests.bench import __main__ as runner
from tests.bench.audit import running
from tests.bench.audit.figures import SMALL, Figure, Sizes, against
from tests.bench.audit.states import Point
from tests.unit.client.test_client import write_run

FIGURES = [
    Figure(name="append one by one", unit="events/s", repeats=1, size="40", **against("SQLite", 300, 200),
           target=1.2),
    Figure(name="verify offline", value=10.0, unit="events/s per core", repeats=1, size="40", target=50_000),
]  # fmt: skip
TIMES = {"p50": 1.0, "p95": 2.0, "p99": 3.0}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Sizes]:
    """The bench where the command starts it, in this process; what it was told to measure."""
    sizes: list[Sizes] = []

    def measure(asked: Sizes) -> Any:
        sizes.append(asked)
        return FIGURES, [Point(1_000, TIMES, TIMES)]

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[:3] == [sys.executable, "-m", runner.__package__]
        assert options["env"]["HOLDFAST_HOME"] == str(tmp_path / "home")
        monkeypatch.setattr(sys, "argv", command[2:])
        with contextlib.redirect_stdout(io.StringIO()):
            return subprocess.CompletedProcess(command, runner.main())

    write_run(tmp_path / "home", "http://127.0.0.1:9", os.getpid())
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(running, "_measured", measure)
    here = SimpleNamespace(run=run, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(audit_bench, "subprocess", here)
    return sizes


def test_small_sizes_are_asked_for_and_the_figures_come_back(command, measured, tmp_path):
    code, out, _ = command("audit", "bench", "--small", "--out", tmp_path / "kept", "--json")

    told = json.loads(out)
    assert (code, measured) == (0, [SMALL])
    assert told["results"]["is_small"]
    assert told["results"]["targets"] == {"met": ["append one by one"], "missed": ["verify offline"]}
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["audit.json", "audit.svg"]
    assert json.loads((tmp_path / "kept/audit.json").read_text()) == told


def test_the_figures_are_told_to_people_with_what_was_met(command, measured):
    code, out, err = command("audit", "bench", "--small")

    assert (code, out) == (0, "")
    assert "met    append one by one" in err
    assert "missed verify offline" in err
    assert "small sizes" in err


def test_a_bench_that_breaks_off_is_a_failure(command, measured, monkeypatch):
    monkeypatch.setattr(runner, "main", lambda: 1)

    code, _, err = command("audit", "bench", "--small")

    assert code == 1
    assert "did not come to its end" in err


def test_where_nothing_runs_nothing_is_measured(command, monkeypatch, tmp_path):
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "none"))

    assert command("audit", "bench", "--small")[0] == 1
