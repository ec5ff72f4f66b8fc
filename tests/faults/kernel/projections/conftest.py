"""A log and its views on a fresh store."""

import pytest

from tests.log_lab import LogLab, log_lab


@pytest.fixture
def lab() -> LogLab:
    return log_lab()
