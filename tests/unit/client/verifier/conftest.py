import pytest

from holdfast.anchors import MemorySigner
from tests.exported_log import ExportedLog
from tests.unit.client.verifier.made_exports import made


@pytest.fixture(scope="module")
def signer() -> MemorySigner:
    return MemorySigner()


@pytest.fixture
def log(signer: MemorySigner) -> ExportedLog:
    return made(signer)
