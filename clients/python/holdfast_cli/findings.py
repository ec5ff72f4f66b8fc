"""What `./holdfast doctor` finds."""

from typing import Literal

import msgspec

Verdict = Literal["ok", "warning", "failed"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at; a fix is given wherever there is something to do."""

    check: str
    verdict: Verdict
    detail: str
    fix: str | None = None
