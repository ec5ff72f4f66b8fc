"""Pages of a search by actor, beside a scan of the streams; both must find the same."""

import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Final

import msgspec

from functions.audit.domain.searching import Search
from functions.audit.domain.views import EventRow
from functions.audit.service.reading import Answered, Asking, FoundEvent, ReadModels
from holdfast.clock import from_text
from holdfast.cursors import Cursors
from holdfast.projections.reader import ViewReader
from holdfast.streams import Commit
from tests.bench.audit.engine import Trail
from tests.bench.audit.figures import Figure, Sizes, Wrong, percentiles, rounded, timed
from tests.bench.audit.viewed import Viewed
from tests.capacity import Capacity
from tests.generated_history import ACTORS, BEGIN, YEARS

PAGE: Final = 100
REQUESTS_MAX: Final = 4
FASTER_THAN_SCAN: Final = 100.0
SEED: Final = 11


class _Scanned(msgspec.Struct):
    actor: str
    time: str


def read_models(trail: Trail) -> ReadModels:
    """Wire the service's read models to a trail; no page here brings bodies along."""
    reader = ViewReader(trail.database, trail.tables, trail.tenant)

    def no_bodies(rows: Iterable[EventRow]) -> Iterator[Commit[bytes]]:
        raise Wrong(f"A page without bodies asked for those of {list(rows)}.")

    return ReadModels(trail.tenant, reader, no_bodies, lambda: Cursors(bytes(32)), trail.clock.now)


def page(models: ReadModels, actor: str, first: datetime) -> Answered[FoundEvent]:
    search = Search(actor=actor, first=first)
    return models.search(search, cursor=None, limit=PAGE, asking=Asking(), with_events=False)


def measure(viewed: Viewed, sizes: Sizes) -> list[Figure]:
    noise = random.Random(SEED)
    asked = [(noise.choice(ACTORS), BEGIN + YEARS * 0.9 * noise.random()) for _ in range(sizes.searches)]
    models = read_models(viewed.trail)
    searched = percentiles([timed(partial(page, models, *each)) for each in asked])
    scanned = percentiles([timed(partial(check, viewed, models, *each)) for each in asked[: sizes.scans]])
    size = f"{viewed.events} events"
    return [
        Figure(
            name=f"page of {PAGE} by actor",
            value=searched["p50"],
            unit="ms",
            repeats=len(asked),
            size=size,
            peer="scan of the streams",
            peer_value=scanned["p50"],
            ratio=rounded(scanned["p50"] / searched["p50"]),
            target=FASTER_THAN_SCAN,
            more={**searched, "scans": sizes.scans},
        ),
        Figure(
            name=f"requests for a page of {PAGE} by actor",
            value=max(requests(viewed.trail, *each) for each in asked),
            unit="requests at most",
            repeats=len(asked),
            size=size,
            target=REQUESTS_MAX,
            at_most=True,
        ),
    ]


def check(viewed: Viewed, models: ReadModels, actor: str, first: datetime) -> None:
    """Scan all streams for the same page; what the search finds must be that."""
    found = scan(viewed, actor, first)
    if found != [(each.row.stream, each.row.version) for each in page(models, actor, first).items]:
        raise Wrong(f"The search for {actor} from {first} on does not find what is there.")


def scan(viewed: Viewed, actor: str, first: datetime) -> Sequence[tuple[str, int]]:
    store, found = viewed.trail.store(), list[tuple[datetime, str, int]]()
    for stream in viewed.streams:
        for commit in store.read(stream):
            for version, stored in enumerate(commit.events, start=commit.first_version):
                event = msgspec.json.decode(stored, type=_Scanned)
                if event.actor == actor and (time := from_text(event.time)) >= first:
                    found.append((time, stream, version))
    return [(stream, version) for _, stream, version in sorted(found)[:PAGE]]


def requests(trail: Trail, actor: str, first: datetime) -> int:
    capacity = Capacity(trail.place.transport())
    page(read_models(Trail(trail.place, trail.tenant, trail.clock, capacity)), actor, first)
    return sum(capacity.take().requests.values())
