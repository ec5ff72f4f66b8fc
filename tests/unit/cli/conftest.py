import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from holdfast import telemetry
from holdfast_cli import audit_prove, audit_rebuilds, audit_streams, audit_subjects, audit_verify
from holdfast_cli.main import main
from tests.audit_lab import AuditLab
from tests.log_lab import log_lab
from tests.unit.cli.whole_trail import WholeTrail
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


@pytest.fixture
def whole(monkeypatch, tmp_path):
    """The whole audit trail as the local stack of the commands, with a home of its own."""
    whole = WholeTrail(AuditLab(log_lab(), monkeypatch))
    # What the service logs would stand among what the command prints.
    monkeypatch.setattr(telemetry, "logger", MagicMock)
    for module in (audit_prove, audit_rebuilds, audit_streams, audit_subjects, audit_verify):
        monkeypatch.setattr(module, "connect", whole.connected)
    monkeypatch.setattr(audit_verify, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(audit_rebuilds, "POLL_SECONDS", 0.0)
    for name in ("HOLDFAST_AUDIT_URL", "HOLDFAST_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return whole


@pytest.fixture
def command(capfd, monkeypatch):
    """Run one command: its exit code, and what it wrote."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["holdfast", *words])
        code = main(words)
        out, err = capfd.readouterr()
        return code, out, err

    return run_command


@pytest.fixture
def told(whole, command):
    """Two streams of three events, of which one is sealed for a subject."""
    for stream, kind, data, *more in (
        ("orders/1", "order.placed", '{"total": 7, "note": "gift"}', "--subject", "ann"),
        ("orders/1", "order.paid", '{"paid": true, "note": null}'),
        ("people/ann", "person.moved", '{"street": "Elm"}', "--shredkey", "ann"),
    ):
        assert command("audit", "append", stream, "--type", kind, "--data", data, *more)[0] == 0
    return command
