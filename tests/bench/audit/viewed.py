"""A history over several streams in every partition, whose view `events` follows it: what is searched and rebuilt."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

import msgspec

from functions.audit.domain.views import EVENTS
from holdfast.log import Hint
from holdfast.log.values import PARTITIONS, partition_of
from holdfast.projections import Projector
from holdfast.projections.views import Effect
from tests.bench.audit.engine import Place, Trail
from tests.bench.audit.figures import progress
from tests.generated_history import batched, changes

STREAMS_EACH: Final = 2
"""Streams in each partition of the log."""


@dataclass(frozen=True)
class Viewed:
    """The trail, and its streams."""

    trail: Trail
    streams: tuple[str, ...]
    events: int


def grow(place: Place, events: int) -> Viewed:
    """Append, index and project, all in order."""
    trail = Trail(place)
    viewed = Viewed(trail, tuple(_names()), events)
    store, indexer, versions = trail.store(), trail.indexer(), dict.fromkeys(viewed.streams, 0)
    with progress(f"appending {events:,} events", events) as show:
        for stream, commit in zip(cycle(viewed.streams), batched(changes(events)), strict=False):
            trail.move_to(commit[-1].recorded_at)
            stored, before = [_about(stream, change.stored()) for change in commit], versions[stream]
            versions[stream] = store.append(stream, before, stored, commit_id=f"{stream}@{before}").version
            show(commit[-1].version)
        indexer.index(Hint(trail.tenant, stream, version) for stream, version in versions.items() if version)
    with progress("projecting them", PARTITIONS) as show:
        for partition in range(PARTITIONS):
            projector(trail).project(trail.tenant, partition)
            show(partition + 1)
    return viewed


def _about(stream: str, stored: bytes) -> bytes:
    """Give an event a subject, so that it has all four rows of the view."""
    return msgspec.json.encode({**msgspec.json.decode(stored), "subject": stream}, order="sorted")


def projector(trail: Trail, effect: Effect | None = None) -> Projector:
    return Projector(trail.database, trail.tables, trail.bodies(), [EVENTS], {EVENTS.name: effect} if effect else {})


def _names() -> Iterator[str]:
    """Name streams so that every partition holds as many; neighbours lie in different ones."""
    for number in range(STREAMS_EACH):
        for partition in range(PARTITIONS):
            names = (f"made/{each}" for each in range(1_000))
            yield next(islice((name for name in names if partition_of(name) == partition), number, None))
