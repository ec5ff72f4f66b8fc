"""One tenant's subscriptions, and what their targets have been sent."""

import pytest

from tests.subscription_lab import SubscriptionLab


@pytest.fixture
def lab() -> SubscriptionLab:
    return SubscriptionLab()
