"""What a command has printed, as values."""

import json
from typing import Any


def lines(out: str) -> list[Any]:
    return [json.loads(line) for line in out.splitlines()]


def error_of(err: str) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(err.splitlines()[-1])["error"]
    return error
