"""An archive on a fresh store."""

import pytest

from tests.archive_lab import ArchiveLab, archive_lab


@pytest.fixture
def lab() -> ArchiveLab:
    return archive_lab()
