"""What runs, and where: `run.json`, the answer of `status`, and the places under the home directory."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from stacks.local import files, locks
from stacks.local.processes import Identity

TENANT = "local"


@dataclass(frozen=True)
class Home:
    """The home directory of one local stack, and what lies where in it."""

    path: Path

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    @property
    def token_file(self) -> Path:
        return self.path / "token"

    @property
    def last_word_file(self) -> Path:
        """How the last stop ended, for whoever asked for it from another process."""
        return self.path / "last-word.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.path / "supervisor.lock"

    @property
    def stack_log(self) -> Path:
        return self.path / "logs" / "stack.log"

    @property
    def engine_log(self) -> Path:
        return self.path / "logs" / "engine.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def kept_data(self) -> tuple[Path, ...]:
        """Everything that `reset` forgets: not the engine's environment, the caches and the logs."""
        return (self.path / "state", self.path / "s3", self.path / "tmp", self.checkpoints)

    @property
    def installed(self) -> tuple[Path, ...]:
        """What is installed and built, and is the same whoever uses it."""
        return (self.path / "engine", self.path / "build")

    def share_installed(self, other: "Home") -> None:
        """Use what is installed and built for *other*, and never what is stored there."""
        for own, others in zip(self.installed, other.installed, strict=True):
            others.mkdir(parents=True, exist_ok=True)
            own.parent.mkdir(parents=True, exist_ok=True)
            if not own.exists():
                own.symlink_to(others.resolve())

    def supervisor_pid(self) -> int | None:
        """Say which process supervises this home now; None if none does."""
        return locks.owner(self.lock)


class EngineAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where AWS's own APIs are answered."""

    endpoint_url: str
    region: str
    dynamodb_endpoint_url: str


class ServiceAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service is reached."""

    url: str


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service is reached, and whether it answers."""

    url: str
    healthy: bool


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json`: written when the engine is up, and again when the services answer."""

    pid: int
    engine_pid: int | None
    started_at: str
    gateway_url: str
    services: dict[str, ServiceAddress]
    """Empty while the stack is starting."""
    tenant: str
    token_file: str
    engine: EngineAddress
    engine_began: str | None
    """With `engine_pid`, the engine's identity: the number alone may be somebody else's by now."""
    control_secret: str
    """Lets a second `up` ask this supervisor to deploy again; the file is readable by its owner alone."""
    console: str | None = None

    @property
    def engine_identity(self) -> Identity | None:
        if self.engine_pid is None or self.engine_began is None:
            return None
        return Identity(self.engine_pid, self.engine_began)


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What `holdfast status --json` prints."""

    ready: bool
    """Everything answers."""
    console: str | None
    services: dict[str, ServiceHealth]
    tenant: str
    token_file: str
    engine: EngineAddress | None


def load(home: Home) -> Running | None:
    """Read run.json; None if nothing was left running. Whether it still runs, only the lock can say."""
    return files.read(home.run_file, Running)
