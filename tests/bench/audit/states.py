"""
Past states of streams of growing length over three years: hot, after all has been archived, and by full replay.

Every answer is compared with what the made history itself says; one that is wrong ends the bench. A stream grows as
it does in service: its log follows, and its snapshots are kept along the way. Beside it one of the same length is
appended whole before its log follows, as after an import; and in one a few events claim to happen in the future, which
keeps snapshots that hold them from all times before.
"""

import gc
import random
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

from holdfast.archive import Archiver
from holdfast.folds import MERGE_PATCH, Within, fold
from holdfast.log import Hint
from tests.bench.audit.engine import Place, Trail, refuse
from tests.bench.audit.figures import Figure, Sizes, Wrong, against, percentiles, progress, rounded, tell, timed
from tests.generated_history import BEGIN, EARLY_SHARE, YEARS, Change, batched, changes, state_by_newest, state_of

STREAM: Final = "made/1"
FOLLOWED_AFTER: Final = 4
"""Commits after which log and snapshots follow; they follow several at a time when appends are quick."""
KEEPS_MAX: Final = 1_000
"""Calls until all snapshots of a log that followed late are kept."""
ARCHIVES_MAX: Final = 200
"""Runs of the archiver, each as long as it may take in service, until everything is archived."""
AGED: Final = timedelta(days=100)
SEED: Final = 7
WARM_MILLISECONDS: Final = 200
"""How soon a state at any time is answered on the local engine."""
SLOWER_ARCHIVED: Final = 3.0
FASTER_THAN_REPLAY: Final = 50.0
SLOWER_FOLLOWED_LATE: Final = 2.0


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
        history = list(changes(events, early_share=0.0))
        trail = Trail(place)
        grow(trail, history)
        asked = asked_of(history, sizes.states)
        if events == sizes.history_events[-1]:
            replays = [replayed(trail, each) for each in asked if each.within.at][: sizes.replays]
        del history
        gc.collect()
        grown.append(Grown(trail, events, asked))
        hot.append([answered(trail, each) for each in asked])
    others = [
        *of_following_late(place, sizes, hot[sizes.history_events.index(sizes.late_events)]),
        of_claims(place, sizes),
    ]
    archive(grown[-1].trail)
    archived = [[answered(each.trail, one) for one in each.asked] for each in grown]
    points = [
        Point(each.events, percentiles(hot[number]), percentiles(archived[number])) for number, each in enumerate(grown)
    ]
    return figures(sizes, grown[-1], points, replays) + others, points


def asked_of(history: Sequence[Change], states: int) -> tuple[Asked, ...]:
    """Draw moments, and say what was so then; for the first of them by the plainest fold as well."""
    tell(f"  {len(history):,} events: {states} states")
    noise = random.Random(SEED)
    moments = [moment(len(history), noise) for _ in range(states)]
    asked = tuple(Asked(within, expected(state_by_newest, history, within)) for within in moments)
    if asked[0].state != expected(state_of, history, moments[0]):
        raise Wrong("Two ways to say what the state must be differ.")
    return asked


def of_following_late(place: Place, sizes: Sizes, along_the_way: Sequence[float]) -> list[Figure]:
    """Append everything, then index it at once, then keep its snapshots; and ask as if it had been otherwise."""
    history = list(changes(sizes.late_events, early_share=0.0))
    trail = Trail(place)
    grow(trail, history, is_followed=False)
    trail.indexer().index([Hint(trail.tenant, STREAM, len(history))])
    seconds = timed(lambda: keep_all(trail))
    told = percentiles([answered(trail, each) for each in asked_of(history, sizes.states)])
    beside = percentiles(along_the_way)["p50"]
    size = f"{sizes.late_events} events"
    return [
        Figure(
            name="state of a stream whose log followed late",
            value=told["p50"],
            unit="ms",
            repeats=sizes.states,
            size=size,
            peer="followed along the way",
            peer_value=beside,
            ratio=rounded(told["p50"] / beside),
            target=SLOWER_FOLLOWED_LATE,
            at_most=True,
            more=told,
        ),
        Figure(
            name="snapshots of a stream whose log followed late",
            value=rounded(sizes.late_events / seconds),
            unit="events/s",
            repeats=1,
            size=size,
        ),
    ]


def of_claims(place: Place, sizes: Sizes) -> Figure:
    """Ask for states of a stream in which a few events claim to happen in the future."""
    history = list(changes(sizes.late_events))
    trail = Trail(place)
    grow(trail, history)
    told = percentiles([answered(trail, each) for each in asked_of(history, sizes.states)])
    return Figure(
        name="state of a stream with claims of the future",
        value=told["p50"],
        unit="ms",
        repeats=sizes.states,
        size=f"{sizes.late_events} events, 1 of {round(1 / EARLY_SHARE)} claims to be up to months ahead",
        more=told,
    )


def keep_all(trail: Trail) -> None:
    """Keep the snapshots that are due, as often as it takes."""
    for _ in range(KEEPS_MAX):
        if trail.snapshots().keep(STREAM, MERGE_PATCH).is_done:
            return
    raise Wrong("The snapshots were not done.")


def grow(trail: Trail, history: Sequence[Change], *, is_followed: bool = True) -> None:
    """Append a history, each commit at its own time; let log and snapshots follow, if they do."""
    store, indexer, version = trail.store(), trail.indexer(), 0
    with progress(f"growing to {len(history):,} events", len(history)) as show:
        for number, commit in enumerate(batched(history)):
            trail.move_to(commit[-1].recorded_at)
            stored = [change.stored() for change in commit]
            answer = store.append(STREAM, version, stored, commit_id=f"commit-{commit[0].version}")
            version = answer.version
            if is_followed and (number % FOLLOWED_AFTER == 0 or version == len(history)):
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


def expected(state: Callable[..., Any], history: Sequence[Change], within: Within) -> Any:
    return state(history, version=within.version, at=within.at, known_at=within.known_at)


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
    for _ in range(ARCHIVES_MAX):
        if Archiver(trail.database, trail.tables, trail.objects, refuse).run().is_done:
            return
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
