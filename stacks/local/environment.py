"""
The engine's own virtual environment.

The engine pins one botocore, and that pin must never become the library's: so it lives by itself under
`<home>/engine`, made from `requirements/engine.txt` by hash, on first use and whenever that file changes.
"""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

from stacks.local import locks
from stacks.local.errors import CannotStart, Report

REQUIREMENTS = Path(__file__).parents[2] / "requirements" / "engine.txt"
INSTALL_TIMEOUT_SECONDS = 600.0
LOCK_SECONDS_MAX = 660.0
"""Somebody else's install, and a little."""
STAMP = "holdfast.stamp"
MESSAGE_CHARACTERS_MAX = 2_000


def ensure_engine(directory: Path, report: Report) -> Path:
    """
    Have the engine installed, and give the Python that runs it.

    Raises:
        CannotStart: it could not be installed; the message holds what pip said.
    """
    directory = directory.resolve()
    python = directory / "bin" / "python"
    stamp = directory / STAMP
    wanted = _fingerprint(directory)
    if _is_in_place(python, stamp, wanted):
        return python
    # Two stacks may share one environment, as the tests' stacks do.
    with locks.waited_for(directory.with_suffix(".lock"), timeout_seconds=LOCK_SECONDS_MAX):
        if not _is_in_place(python, stamp, wanted):
            report.step("Installing the local engine into an environment of its own (about half a minute, once)")
            stamp.unlink(missing_ok=True)
            venv.create(directory, clear=True, with_pip=True)
            _install(python)
            # Last, so that an install that was cut short is done again.
            stamp.write_text(wanted)
    return python


def _is_in_place(python: Path, stamp: Path, wanted: str) -> bool:
    return python.exists() and stamp.exists() and stamp.read_text() == wanted


def _fingerprint(directory: Path) -> str:
    """Change when the pins, the interpreter or the place change: a virtual environment cannot be moved."""
    pins = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    return f"{pins} {sys.version} {directory}\n"


def _install(python: Path) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    try:
        done = subprocess.run(  # noqa: S603 (our own interpreter and our own file)
            [*command, "--require-hashes", "-r", str(REQUIREMENTS)],
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotStart(
            f"The local engine was not installed within {INSTALL_TIMEOUT_SECONDS:.0f} s.",
            "Check the network and pip's index (pip config list), then run ./holdfast up again.",
        ) from error
    if done.returncode != 0:
        raise CannotStart(
            f"The local engine could not be installed. pip says:\n{done.stderr[-MESSAGE_CHARACTERS_MAX:].strip()}",
            "Check the network and pip's index (pip config list), then run ./holdfast up again.",
        )
