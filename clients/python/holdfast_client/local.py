"""Find the local stack that `./holdfast up` started, through the files it leaves in its home."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from holdfast_client.errors import NotRunning

HOME_VARIABLE = "HOLDFAST_HOME"
HOME_NAME = ".holdfast"


class _Service(msgspec.Struct, frozen=True):
    url: str


class _Run(msgspec.Struct, frozen=True):
    """`run.json`, as far as a client needs it."""

    pid: int
    gateway_url: str
    token_file: str
    services: dict[str, _Service] = {}


class LocalStack(msgspec.Struct, frozen=True):
    """Where the running local stack answers, and the token it gave to its user."""

    url: str
    token: str
    services: Mapping[str, str]

    def __repr__(self) -> str:
        return f"LocalStack(url={self.url!r}, services={self.services!r})"


def find_home(start: Path | None = None) -> Path:
    """
    Find the home: `$HOLDFAST_HOME`, else the nearest `.holdfast` at or above *start* (the current directory).

    Raises:
        NotRunning: there is none.
    """
    if named := os.environ.get(HOME_VARIABLE):
        return Path(named)
    folder = (start or Path.cwd()).resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / HOME_NAME).is_dir():
            return candidate / HOME_NAME
    raise NotRunning(
        "no_local_stack",
        f"There is no {HOME_NAME} at or above {folder}. Start one with: ./holdfast up --detach "
        f"(in the clone of Holdfast), and call from within it or with {HOME_VARIABLE} set.",
    )


def find_local_stack(home: Path | None = None) -> LocalStack:
    """
    Read what the running stack says of itself.

    Raises:
        NotRunning: nothing runs there.
    """
    home = home or find_home()
    try:
        run = msgspec.json.decode((home / "run.json").read_bytes(), type=_Run)
        token = Path(run.token_file).read_text().strip()
    except (OSError, msgspec.MsgspecError) as error:
        raise _not_running(home, "it left no word of a running stack") from error
    if not _is_alive(run.pid):
        raise _not_running(home, f"its process {run.pid} has ended")
    return LocalStack(run.gateway_url, token, {name: service.url for name, service in run.services.items()})


def _not_running(home: Path, why: str) -> NotRunning:
    return NotRunning("no_local_stack", f"No local stack runs in {home}: {why}. Start it with: ./holdfast up --detach")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
