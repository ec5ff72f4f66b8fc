import sys
from pathlib import Path

import pytest

from holdfast_cli.main import main
from tests.unit.client.loopback import TOKEN, Trail, serving


@pytest.fixture
def trail():
    return Trail()


@pytest.fixture
def url(trail):
    with serving(trail) as address:
        yield address


@pytest.fixture
def run(url, monkeypatch, capfd):
    """Run one command against the audit trail of the test: its exit code, and what it wrote."""
    monkeypatch.setenv("HOLDFAST_AUDIT_URL", f"{url}/audit")
    monkeypatch.setenv("HOLDFAST_TOKEN", TOKEN)

    def run_command(*arguments: str | Path) -> tuple[int, str, str]:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["holdfast", *words])
        code = main(words)
        out, err = capfd.readouterr()
        return code, out, err

    return run_command
