"""Where things are: the clone that this command belongs to, its home, and the Holdfast to talk to."""

import os
from pathlib import Path

from holdfast_client import Holdfast
from holdfast_client.local import HOME_NAME, HOME_VARIABLE, find_local_stack

ROOT = Path(__file__).resolve().parents[3]
"""The clone."""

AUDIT_URL_VARIABLE = "HOLDFAST_AUDIT_URL"
TOKEN_VARIABLE = "HOLDFAST_TOKEN"  # noqa: S105  the name of a variable


def home() -> Path:
    """The home of the local stack: `$HOLDFAST_HOME`, else `.holdfast` in the clone."""
    named = os.environ.get(HOME_VARIABLE)
    return Path(named).resolve() if named else ROOT / HOME_NAME


def connect() -> Holdfast:
    """
    Connect to the running local stack, or to what `$HOLDFAST_AUDIT_URL` and `$HOLDFAST_TOKEN` name.

    Raises:
        NotRunning: neither is there.
    """
    if url := _named_url():
        return Holdfast(url, os.environ[TOKEN_VARIABLE], services={"audit": url})
    return Holdfast.local(home())


def audit_by_hand() -> tuple[str, str]:
    """Give what a person types to reach the same audit trail: its address, and the shell's word for the token."""
    if url := _named_url():
        return url, f"${TOKEN_VARIABLE}"
    return find_local_stack(home()).services["audit"], f"$(cat {home() / 'token'})"


def _named_url() -> str | None:
    return os.environ.get(AUDIT_URL_VARIABLE) if os.environ.get(TOKEN_VARIABLE) else None
