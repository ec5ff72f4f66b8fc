"""
The embedded AWS (MiniStack) as a child process on loopback.

It keeps its state in memory and writes it only when it is told to stop (SIGTERM), so it is always stopped
that way and given time. Stream records are not among what it writes: whoever stops it lets the dispatcher
read the streams to their end first. It runs with `AUTH=true`, so every function acts under its own role.
"""

import logging
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from stacks.local import files, processes
from stacks.local.environment import ensure_engine
from stacks.local.errors import CannotStart, Report
from stacks.local.processes import LOOPBACK, Identity

START_SECONDS_MAX = 30.0
HEALTH_TIMEOUT_SECONDS = 2.0
STOP_SECONDS_MAX = 30.0
"""Writing the state takes about 0.2 s per megabyte; a child that needs longer has lost its way."""
POLL_SECONDS = 0.02
PROCESS = Path(__file__).with_name("engine_process.py")
STATE_NOT_WRITTEN = "Persistence: failed to save"
"""What the engine logs, and otherwise keeps to itself, when a part of its state could not be written."""

REGION = "us-east-1"
ACCESS_KEY = "test"
SECRET_KEY = "test"  # noqa: S105 (the engine's public default: the root of account 000000000000, on loopback)

_log = logging.getLogger(__name__)


class Engine:
    """One running engine: started by `start`, or found again by its identity after its supervisor was killed."""

    def __init__(self, identity: Identity, port: int, log: Path, child: subprocess.Popen[bytes] | None = None) -> None:
        self.identity = identity
        self.endpoint_url = f"http://{LOOPBACK}:{port}"
        self._log_file = log
        # Held so that the child is reaped, and so that its exit code can be told.
        self._child = child

    def is_alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return processes.is_alive(self.identity)

    def stop(self) -> bool:
        """
        Have the state written and the process gone; say whether the state can be trusted to be whole.

        Safe to call again, and on an engine that has died by itself.
        """
        was_alive = self.is_alive()
        log_size = self._log_file.stat().st_size if self._log_file.exists() else 0
        ended_by_itself = end(self.identity)
        if self._child is not None:
            self._child.wait(STOP_SECONDS_MAX)
        return was_alive and ended_by_itself and not self._complained_since(log_size)

    def _complained_since(self, log_size: int) -> bool:
        if not self._log_file.exists():
            return False
        with self._log_file.open("rb") as log:
            log.seek(log_size)
            return STATE_NOT_WRITTEN.encode() in log.read()


def end(identity: Identity) -> bool:
    """
    Have an engine write its state and end; say whether it did so in time.

    The functions that it runs are its process group, and are ended with it: it would wait for each of them.
    """
    return processes.stop(identity, patience_seconds=STOP_SECONDS_MAX, with_group=True)


def start(home: Path, port: int, report: Report) -> Engine:
    """
    Start the engine with the state that lies under *home*, and return when it answers.

    Raises:
        CannotStart: it cannot be installed, its port is held, or it ended or hung while starting.
    """
    python = ensure_engine(home / "engine", report)
    require_free_port(port, "the engine")
    # What an engine that was killed has left there: unpacked functions, nothing else.
    shutil.rmtree(home / "tmp", ignore_errors=True)
    for part in ("state", "s3", "tmp", "logs"):
        (home / part).mkdir(parents=True, exist_ok=True)
    log_file = home / "logs" / "engine.log"
    with log_file.open("ab") as log:
        child = subprocess.Popen(  # noqa: S603 (our own interpreter)
            [str(python), str(PROCESS)],
            env=environment(home, port),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C goes to the whole foreground group: the engine is stopped by us, in its turn.
            start_new_session=True,
        )
    identity = processes.identify(child.pid)
    if identity is None:
        child.wait()
        raise CannotStart(f"The engine ended at once.\n{files.last_lines(log_file)}", f"All of it: {log_file}")
    engine = Engine(identity, port, log_file, child)
    try:
        _wait_until_healthy(engine, child, port, log_file)
    except BaseException:
        engine.stop()
        raise
    return engine


def environment(home: Path, port: int) -> dict[str, str]:
    """
    Give the engine's whole environment: nothing is inherited.

    Every function that runs here inherits the engine's environment, so a developer's own AWS profile,
    proxy, token or home directory must not be in it.
    """
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "HOME": str(home / "tmp"),
        "TMPDIR": str(home / "tmp"),
        "PYTHONNOUSERSITE": "1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        # With a Docker daemon in reach, the engine would remove containers at start-up and stop.
        "DOCKER_HOST": f"unix://{home / 'tmp' / 'no-docker.sock'}",
        "BIND_HOST": LOOPBACK,
        "GATEWAY_PORT": str(port),
        "AUTH": "true",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(home / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(home / "s3"),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
    }


def require_free_port(port: int, whose: str) -> None:
    """
    Make sure that nobody listens on a port that is about to be ours.

    Raises:
        CannotStart: somebody does; the message names the process.
    """
    if processes.is_listening(port):
        raise CannotStart(
            f"Port {port}, wanted for {whose}, is held by {processes.describe_holder(port)}.",
            "End it, or choose another: ./holdfast up --port 4700 (the engine takes the port after it).",
        )


def _wait_until_healthy(engine: Engine, child: subprocess.Popen[bytes], port: int, log_file: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not _answers(port):
        if child.poll() is not None:
            raise CannotStart(
                f"The engine ended while starting.\n{files.last_lines(log_file)}", f"All of it: {log_file}"
            )
        if time.monotonic() >= deadline:
            raise CannotStart(
                f"The engine did not answer within {START_SECONDS_MAX:.0f} s.\n{files.last_lines(log_file)}",
                f"All of it: {log_file}",
            )
        time.sleep(POLL_SECONDS)
    _require_ours(engine, port)


def _require_ours(engine: Engine, port: int) -> None:
    """Two servers can race for one port: the loser dies, and whoever answers is somebody else."""
    holder = processes.port_holder(port)
    # Where the holder cannot be told, the child being alive is the evidence: it ends if it cannot bind.
    if not engine.is_alive() or (holder is not None and holder[0] != engine.identity.pid):
        raise CannotStart(
            f"Port {port} was taken by {processes.describe_holder(port)} while the engine was starting.",
            "Choose another: ./holdfast up --port 4700 (the engine takes the port after it).",
        )


def _answers(port: int) -> bool:
    # No proxy may stand between us and our own child, whatever the developer's environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{LOOPBACK}:{port}/_ministack/health", timeout=HEALTH_TIMEOUT_SECONDS) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004
    except (OSError, urllib.error.HTTPError):
        return False
