"""What holds for every test."""

import pytest

from tests.soak import IS_SOAK

SOAK_SECONDS_MAX = 900
"""Of one test under its full counts; the normal bound is in pyproject.toml."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if IS_SOAK:
        for item in items:
            item.add_marker(pytest.mark.timeout(SOAK_SECONDS_MAX))
