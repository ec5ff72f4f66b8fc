"""
Past states of streams of growing length over three years: hot, after all has been archived, and by full replay.

Every answer is compared with the plainest fold of the same history; one that is wrong ends the bench. A stream grows as
it does in service: its log follows, and its snapshots are kept along the way, never afterwards.
"""

import gc
import random
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

from holdfast.archive import Archiver
from holdfast.folds import MERGE_PATCH, Within, fold
from holdfast.log import Hint
from tests.bench.audit.engine import Place, Trail, refuse
from tests.bench.audit.figures import Figure, Sizes, Wrong, against, percentiles, progress, rounded, tell, timed
from tests.generated_history import BEGIN, YEARS, Change, batched, changes, state_of

STREAM: Final = "made/1"
FOLLOWED_AFTER: Final = 4
"""Commits after which log and snapshots follow; they follow several at a time when appends are quick."""
AGED: Final = timedelta(days=100)
SEED: Final = 7
WARM_MILLISECONDS: Final = 200
"""How soon a state at any time is answered on the local engine."""
SLOWER_ARCHIVED: Final = 3.0
FASTER_THAN_REPLAY: Final = 50.0


class Asked(msgspec.Struct, frozen=True):
    """A moment, and what the state is then."""

    within: Within
    state: Any


class Point(msgspec.Struct, frozen=True):
    """One length of the stream on the curve; times in milliseconds."""

    events: int
    hot: dict[str, float]
    archived: dict[str, float]


class Grown(msgspec.Struct, frozen=True):
    trail: Trail
    events: int
    asked: tuple[Asked, ...]


def measure(place: Place, sizes: Sizes) -> tuple[list[Figure], list[Point]]:
    """Measure all lengths hot, then archive everything, and ask the same again."""
    grown, hot, replays = [], [], list[float]()
    for events in sizes.history_events:
        history = list(changes(events))
        trail = Trail(place)
        grow(trail, history)
        noise = random.Random(SEED)
        moments = [moment(events, noise) for _ in range(sizes.states)]
        tell(f"  {events:,} events: folding {len(moments)} states the plainest way")
        asked = tuple(Asked(within, expected(history, within)) for within in moments)
        if events == sizes.history_events[-1]:
            replays = [replayed(trail, each) for each in asked if each.within.at][: sizes.replays]
        del history
        gc.collect()
        grown.append(Grown(trail, events, asked))
        hot.append([answered(trail, each) for each in asked])
    archive(grown[-1].trail)
    archived = [[answered(each.trail, one) for one in each.asked] for each in grown]
    points = [
        Point(each.events, percentiles(hot[number]), percentiles(archived[number])) for number, each in enumerate(grown)
    ]
    return figures(sizes, grown[-1], points, replays), points


def grow(trail: Trail, history: Sequence[Change]) -> None:
    """Append a history, each commit at its own time; let log and snapshots follow."""
    store, indexer, version = trail.store(), trail.indexer(), 0
    with progress(f"growing to {len(history):,} events", len(history)) as show:
        for number, commit in enumerate(batched(history)):
            trail.move_to(commit[-1].recorded_at)
            stored = [change.stored() for change in commit]
            answer = store.append(STREAM, version, stored, commit_id=f"commit-{commit[0].version}")
            version = answer.version
            if number % FOLLOWED_AFTER == 0 or version == len(history):
                indexer.index([Hint(trail.tenant, STREAM, answer.first_version)])
                trail.snapshots(store).keep(STREAM, MERGE_PATCH)
            show(version)


def moment(events: int, noise: random.Random) -> Within:
    """Draw a version; an event time; or an event time and a recorded time."""

    def drawn() -> Any:
        return BEGIN + (YEARS + timedelta(days=20)) * noise.random()

    match noise.randrange(3):
        case 0:
            return Within(version=noise.randrange(1, events + 1))
        case 1:
            return Within(at=drawn())
        case _:
            return Within(at=drawn(), known_at=drawn())


def expected(history: Sequence[Change], within: Within) -> Any:
    return state_of(history, version=within.version, at=within.at, known_at=within.known_at)


def answered(trail: Trail, asked: Asked) -> float:
    """Ask for a state, and give the seconds until it was there."""
    started = time.perf_counter()
    state = trail.state(STREAM, asked.within).state
    seconds = time.perf_counter() - started
    if state != asked.state:
        raise Wrong(f"{trail.tenant}: the state within {asked.within} is not what the events say.")
    return seconds


def replayed(trail: Trail, asked: Asked) -> float:
    """Answer a state by reading and folding every event."""

    def replay() -> None:
        if fold(trail.store().read(STREAM), MERGE_PATCH, asked.within).state != asked.state:
            raise Wrong(f"A full replay within {asked.within} is not what the events say.")

    return timed(replay)


def archive(trail: Trail) -> None:
    """Move all commits of all tenants out of the table, but each stream's newest."""
    tell("  archiving everything")
    trail.move_to(BEGIN + YEARS + AGED)
    report = Archiver(trail.database, trail.tables, trail.objects, refuse).run()
    if not report.is_done:
        raise Wrong("The archive was not done.")


def figures(sizes: Sizes, longest: Grown, points: Sequence[Point], replays: Sequence[float]) -> list[Figure]:
    last, checked = points[-1], 2 * sizes.states * len(points)
    replay = percentiles(replays)["p50"]
    named: dict[str, Any] = {"repeats": sizes.states, "unit": "ms", "size": f"{longest.events} events"}
    return [
        Figure(
            name="state at a random time, beside a full replay",
            **against("own full replay", last.hot["p50"], replay, more_is_better=False),
            **named,
            target=FASTER_THAN_REPLAY,
            more={**last.hot, "replays": len(replays), "answers_checked": checked, "answers_wrong": 0},
        ),
        Figure(
            name="state at a random time, 95th percentile",
            value=last.hot["p95"],
            **named,
            target=WARM_MILLISECONDS,
            at_most=True,
        ),
        Figure(
            name="state after everything was archived",
            value=last.archived["p50"],
            peer="hot",
            peer_value=last.hot["p50"],
            ratio=rounded(last.archived["p50"] / last.hot["p50"]),
            **named,
            target=SLOWER_ARCHIVED,
            at_most=True,
            more=last.archived,
        ),
        Figure(
            name="state of the longest stream, beside the shortest",
            value=last.hot["p50"],
            peer=f"{points[0].events} events",
            peer_value=points[0].hot["p50"],
            ratio=rounded(last.hot["p50"] / points[0].hot["p50"]),
            **named,
            at_most=True,
        ),
    ]
