"""How a command ends when it does not succeed: what happened, why, the next command, and an exit code."""

import shlex
import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from holdfast_client.errors import HoldfastError, Invalid, NotRunning, Uncertain

KEYED_COMMANDS = frozenset({"append", "rebuild", "hold", "release", "erase"})
"""The commands that take --idempotency-key."""


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    """A guard of ours said no: nothing was done."""
    REMOTE = 4
    """The service said no, or nothing."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it."""


class Failure(Exception):
    """An expected end: told in a sentence or two, never as a traceback."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        next_command: str | None = None,
        exit_code: ExitCode = ExitCode.FAILED,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.next_command = next_command
        self.exit_code = exit_code
        self.facts = facts or {}

    def as_json(self) -> dict[str, Any]:
        return {
            "error": {
                "code": self.code,
                "detail": self.detail,
                "next_command": self.next_command,
                "exit_code": int(self.exit_code),
                **self.facts,
            }
        }


def failure_of(error: HoldfastError) -> Failure:
    """Tell an error of the SDK as the end of a command."""
    facts: dict[str, Any] = {**error.facts, "status": error.status, "request_id": error.request_id}
    match error:
        case Uncertain():
            again = (
                "asking again with the same idempotency key"
                if _takes_key()
                else "running the same command again: what has been done is not done twice"
            )
            return Failure(
                error.code,
                f"{error.detail} Nothing is lost by {again}.",
                next_command=same_command(idempotency_key=error.idempotency_key),
                exit_code=ExitCode.REMOTE,
                facts={**facts, "idempotency_key": error.idempotency_key},
            )
        case NotRunning():
            return Failure(error.code, error.detail, next_command="./holdfast up --detach", exit_code=ExitCode.FAILED)
        case Invalid(status=None):
            return Failure(error.code, error.detail, exit_code=ExitCode.USAGE)
        case _:
            where = f" (at {error.pointer})" if error.pointer else ""
            return Failure(
                error.code,
                f"{error.detail}{where}",
                next_command="./holdfast doctor" if error.status in {None, 401, 503} else None,
                exit_code=ExitCode.REMOTE,
                facts=facts,
            )


def same_command(*, idempotency_key: str | None = None) -> str:
    """Write the command that is running, so that it can be pasted and run again."""
    words = ["./holdfast", *sys.argv[1:]]
    if idempotency_key is not None and _takes_key() and "--idempotency-key" not in words:
        words += ["--idempotency-key", idempotency_key]
    return shlex.join(words)


def _takes_key() -> bool:
    return not KEYED_COMMANDS.isdisjoint(sys.argv[1:])
