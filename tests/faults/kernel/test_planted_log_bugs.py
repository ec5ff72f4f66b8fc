"""Deliberate mistakes in the log, its read models and its snapshots: each must turn a named test red."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import msgspec
import pytest

from holdfast.dynamodb import writes
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.reads import query
from holdfast.errors import Unavailable
from holdfast.log import blocks, history, indexer
from holdfast.log.tiles import Tiles
from holdfast.log.values import SOLE
from holdfast.projections import batches, projector, rebuilds, rows
from holdfast.projections.reader import ViewReader
from tests.faults.kernel import test_log_faults as log
from tests.faults.kernel.projections import test_moving as moving
from tests.faults.kernel.projections import test_parked as parked
from tests.faults.kernel.projections import test_swaps as swaps
from tests.faults.kernel.projections import test_versions as versions
from tests.log_lab import log_lab
from tests.unit.kernel import test_snapshots as states

Plant = Callable[[pytest.MonkeyPatch], None]


def stream_order_is_trusted(patch: pytest.MonkeyPatch) -> None:
    """What was announced is indexed, and nothing that went before it."""

    def commits(self: Any, tenant: str, stream: str, after: int, limit: int) -> Iterator[Any]:
        return query(self.database, self.tables.commits, f"S#{tenant}#{stream}", newest_first=True, limit=1)

    patch.setattr(indexer.Indexer, "_commits", commits)
    patch.setattr(indexer, "_fault", lambda *_: None)


def head_is_put_whatever_stands_there(patch: pytest.MonkeyPatch) -> None:
    def moved(self: Any, pk: str, counter: str, before: int, row: Any) -> Any:
        return {"Put": {"TableName": self.tables.log, "Item": to_item({"pk": pk, "sk": SOLE} | row)}}

    patch.setattr(indexer.Indexer, "_moved", moved)
    patch.setattr(indexer, "put_action", lambda table, item: {"TableName": table, "Item": item})


def chain_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(indexer, "_fault", lambda *_: None)


def tiles_are_never_made_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tiles, "extend", lambda self, head: None)


def checkpoint_before_rows(patch: pytest.MonkeyPatch) -> None:
    def carry_out(database: Any, actions: Any) -> bool:
        return all(CARRY_OUT(database, [action]) for action in actions)

    patch.setattr(projector, "carry_out", carry_out)


CARRY_OUT = writes.carry_out


def checkpoint_moves_whatever_stands_there(patch: pytest.MonkeyPatch) -> None:
    def moved(self: Any, step: Any, after: Any) -> Any:
        pk, sk = rows.checkpoint_key(step.generation, step.partition)
        item = to_item({"pk": pk, "sk": sk} | rows.checkpoint_row(after))
        return {"Put": {"TableName": self.tables.views, "Item": item}}

    patch.setattr(projector.Projector, "moved", moved)


def parked_streams_are_overtaken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(projector.Projector, "_standing_still", lambda self, step: frozenset())


def rebuild_has_effects(patch: pytest.MonkeyPatch) -> None:
    advance = projector.Projector.advance

    def eager(self: Any, *given: Any, **named: Any) -> Any:
        return advance(self, *given, **named | {"effects_from": named.get("effects_from") or 0})

    patch.setattr(projector.Projector, "advance", eager)


def effects_begin_again_after_a_swap(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rebuilds.Rebuilds, "_brought", lambda *_: (0, 0, 0, 0))
    patch.setattr(rebuilds.Rebuilds, "_stay", lambda *_: ())


def a_swap_does_not_look_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rebuilds.Rebuilds, "_stay", lambda *_: ())


def any_version_moves_a_generation(patch: pytest.MonkeyPatch) -> None:
    view = projector.Projector.view
    patch.setattr(projector.Projector, "view", lambda self, name, _version=None: view(self, name))


def difference_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rebuilds.Compared, "is_equal", property(lambda self: True))


def past_view_holds_the_present(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(batches.Selection, "counts", lambda self, event: True)


def readers_do_not_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ViewReader, "wait_for", lambda self, view, stream, version: None)


def snapshot_chosen_by_recorded_time(patch: pytest.MonkeyPatch) -> None:
    def covers(self: Any, block: Any) -> bool:
        return block.version <= self.version and (self.at is None or block.recorded_at <= self.at)

    patch.setattr(history.Bounds, "covers", covers)


def blocks_know_only_their_own_latest_event(patch: pytest.MonkeyPatch) -> None:
    advanced = blocks.advanced

    def forgetful(watermark: Any, commit: Any) -> Any:
        moved, closed = advanced(watermark, commit)
        return msgspec.structs.replace(moved, latest=commit.latest), closed

    patch.setattr(indexer, "advanced", forgetful)


def late_arrivals_are_skipped(patch: pytest.MonkeyPatch) -> None:
    def may_touch(self: Any, block: Any) -> bool:
        return block.first_version <= self.version and (self.at is None or block.recorded_at <= self.at)

    patch.setattr(history.Bounds, "may_touch", may_touch)


CALLS = range(10, 26)
"""Before them, nothing has been done that could be done twice."""
EVENTS = 6_000
"""Enough for a dozen blocks."""

PLANTS: list[tuple[Plant, Callable[..., Any], list[dict[str, Any]]]] = [
    (stream_order_is_trusted, log.test_the_hint_of_a_later_commit_brings_those_before_it, [{}]),
    (
        head_is_put_whatever_stands_there,
        log.test_two_indexers_with_other_streams_of_one_partition_meet_at_its_head,
        [{"at": at} for at in range(1, 5)],
    ),
    (
        chain_is_not_checked,
        log.test_a_stream_that_was_tampered_with_is_told_of_and_the_others_go_on,
        [
            {
                "damage": lambda lab: log.tamper(lab, "s/1", 2, prev=b"x" * 32),
                "reason": "it does not name the hash of the commit before it",
            }
        ],
    ),
    (
        tiles_are_never_made_again,
        log.test_killed_anywhere_between_segment_and_tile_the_proofs_still_stand,
        [{}],
    ),
    (
        checkpoint_before_rows,
        moving.test_killed_at_any_call_a_view_counts_nothing_twice,
        [{}],
    ),
    (
        checkpoint_moves_whatever_stands_there,
        moving.test_two_projectors_beside_each_other_count_nothing_twice,
        [{"at": at} for at in CALLS],
    ),
    (
        parked_streams_are_overtaken,
        parked.test_redriven_a_stream_goes_on_in_order_and_nothing_is_counted_twice_wherever_it_is_killed,
        [{}],
    ),
    (rebuild_has_effects, swaps.test_a_rebuild_has_no_effects_and_those_missed_by_nobody, [{}]),
    (
        effects_begin_again_after_a_swap,
        swaps.test_effects_had_while_a_rebuild_was_ending_are_not_had_again,
        [{}],
    ),
    (
        a_swap_does_not_look_back,
        swaps.test_whoever_reads_a_view_never_goes_back_when_generations_are_swapped,
        [{"at": at, "change": "flip"} for at in (7, 31)],
    ),
    (
        any_version_moves_a_generation,
        versions.test_a_generation_is_not_carried_on_by_another_version_of_its_view,
        [{}],
    ),
    (difference_is_not_looked_at, swaps.test_a_rebuild_that_differs_waits_for_somebody_to_look, [{}]),
    (past_view_holds_the_present, swaps.test_a_view_as_it_was_known_at_a_past_time, [{}]),
    (readers_do_not_wait, moving.test_a_reader_waits_until_the_view_holds_what_it_wrote, [{}]),
    (
        snapshot_chosen_by_recorded_time,
        states.test_a_state_is_what_the_plainest_fold_makes,
        [{"seed": seed} for seed in range(40)],
    ),
    (
        blocks_know_only_their_own_latest_event,
        states.test_a_state_is_what_the_plainest_fold_makes,
        [{"seed": seed} for seed in range(40)],
    ),
    (
        late_arrivals_are_skipped,
        states.test_a_state_is_what_the_plainest_fold_makes,
        [{"seed": seed} for seed in range(40)],
    ),
]


RED = (AssertionError, pytest.fail.Exception, Unavailable)
"""How a test says that something is wrong, or a log that it lacks a tile; any other error is the plant's own fault."""


@cache
def sound() -> Any:
    """Give a world that grew without mistakes; it is only read."""
    return states.grown(EVENTS)


def run(
    test: Callable[..., Any], examples: Iterable[dict[str, Any]], grow: Callable[[], Any]
) -> Iterator[dict[str, Any]]:
    """Run a test as pytest would, on a lab of its own for each example; yield those that are red."""
    wanted = inspect.signature(test).parameters
    world = grow() if "world" in wanted else None
    for example in examples:
        fixtures = {"lab": log_lab(), "world": world, **example}
        try:
            test(**{name: fixtures[name] for name in wanted})
        except RED:
            yield example


@pytest.mark.parametrize(("plant", "test", "examples"), PLANTS, ids=[plant.__name__ for plant, _, _ in PLANTS])
def test_the_bug_is_caught(monkeypatch, plant, test, examples):
    with monkeypatch.context() as patch:
        plant(patch)
        red = next(run(test, examples, lambda: states.grown(EVENTS)), None)

    assert red is not None
    assert list(run(test, [red], sound)) == []  # green without the bug
