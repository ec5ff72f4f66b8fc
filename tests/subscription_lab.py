"""Subscriptions over the log's lab: targets that can be looked at, and what must hold of what has arrived there."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec

from holdfast.clock import to_text
from holdfast.dynamodb import Transport
from holdfast.errors import Unavailable
from holdfast.log import PARTITIONS
from holdfast.log.bodies import Bodies, Stored
from holdfast.log.values import Head
from holdfast.outbox import MemoryOutbox, Message, Outbox
from holdfast.subscriptions import AllowList, Deliverer, Follower, Settings, Stand, Subscription, Subscriptions
from tests.log_lab import LogLab, log_lab

QUEUE = "arn:aws:sqs:us-east-1:123456789012:inbox"
TOPIC = "arn:aws:sns:us-east-1:123456789012:news"
ALLOWED = AllowList.of(f"{QUEUE}*, {TOPIC}")
SETTLED_AFTER_MOVES = 20
LONGEST_WAIT = timedelta(minutes=10)
"""Longer than anything waits before it is tried again."""


def render(tenant: str, stored: Stored) -> Sequence[bytes]:
    """Write events with their places, as far as these tests look at them."""
    return [
        msgspec.json.encode(
            {
                **msgspec.json.decode(event),
                "stream": stored.stream,
                "streamversion": version,
                "recordedat": to_text(stored.recorded),
            }
        )
        for version, event in enumerate(stored.events, start=stored.first_version)
    ]


@dataclass
class SubscriptionLab:
    """One tenant with streams, and somebody who subscribed to them."""

    lab: LogLab = field(default_factory=log_lab)
    outbox: MemoryOutbox = field(default_factory=MemoryOutbox)
    poison: set[tuple[str, int]] = field(default_factory=set)
    """Streams and versions that every target refuses."""
    told: list[tuple[str, Stand]] = field(default_factory=list)
    partitions: Sequence[int] = range(PARTITIONS)
    """Where something happens: no other is moved."""
    can_tell: bool = True
    """Whether somebody can be told that a stream is parked."""

    def __post_init__(self) -> None:
        self.outbox.refusal = self._refusal

    def _refusal(self, _: str, message: Message) -> str | None:
        event = msgspec.json.decode(message.body)
        return "poison" if (event["stream"], event["streamversion"]) in self.poison else None

    def registry(self, transport: Transport | None = None) -> Subscriptions:
        return Subscriptions(self.lab.database(transport), self.lab.tables, self.lab.tenant, ALLOWED)

    def subscribe(
        self, name: str = "all", *, begins: Any = "start", target: str = QUEUE, **settings: Any
    ) -> Subscription:
        return self.registry().put(name, Settings(target, **settings), begins=begins, by="ann")

    def deliverer(self, transport: Transport | None = None, outbox: Outbox | None = None) -> Deliverer:
        database = self.lab.database(transport)
        return Deliverer(
            database=database,
            tables=self.lab.tables,
            bodies=Bodies(database, self.lab.tables),
            outbox=outbox or self.outbox,
            render=render,
            allowed=ALLOWED,
            on_parked=self._on_parked,
        )

    def _on_parked(self, subscription: Subscription, stand: Stand) -> None:
        if not self.can_tell:
            raise Unavailable("bus_unavailable", "The bus does not answer.")
        self.told.append((subscription.name, stand))

    def follower(self, transport: Transport | None = None, outbox: Outbox | None = None) -> Follower:
        return Follower(self.deliverer(transport, outbox))

    def append(self, stream: str, count: int = 1) -> None:
        """Append events, and let the log hold them."""
        self.append_all((stream, count))

    def append_all(self, *commits: tuple[str, int]) -> None:
        """Append commits, and let the log hold them."""
        self.lab.indexer().index([self.lab.append(stream, count) for stream, count in commits])

    def move(self, subscription: Subscription, deliverer: Deliverer | None = None) -> None:
        for partition in self.partitions:
            (deliverer or self.deliverer()).move(subscription, partition)

    def wait(self, by: timedelta = LONGEST_WAIT) -> None:
        self.lab.clock.advance(by)

    def settle(self, subscription: Subscription) -> None:
        """Move it until nothing more is tried by itself."""
        for _ in range(SETTLED_AFTER_MOVES):
            self.wait()
            self.move(subscription)
            places = [place.position for _, place in self.registry().checkpoints(subscription)]
            is_at_heads = places == [head.position for head in self.heads()]
            if is_at_heads and all(stand.is_parked for stand in self.all_stands(subscription)):
                return
        raise AssertionError(f"{subscription.name} does not settle")

    # ----- what arrived

    def arrived(self, target: str = QUEUE) -> dict[str, list[int]]:
        """List versions by stream in the order in which they arrived, repeats included."""
        found: dict[str, list[int]] = defaultdict(list)
        for message in self.outbox.sent[target]:
            event = msgspec.json.decode(message.body)
            found[event["stream"]].append(event["streamversion"])
        return found

    def first_arrivals(self, target: str = QUEUE) -> dict[str, list[int]]:
        return {stream: list(dict.fromkeys(versions)) for stream, versions in self.arrived(target).items()}

    def heads(self) -> list[Head]:
        return self.lab.log().heads()

    # ----- what must always hold of a subscription to everything

    def check(self, subscription: Subscription) -> None:
        """First arrivals are in order without holes, and no checkpoint has passed what has not arrived."""
        arrived = {stream: set(versions) for stream, versions in self.arrived(subscription.settings.target).items()}
        for stream, versions in self.first_arrivals(subscription.settings.target).items():
            assert versions == list(range(1, len(versions) + 1)), f"{stream} arrived as {versions}"
        stands = {stand.stream: stand.position for stand in self.all_stands(subscription)}
        for track, place in self.registry().checkpoints(subscription):
            for entry in self.lab.log().entries(track.partition, until=place.position):
                stream = entry.reference.stream
                for offset in range(entry.reference.events):
                    position, version = entry.position + offset, entry.reference.first_version + offset
                    is_undelivered = position <= place.position and version not in arrived.get(stream, ())
                    assert not is_undelivered or stands.get(stream, position + 1) <= position, (
                        f"{stream}@{version} lies at {position}, was passed at {place.position} and has not arrived"
                    )

    def check_all_arrived(self, subscription: Subscription, but: Sequence[str] = ()) -> None:
        self.check(subscription)
        first = self.first_arrivals(subscription.settings.target)
        for stream, version in self.lab.written.items():
            if stream not in but:
                versions = first.get(stream, [])
                assert versions == list(range(1, version + 1)), f"of {stream} only {versions} arrived"
        for head, (_, place) in zip(self.heads(), self.registry().checkpoints(subscription), strict=True):
            assert place.position == head.position

    def kinds_of_rows(self) -> list[str]:
        transport: Any = self.lab.transport
        return sorted(row["pk"]["S"].split("#")[0] for row in transport.rows("operations"))

    def all_stands(self, subscription: Subscription) -> list[Stand]:
        return self.registry().stands(subscription)
