"""
Subscriptions: the events of a tenant's log, sent on to a queue or a topic of somebody who asked for them.

Each is moved along each partition by itself, at least once, and in the order of each stream. Behind an event that its
target does not take, the event's stream stands still, and only that: it is tried again a few times, then parked until
somebody lets it go on. Where a subscription has come, and where its streams stand, lies beside its settings, in the
table that can be recovered to any moment.

    rules       what a subscription is, and what its next step does
    rows        where it lies
    registry    making, changing and looking at subscriptions
    delivering  one subscription, one step along one partition
    following   all of them, fairly
"""

from holdfast.subscriptions.delivering import Deliverer
from holdfast.subscriptions.following import Follower
from holdfast.subscriptions.registry import Progress, Subscriptions
from holdfast.subscriptions.rules import ATTEMPTS_MAX, AllowList, Settings, Stand, Subscription

__all__ = [
    "ATTEMPTS_MAX",
    "AllowList",
    "Deliverer",
    "Follower",
    "Progress",
    "Settings",
    "Stand",
    "Subscription",
    "Subscriptions",
]
