import pytest

from holdfast_client import Budget, Holdfast
from tests.unit.client.loopback import TOKEN, Trail, serving

QUICK = Budget(attempts_max=4, seconds_max=10, first_wait_seconds=0.001, longest_wait_seconds=0.002)


@pytest.fixture
def trail():
    return Trail()


@pytest.fixture
def url(trail):
    with serving(trail) as address:
        yield address


@pytest.fixture
def holdfast(url):
    with Holdfast(url, TOKEN, budget=QUICK, timeout_seconds=5) as client:
        yield client
