"""A clock for whoever checks tokens."""

from datetime import UTC, datetime

import pytest

from holdfast.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
