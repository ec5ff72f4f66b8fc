"""The key that seals cursors: read from where `deploy` put it, when the first cursor is made or opened."""

import base64
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from holdfast.aws import client
from holdfast.clock import Clock
from holdfast.cursors import Cursors
from holdfast.errors import Unavailable
from holdfast.retry import check_deadline

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

REFRESH_SECONDS: Final = 600.0
"""After which the key is read again: it is never replaced by Holdfast, but an operator may."""
RETRY_SECONDS: Final = 10.0
"""A read may take 6 s to fail, and each request that tries waits for it: one in ten seconds does."""


class CursorKey:
    """Cursors under a key that is kept elsewhere. While it cannot be read again, the one that is known serves."""

    def __init__(self, read: Callable[[], bytes], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._cursors: Cursors | None = None
        self._try_at = clock.monotonic()

    def cursors(self) -> Cursors:
        """
        Answer cursors under the key.

        Raises:
            Unavailable: `cursor_key_unknown`; it was never read so far.
        """
        failure: Exception | None = None
        if self._clock.monotonic() >= self._try_at:
            try:
                self._cursors = Cursors(self._read())
                self._try_at = self._clock.monotonic() + REFRESH_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever it is, what is known serves
                failure, self._try_at = error, self._clock.monotonic() + RETRY_SECONDS
        if self._cursors is None:
            raise Unavailable(
                "cursor_key_unknown",
                "The key that seals cursors could not be read. Nothing happened; repeat shortly.",
                retry_after_seconds=int(RETRY_SECONDS),
            ) from failure
        return self._cursors


def read_key_parameter(ssm: "SSMClient", name: str) -> bytes:
    """Read the key from the secure parameter *name*, in one call."""
    check_deadline()
    return base64.b64decode(ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"], validate=True)


def cursor_key_from(environment: Mapping[str, str], clock: Clock) -> CursorKey:
    """Wire the key that a function's settings name: HOLDFAST_CURSOR_KEY_PARAMETER."""
    return CursorKey(lambda: read_key_parameter(client("ssm"), environment["HOLDFAST_CURSOR_KEY_PARAMETER"]), clock)
