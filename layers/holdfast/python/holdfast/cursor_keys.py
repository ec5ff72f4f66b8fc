"""The key that seals cursors: read from where `deploy` put it, when the first cursor is made or opened."""

import base64
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from holdfast.aws import client
from holdfast.clock import Clock
from holdfast.cursors import Cursors
from holdfast.remembered import Remembered
from holdfast.retry import check_deadline

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

REFRESH_SECONDS: Final = 600
"""After which the key is read again: it is never replaced by Holdfast, but an operator may."""
RETRY_SECONDS: Final = 10
"""A read may take 6 s to fail, and each request that tries waits for it: one in ten seconds does."""


class CursorKey:
    """Cursors under a key that is kept elsewhere. While it cannot be read again, the one that is known serves."""

    def __init__(self, read: Callable[[], bytes], clock: Clock) -> None:
        self._known = Remembered(
            lambda: Cursors(read()),
            clock,
            what="The key that seals cursors",
            code="cursor_key_unknown",
            retry_seconds=RETRY_SECONDS,
        )

    def cursors(self) -> Cursors:
        """
        Answer cursors under the key.

        Raises:
            Unavailable: `cursor_key_unknown`; it was never read so far.
        """
        return self._known.recall(refresh_seconds=REFRESH_SECONDS)


def read_key_parameter(ssm: "SSMClient", name: str) -> bytes:
    """Read the key from the secure parameter *name*, in one call."""
    check_deadline()
    return base64.b64decode(ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"], validate=True)


def cursor_key_from(environment: Mapping[str, str], clock: Clock) -> CursorKey:
    """Wire the key that a function's settings name: HOLDFAST_CURSOR_KEY_PARAMETER."""
    return CursorKey(lambda: read_key_parameter(client("ssm"), environment["HOLDFAST_CURSOR_KEY_PARAMETER"]), clock)
