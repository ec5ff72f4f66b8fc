"""The `holdfast` script: found from anywhere, plain about what is missing, and quick when all is in place."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
TOOLS = ("cat", "cksum", "mkdir", "mv", "readlink", "rm", "sh", "sleep")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment is in place; its Python tells what it was asked."""
    checkout = tmp_path / "a check out"
    (checkout / "requirements").mkdir(parents=True)
    (checkout / "requirements" / "develop.txt").write_text("six==1.17.0\n")
    shutil.copy(ROOT / "holdfast", checkout)
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "[%s]" "$@"\n')
    python.chmod(0o755)
    sum_of_pins = (
        subprocess.run(["cksum"], input=b"six==1.17.0\n", capture_output=True, check=True).stdout.decode().strip()
    )
    (checkout / ".venv" / "holdfast.stamp").write_text(f"{sum_of_pins} {checkout.resolve()}\n")
    return checkout


def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(script), *arguments],
        cwd="/",
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def only_tools(directory: Path) -> str:
    """A PATH with what POSIX promises and no Python."""
    directory.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (directory / tool).symlink_to(found)
    return str(directory)


def test_it_hands_every_argument_to_the_command_line_from_any_directory(checkout: Path):
    done = run(checkout / "holdfast", "audit", "state", "a stream", "")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[-m][holdfast_cli][audit][state][a stream][]"


def test_it_works_through_symlinks_to_symlinks(checkout: Path, tmp_path: Path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "relative").symlink_to("../a check out/holdfast")
    (tmp_path / "absolute").symlink_to(tmp_path / "bin" / "relative")

    assert run(tmp_path / "absolute", "up").stdout == "[-m][holdfast_cli][up]"


def test_without_a_python_it_says_what_to_install(checkout: Path, tmp_path: Path):
    shutil.rmtree(checkout / ".venv")

    done = run(checkout / "holdfast", "up", PATH=only_tools(tmp_path / "tools"))

    assert done.returncode == 1
    assert "no Python 3.11 or newer was found" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_named_python_that_does_not_do_is_refused_by_name(checkout: Path):
    shutil.rmtree(checkout / ".venv")

    done = run(checkout / "holdfast", "up", HOLDFAST_PYTHON="/no/such/python")

    assert done.returncode == 1
    assert "HOLDFAST_PYTHON=/no/such/python is not a Python 3.11 or newer" in done.stderr


def test_a_python_without_venv_is_told_with_the_package_that_has_it(checkout: Path, tmp_path: Path):
    shutil.rmtree(checkout / ".venv")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\n')
    python.chmod(0o755)

    done = run(checkout / "holdfast", "up", HOLDFAST_PYTHON=str(python))

    assert done.returncode == 1
    assert "has no venv module" in done.stderr
    assert "apt install python3-venv" in done.stderr


def test_changed_pins_are_installed_before_the_command_runs(checkout: Path):
    (checkout / "requirements" / "develop.txt").write_text("six==1.18.0\n")

    done = run(checkout / "holdfast", "up")

    # The telling Python cannot install, so what counts is that it was asked to, and that the lock is gone.
    assert "[-m][pip][install]" in done.stderr
    assert "[--require-hashes]" in done.stderr
    assert not (checkout / ".holdfast" / "environment.lock").exists()


def test_a_lock_whose_owner_was_killed_is_taken_over(checkout: Path):
    (checkout / ".venv" / "holdfast.stamp").unlink()
    lock = checkout / ".holdfast" / "environment.lock"
    lock.mkdir(parents=True)
    ended = subprocess.Popen(["true"])
    ended.wait()
    (lock / "pid").write_text(f"{ended.pid}\n")

    done = run(checkout / "holdfast", "up")

    assert "waiting" not in done.stderr
    assert "bringing .venv up" in done.stderr
    assert not lock.exists()


def test_it_names_no_package_index():
    text = (ROOT / "holdfast").read_text()

    assert "--index" not in text
    assert "http" not in text
