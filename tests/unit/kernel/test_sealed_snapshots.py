"""Snapshots of streams with sealed events: under the subject's key, of use to nobody without it, and never of two."""

import itertools
import zlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from holdfast import snapshots
from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.dynamodb.reads import get
from holdfast.envelope import Forged
from holdfast.folds import MERGE_PATCH, Folded, Within, fold
from holdfast.snapshots import Kept
from holdfast.subjects import KEY_AGE_MAX, SubjectKeys
from tests.subject_acts import erase
from tests.unit.kernel.test_snapshots import STREAM, Applied, World, items

SECRET = "a-street-that-nobody-else-lives-in"
KEPT = "a-price-that-stays"
BATCH = 250
LARGE = 1_500
"""Members of a state that no row holds."""


class SealedWorld(World):
    """A world whose events are sealed for whom they name."""

    def __init__(self) -> None:
        super().__init__([], is_indexed=False)
        self.numbers = itertools.count(1)

    def grow(self, commits: int, *subjects: str | None, street: str = SECRET) -> None:
        """Append commits whose events are of *subjects* in turn, and index them."""
        whose = itertools.cycle(subjects)
        for _ in range(commits):
            events = [self.event(next(self.numbers), next(whose), street) for _ in range(BATCH)]
            stored = [
                msgspec.json.encode(self.sealer.sealed(STREAM, event) if event["shredkey"] else event)
                for event in events
            ]
            self.clock.advance(timedelta(seconds=1))
            store = self.stores.of("made", "maker")
            self.version = store.append(STREAM, self.version, stored, commit_id=f"c{self.version}").version
        self.index()

    @staticmethod
    def event(number: int, subject: str | None, street: str) -> dict[str, Any]:
        data = {f"street-{subject}": street, f"n{number % LARGE}": number} if subject else {"price": KEPT, "n": number}
        return {"source": "urn:test", "id": str(number), "type": "t", "shredkey": subject, "data": data}

    def keep(self) -> Kept:
        return self.snapshots.keep(STREAM, MERGE_PATCH)

    def erase(self, subject: str) -> None:
        assert isinstance(self.sealer.keys, SubjectKeys)
        erase(self.sealer.keys, subject)
        self.clock.advance(KEY_AGE_MAX + timedelta(seconds=1))

    def plain(self, within: Within) -> Folded:
        """Fold every event, from none on."""
        commits = self.stores.of("made", "x").read(STREAM)
        return fold(commits, MERGE_PATCH, within, opened=self.sealer.opened)

    def folded_of(self, within: Within) -> int:
        """Say how many events a state takes, and check that it is what all of them make."""
        applied = Applied()
        found = self.state(within, applied.reducer())
        assert found == self.plain(within)
        return len(applied)

    def everything(self) -> Iterator[bytes]:
        """Yield whatever lies in the tables and objects, and what is packed there."""
        rows = [from_item(item) for table in ("commits", "log", "operations") for item in items(self, table)]
        values = [value for row in rows for value in row.values()]
        for value in [*values, *map(self.objects.get, self.objects.keys(""))]:
            yield value if isinstance(value, bytes) else repr(value).encode()
            try:
                yield zlib.decompress(value)
            except (zlib.error, TypeError):
                continue

    def shows(self, text: str) -> bool:
        return any(text.encode() in each for each in self.everything())


@pytest.fixture
def world() -> SealedWorld:
    return SealedWorld()


def test_a_stream_of_one_subject_has_snapshots_that_its_key_opens(world):
    world.grow(8, "ann", None)
    assert len(world.keep().versions) >= 2

    assert world.state(Within()).subjects == ("ann",)
    assert world.folded_of(Within()) <= world.version - world.kept()[-1]
    assert world.folded_of(Within(version=1_600)) <= 1_600 - world.kept()[0]
    assert not world.shows(SECRET)
    assert world.shows(KEPT)  # what is not sealed is found, so the rest would have been


def test_once_the_key_is_gone_so_are_the_snapshots_and_everything_erased_is_counted(world):
    world.grow(8, "ann", None)
    world.keep()
    world.erase("ann")

    for version in (None, 900, 1_600, 1_999):
        found = world.state(Within(version=version))
        assert found == world.plain(Within(version=version))
        assert found.events_erased == ((version or world.version) + 1) // 2
        assert SECRET not in str(found.state)
    assert not world.shows(SECRET)


def test_after_an_erasure_snapshots_are_made_anew_of_what_remains(world):
    world.grow(8, "ann", None)
    world.keep()
    world.erase("ann")
    before = world.folded_of(Within())

    world.grow(4, None)
    assert world.keep().is_done
    assert world.keep() == Kept((), is_done=True)

    assert world.kept("NE") != []
    assert world.folded_of(Within()) <= world.version - world.kept("NE")[-1] < before
    assert world.state(Within()).events_erased == 1_000
    assert not world.shows(SECRET)


def test_what_came_before_the_first_sealed_event_stays_of_use(world):
    world.grow(4, None)
    world.grow(4, "ann")
    world.keep()
    world.erase("ann")

    assert world.folded_of(Within(version=999)) <= 999 - world.kept()[0]


def test_a_stream_erased_before_any_snapshot_has_them_in_the_open(world):
    world.grow(4, "ann", None)
    world.erase("ann")
    world.grow(4, None)

    assert world.keep().versions == tuple(world.kept())
    assert len(world.kept()) >= 2
    assert world.folded_of(Within()) <= world.version - world.kept()[-1]
    assert not world.shows(SECRET)


def test_content_of_two_subjects_is_kept_in_no_snapshot(world):
    world.grow(4, "ann")
    kept = world.keep().versions
    world.grow(4, "ann", "bob")

    assert world.keep() == Kept((), is_done=True)
    assert world.keep() == Kept((), is_done=True)
    assert tuple(world.kept()) == kept
    assert world.folded_of(Within()) == world.version - kept[-1]
    assert not world.shows(SECRET)
    world.erase("ann")
    assert world.folded_of(Within()) == 500  # bob's


def test_a_snapshot_that_was_changed_or_put_elsewhere_is_told_of_and_the_one_before_it_is_used(world):
    world.grow(4, "ann")
    first, *_ = world.keep().versions
    pk = f"N#made#{MERGE_PATCH.label}#{STREAM}"
    row = get(world.database, world.tables.log, pk, f"{first:016d}")
    assert row is not None
    elsewhere = row | {"sk": f"{first + BATCH:016d}"}
    changed = row | {"sk": f"{first + 2 * BATCH:016d}", "state": row["state"][:-1] + b"?"}

    for count, forged in enumerate((elsewhere, changed), 1):
        world.transport.call("PutItem", {"TableName": "log", "Item": to_item(forged)})
        world.damaged.clear()
        assert world.folded_of(Within()) == world.version - first
        assert [type(error) for error in world.damaged] == [Forged] * count


def test_a_state_too_large_for_a_row_lies_beside_it_sealed(world, monkeypatch):
    monkeypatch.setattr(snapshots, "INLINE_BYTES_MAX", 1_000)
    world.grow(8, "ann")
    world.keep()

    assert len(list(world.objects.keys("snapshots/"))) == len(world.kept())
    assert world.folded_of(Within()) <= world.version - world.kept()[-1]
    assert not world.shows(SECRET)
    world.erase("ann")
    assert world.state(Within()) == world.plain(Within())
