"""The engine's environment, and its port: what must hold before it runs."""

import os
import socket
from pathlib import Path

import pytest

from stacks.local import engine
from stacks.local.errors import CannotStart
from stacks.local.processes import LOOPBACK


def test_nothing_of_the_developers_own_environment_reaches_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "HTTPS_PROXY", "PYTHONPATH"):
        monkeypatch.setenv(name, "of the developer")
    monkeypatch.setenv("HOME", "/home/of-the-developer")

    environment = engine.environment(tmp_path, 4601)

    assert "of the developer" not in environment.values()
    assert environment["HOME"].startswith(str(tmp_path))
    assert environment["AWS_CONFIG_FILE"] == environment["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull


def test_the_engine_listens_on_loopback_only_checks_rights_and_keeps_its_state_at_home(tmp_path: Path):
    environment = engine.environment(tmp_path, 4601)

    assert environment["BIND_HOST"] == LOOPBACK
    assert environment["AUTH"] == "true"
    assert environment["GATEWAY_PORT"] == "4601"
    assert Path(environment["STATE_DIR"]).is_relative_to(tmp_path)
    assert Path(environment["S3_DATA_DIR"]).is_relative_to(tmp_path)


def test_a_held_port_is_refused_with_its_holder_and_the_way_out():
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(CannotStart) as refused:
            engine.require_free_port(port, "the engine")

    assert f"process {os.getpid()} (" in refused.value.what
    assert "./holdfast up --port" in refused.value.next_step
