"""What is read from afar and kept for a while: read again in time, and serving while it cannot be."""

from collections.abc import Callable
from typing import Generic, TypeVar

from holdfast import telemetry
from holdfast.clock import Clock, Instant
from holdfast.errors import Unavailable

T = TypeVar("T")


class Remembered(Generic[T]):
    """Something that is read from afar, and kept for as long as the caller says that it may be."""

    def __init__(
        self,
        read: Callable[[], T],
        clock: Clock,
        *,
        what: str,
        code: str,
        retry_seconds: int,
        consequence: str = "",
    ) -> None:
        """*what* could not be read, it says then, and *consequence*, under the *code*."""
        self._read = read
        self._clock = clock
        self._what = what
        self._code = code
        self._retry_seconds = retry_seconds
        self._consequence = consequence
        self._value: T | None = None
        self._read_at: Instant | None = None
        self._failed_at: Instant | None = None
        self._failure: Exception | None = None

    def recall(self, *, refresh_seconds: float, age_seconds_max: float = float("inf")) -> T:
        """
        Answer what is known, read again if that was *refresh_seconds* ago or more.

        Raises:
            Unavailable: it could not be read, and what is known is older than *age_seconds_max*.
        """
        # While the other side is away, not every request waits for its time-out.
        may_try = self._age_seconds(self._failed_at) >= self._retry_seconds
        if may_try and self._age_seconds(self._read_at) >= refresh_seconds:
            self._refresh()
        if self._value is None or self._age_seconds(self._read_at) > age_seconds_max:
            raise Unavailable(
                self._code,
                f"{self._what} could not be read{self._consequence}. Nothing happened; repeat shortly.",
                retry_after_seconds=self._retry_seconds,
            ) from self._failure
        return self._value

    def _refresh(self) -> None:
        begun_at = Instant.of(self._clock)
        try:
            self._value = self._read()
        except Exception as error:  # noqa: BLE001 - whatever it is, what is known stays as old as it is
            self._failure, self._failed_at = error, Instant.of(self._clock)
            telemetry.logger().warning(f"{self._what} could not be read.", exc_info=error)
        else:
            # What changed while it was read may be missing: it is as old as the question.
            self._read_at, self._failed_at, self._failure = begun_at, None, None

    def _age_seconds(self, since: Instant | None) -> float:
        return float("inf") if since is None else since.age_seconds(self._clock)
