"""Deliberate mistakes in the archive: each must turn a named test red, or the test does not test."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from holdfast.archive import contents, partition
from holdfast.archive.contents import Contents
from holdfast.archive.format import read_whole, write
from holdfast.archive.partition import Partition
from holdfast.dynamodb import event_store, stream_reader
from holdfast.dynamodb.stream_reader import Hole
from holdfast.dynamodb.writes import delete_action
from holdfast.log.bodies import Lost
from holdfast.objects import Damaged
from tests.archive_lab import archive_lab
from tests.faults.kernel.archive import test_buckets as buckets
from tests.faults.kernel.archive import test_crashes as crashes
from tests.faults.kernel.archive import test_freed_keys as freed_keys
from tests.faults.kernel.archive import test_neighbours as neighbours
from tests.unit.kernel.archive import test_archiving as archiving
from tests.unit.kernel.archive import test_reading as reading

Plant = Callable[[pytest.MonkeyPatch], None]


def deletes_the_newest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partition, "_going", lambda standing, last: [row for row in standing if row["sk"] <= last["sk"]])


def deletes_whatever_stands_there(patch: pytest.MonkeyPatch) -> None:
    def unconditional(table: str, key: Any, when: Any) -> dict[str, Any]:
        request = delete_action(table, key, when)
        return {"TableName": request["TableName"], "Key": request["Key"]}

    patch.setattr(partition, "delete_action", unconditional)


def deletes_the_youngest_first(patch: pytest.MonkeyPatch) -> None:
    going = partition._going
    patch.setattr(partition, "_going", lambda standing, last: list(reversed(going(standing, last))))


def does_not_read_back(patch: pytest.MonkeyPatch) -> None:
    made = list[bytes]()

    def written(held: Any, commits: Any) -> Any:
        made.append(write(held, commits)[0])
        return made[-1], ()

    patch.setattr(partition, "write", written)
    patch.setattr(partition, "prove", lambda _body, held, entries: contents.prove(made[-1], held, entries))


def reads_back_and_believes(patch: pytest.MonkeyPatch) -> None:
    def believe(body: bytes, held: Any, _entries: Any) -> Contents:
        frames = list(read_whole(body))
        streams: dict[str, Any] = {}
        for piece, rows in frames:
            streams.setdefault(piece.stream, []).extend(rows)
        return Contents(held, tuple(piece for piece, _ in frames), streams, len(body))

    patch.setattr(partition, "prove", believe)


def puts_rows_last(patch: pytest.MonkeyPatch) -> None:
    put_rows, remove_all = Partition._put_rows, Partition._remove_all

    def late(self: Any, cursor: Any, held: Any) -> int:
        removed = remove_all(self, cursor, held)
        put_rows(self, held)
        return removed

    patch.setattr(Partition, "_put_rows", lambda self, held: None)
    patch.setattr(Partition, "_remove_all", late)


def writes_no_range_down(patch: pytest.MonkeyPatch) -> None:
    move = Partition._move

    def forgetful(self: Any, before: Any, after: Any) -> bool:
        if after.sealing:
            return True
        return move(self, type(before)(before.position), after)

    patch.setattr(Partition, "_move", forgetful)


def held_boundary_without_age(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(event_store, "is_fresh", lambda boundary, clock: True)
    patch.setattr(event_store, "check_fresh", lambda boundary, clock: None)


def any_commit_is_the_end(patch: pytest.MonkeyPatch) -> None:
    commit = stream_reader.StreamReader._commit

    def fresh(self: Any, stream: str, row: Any, _read_at: Any) -> Any:
        return commit(self, stream, row, stream_reader.instant(self._database.clock))

    patch.setattr(stream_reader.StreamReader, "_commit", fresh)


def a_shorter_stream_is_taken_for_whole(patch: pytest.MonkeyPatch) -> None:
    def read(self: Any, stream: str, first: int, last: int, *, is_due: bool) -> Any:
        yield from self._archive.read(self._tenant, stream, first, last)
        return last + 1

    patch.setattr(stream_reader.StreamReader, "_archived", read)


def forgets_who_stayed(patch: pytest.MonkeyPatch) -> None:
    remove, going = Partition._remove, partition._going

    def forgetful(self: Any, stream: str, kept: Sequence[Any]) -> int:
        patch.setattr(
            partition,
            "_going",
            lambda standing, last: [row for row in going(standing, last) if row["sk"] >= kept[0]["sk"]],
        )
        return remove(self, stream, kept)

    patch.setattr(Partition, "_remove", forgetful)


def believes_its_own_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Partition, "_check_clock", lambda self: None)


def does_not_look_at_ages_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Partition, "_is_of_age", lambda self, held: True)


def in_a_lab(test: Callable[[Any], None]) -> Callable[[], None]:
    return lambda: test(archive_lab())


RED = (AssertionError, pytest.fail.Exception, Damaged, Hole, Lost)
"""How a test says that something is wrong; any other error would be the plant's own fault."""

PLANTS: list[tuple[Plant, Callable[[], None]]] = [
    (deletes_the_newest, in_a_lab(archiving.test_the_newest_commit_stays_however_old_it_is)),
    (deletes_whatever_stands_there, freed_keys.a_commit_that_is_changed_while_it_is_archived_stays),
    (deletes_the_youngest_first, crashes.test_killed_before_or_after_any_call_nothing_is_lost_and_the_next_goes_on),
    (does_not_read_back, lambda: buckets.nothing_is_removed_for_a_bucket(buckets.DAMAGES["cut short"])),
    (
        reads_back_and_believes,
        lambda: archiving.test_a_commit_that_is_not_what_the_log_says_is_told_of_and_its_partition_stays(
            archive_lab(), {"actor": "mallory"}
        ),
    ),
    (puts_rows_last, neighbours.test_everything_can_be_read_at_any_moment),
    (writes_no_range_down, buckets.a_range_that_was_begun_stays_the_same_range),
    (held_boundary_without_age, freed_keys.a_writer_who_slept_does_not_write_to_a_freed_key),
    (any_commit_is_the_end, freed_keys.a_reader_who_stopped_early_does_not_write_to_a_freed_key),
    (
        a_shorter_stream_is_taken_for_whole,
        lambda: reading.test_a_piece_that_is_lost_leaves_a_hole_and_not_a_shorter_stream(archive_lab(), 2),
    ),
    (forgets_who_stayed, in_a_lab(archiving.test_what_stayed_as_the_newest_goes_when_its_stream_has_gone_on)),
    (believes_its_own_clock, in_a_lab(archiving.test_a_clock_that_is_not_the_stores_removes_nothing)),
    (does_not_look_at_ages_again, in_a_lab(archiving.test_a_range_that_was_begun_by_a_clock_far_ahead_is_not_removed)),
]


@pytest.mark.parametrize(("plant", "test"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_the_bug_is_caught(monkeypatch: pytest.MonkeyPatch, plant: Plant, test: Callable[[], None]):
    test()  # green without the bug

    plant(monkeypatch)

    with pytest.raises(RED):
        test()
