"""
What an invocation tells about itself: one structured line each, the metrics it asked for, and the trace it belongs to.

Lines carry ids, times and codes; never a token, a body or a header. Powertools is imported by the first line.
"""

import functools
import logging
import os
import re
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger, Metrics

TRACEPARENT_CHARACTERS_MAX: Final = 256
"""A version later than 00 may append fields; nothing that is still a header is longer."""

_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace_id>[0-9a-f]{32})-(?P<span_id>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)
_SAMPLED: Final = 0x01


class Trace(msgspec.Struct, frozen=True):
    """Our place in a distributed trace (W3C Trace Context, level 1)."""

    trace_id: str
    span_id: str
    is_sampled: bool = False
    parent_id: str | None = None

    @property
    def traceparent(self) -> str:
        """What to send on, so that the next one names us as its parent."""
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED if self.is_sampled else 0:02x}"


current_trace: ContextVar[Trace | None] = ContextVar("current_trace", default=None)
"""The trace of the invocation that is running, for whoever calls others on its behalf."""


def continue_trace(traceparent: str | None) -> Trace:
    """
    Take our place in the caller's trace, or begin one.

    A header that the standard calls invalid begins a new trace, as the standard asks (section 3.2).
    """
    parent = _TRACEPARENT.fullmatch((traceparent or "").strip()[:TRACEPARENT_CHARACTERS_MAX])
    span_id = os.urandom(8).hex()
    if parent is None or not _is_valid(parent):
        return Trace(os.urandom(16).hex(), span_id)
    is_sampled = bool(int(parent["flags"], 16) & _SAMPLED)
    return Trace(parent["trace_id"], span_id, is_sampled=is_sampled, parent_id=parent["span_id"])


def _is_valid(parent: re.Match[str]) -> bool:
    is_known_shape = parent["version"] != "ff" and not (parent["version"] == "00" and parent["rest"])
    return is_known_shape and bool(parent["trace_id"].strip("0")) and bool(parent["span_id"].strip("0"))


@functools.cache
def logger() -> "Logger":
    """Answer the process's logger; POWERTOOLS_SERVICE_NAME and POWERTOOLS_LOG_LEVEL are its settings."""
    from aws_lambda_powertools import Logger  # noqa: PLC0415 - a fifth of a cold start's imports

    return Logger(logger_handler=_StandardOutput())


@functools.cache
def metrics() -> "Metrics":
    """Answer the process's metrics: add to them anywhere, and the door flushes them as one EMF line per invocation."""
    from aws_lambda_powertools import Metrics  # noqa: PLC0415

    return Metrics()


def flush_metrics() -> None:
    """Write what was measured; costs nothing where nothing was."""
    if metrics.cache_info().currsize and metrics().metric_set:
        metrics().flush_metrics()


class _StandardOutput(logging.Handler):
    """Writes to what standard output is now, not to what it was when the handler was made."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()  # a frozen sandbox writes nothing later
        except Exception:  # noqa: BLE001  a line that cannot be written must not become the caller's failure
            self.handleError(record)
