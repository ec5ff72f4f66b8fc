"""A lab whose commits are old enough."""

import pytest

from tests.archive_lab import ArchiveLab
from tests.faults.kernel.archive.runs import world


@pytest.fixture
def lab() -> ArchiveLab:
    return world()
