"""The log through lost, repeated and reordered hints, crashes at every call, lost replies and rivals."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.reads import get
from holdfast.dynamodb.transport import Answer, Transport
from holdfast.errors import Unavailable
from holdfast.log import Hint, partition_of
from holdfast.log.repair import CURSOR_KEY, Repair, Walked
from holdfast.log.values import SOLE
from holdfast.proofs import verify_consistency, verify_inclusion
from holdfast.retry import deadline
from holdfast.testing import FAULTS, Crash, FaultyTransport, Fuse, at_every_crash
from tests.log_lab import LogLab, log_lab
from tests.memory_dynamodb import MemoryTransport, reading
from tests.soak import examples, until_delivered


@pytest.fixture
def lab() -> LogLab:
    return log_lab()


class RivalTransport:
    """A transport before whose nth call somebody else does their work."""

    def __init__(self, inner: Transport, at: int, rival: Callable[[], Any]) -> None:
        self._inner = inner
        self._at = at
        self._rival = rival
        self.calls = 0

    def call(self, operation: str, request: Any) -> Answer:
        self.calls += 1
        if self.calls == self._at:
            self._rival()
        return self._inner.call(operation, request)


def test_lost_repeated_and_reordered_hints_leave_no_gap_and_no_repeat():
    def run(seed: int) -> int:
        lab, noise = log_lab(), random.Random(seed)
        hints = lab.grow(noise, 25)
        arriving = [hint for hint in hints for _ in range(noise.choice((0, 1, 1, 2)))]
        delivered = len(arriving)
        noise.shuffle(arriving)
        while arriving:
            batch = [arriving.pop() for _ in range(min(len(arriving), noise.randrange(1, 6)))]
            lab.indexer().index(batch)

        lab.repair().walk()  # what no hint told of

        lab.check_log()
        lab.check_leaves()
        assert lab.broken == []
        return delivered

    until_delivered(run)


def test_the_hint_of_a_later_commit_brings_those_before_it(lab):
    for _ in range(5):
        hint = lab.append("s/1", 2)

    assert lab.indexer().index([hint]) == 5
    lab.check_log()


def test_a_repeated_hint_writes_nothing(lab):
    hint = lab.append("s/1")
    lab.indexer().index([hint])
    before = lab.log().heads()

    assert lab.indexer().index([hint, hint]) == 0
    assert lab.log().heads() == before


def index(lab: LogLab, fuse: Fuse) -> None:
    """Index the newest commit of each stream, whatever is known already."""
    hints = [Hint(lab.tenant, stream, version) for stream, version in lab.written.items()]
    lab.indexer(fuse.wrap(lab.transport)).index(hints)


@pytest.mark.parametrize("seed", range(examples(1, soak=5)))
def test_killed_before_or_after_any_call_it_goes_on_where_it_was(seed):
    def make() -> LogLab:
        lab, noise = log_lab(), random.Random(seed)
        lab.indexer().index(lab.grow(noise, 4))
        lab.grow(noise, 12)
        return lab

    def then(crash: Crash[LogLab]) -> None:
        index(crash.world, Fuse())
        crash.world.check_log()

    assert at_every_crash(make, index, then) > 16


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("at", range(1, 9))
def test_one_fault_at_any_call_is_survived(lab, fault, at):
    noise = random.Random(at)
    hints = lab.grow(noise, 10)
    transport = FaultyTransport(lab.transport, [None] * (at - 1) + [fault])

    lab.indexer(transport).index(hints)

    lab.check_log()
    assert lab.broken == []


@pytest.mark.parametrize("at", range(1, 12))
def test_two_indexers_on_one_partition_meet_at_its_head(lab, at):
    noise = random.Random(at)
    hints = lab.grow(noise, 10, streams=3)

    def rival() -> None:
        lab.indexer().index([*hints, *lab.grow(noise, 3, streams=3)])

    lab.indexer(RivalTransport(lab.transport, at, rival)).index(hints)
    lab.repair().walk()

    lab.check_log()
    assert lab.broken == []


@pytest.mark.parametrize("at", range(1, 5))
def test_two_indexers_with_other_streams_of_one_partition_meet_at_its_head(lab, at):
    mine, others = [f"s/{n}" for n in range(40) if partition_of(f"s/{n}") == 0][:2]
    hint = lab.append(mine, 2)

    def rival() -> None:
        lab.indexer().index([lab.append(others, 3)])

    lab.indexer(RivalTransport(lab.transport, at, rival)).index([hint])

    lab.check_log()


def test_killed_anywhere_between_segment_and_tile_the_proofs_still_stand():
    """More commits than one tile holds: three segments, nine calls, and then the tile and its place above."""
    grown = log_lab()
    for _ in range(270):
        grown.append("s/1")

    def make() -> LogLab:
        assert isinstance(grown.transport, MemoryTransport)
        return replace(grown, transport=grown.transport.copy())

    def then(crash: Crash[LogLab]) -> None:
        index(crash.world, Fuse())
        check_proofs(crash.world, "s/1", 270)

    assert at_every_crash(make, index, then) > 20


def check_proofs(lab: LogLab, stream: str, size: int) -> None:
    """Insist that the log proves that it holds one stream's commits alone, and grew to them."""
    partition = partition_of(stream)
    leaves = [entry.reference.leaf_hash for entry in lab.entries()[partition]]
    for leaf in (0, 3, 255, 256, size - 1):
        proof = lab.log().inclusion(partition, leaf)
        assert verify_inclusion(leaves[leaf], leaf, size, proof.path, lab.log().head(partition).root)
    grown = lab.log().consistency(partition, 200, size)
    assert verify_consistency(200, size, grown.path, grown.root_first, grown.root_second)


def tamper(lab: LogLab, stream: str, version: int, **changes: Any) -> None:
    request = {"TableName": lab.tables.commits, "Key": to_item({"pk": f"S#{lab.tenant}#{stream}", "sk": version})}
    item = dict(lab.transport.call("GetItem", request).body["Item"])
    lab.transport.call("PutItem", {"TableName": lab.tables.commits, "Item": item | to_item(changes)})


def remove(lab: LogLab, stream: str, version: int) -> None:
    key = to_item({"pk": f"S#{lab.tenant}#{stream}", "sk": version})
    lab.transport.call("DeleteItem", {"TableName": lab.tables.commits, "Key": key})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda lab: tamper(lab, "s/1", 2, actor="mallory"), "its header does not have its hash"),
        (lambda lab: tamper(lab, "s/1", 2, root=b"x" * 32), "its header does not have its hash"),
        (lambda lab: tamper(lab, "s/1", 2, prev=b"x" * 32), "it does not name the hash of the commit before it"),
        (lambda lab: tamper(lab, "s/1", 2, rt=1), "it was recorded no later than the commit before it"),
        (lambda lab: remove(lab, "s/1", 2), "versions 2 to 2 are missing"),
        (lambda lab: remove(lab, "s/1", 3), "it was announced and is not there"),
    ],
)
def test_a_stream_that_was_tampered_with_is_told_of_and_the_others_go_on(lab, damage, reason):
    hints = [lab.append("s/1") for _ in range(3)]
    other = lab.append("s/2")
    damage(lab)

    for _ in range(2):  # the second time it stands still at the same place
        lab.indexer().index([*hints, other])

    assert [broken.reason for broken in lab.broken] == [reason] * 2
    assert lab.log().watermark("s/1").version == (2 if "announced" in reason else 1)
    assert lab.log().watermark("s/2").version == 1


def test_a_stream_that_grows_faster_than_a_segment_holds_is_indexed_whole(lab):
    for _ in range(230):
        hint = lab.append("s/1")

    assert lab.indexer().index([hint]) == 230
    lab.check_log()


def test_many_streams_that_close_blocks_at_once_are_indexed_whole(lab):
    """Each brings its watermark, a block, and another one: more rows than one transaction takes."""
    hints = [lab.append(f"s/{n}", 512) for n in range(130)]

    assert lab.indexer().index(hints) == 130
    lab.check_log()


def test_repair_finds_the_last_commit_of_a_stream_whose_hint_was_lost(lab):
    lab.indexer().index([lab.append("s/1")])
    lab.append("s/1")

    found = lab.repair().walk()

    assert (found.indexed, found.is_last) == (1, True)
    lab.check_log()


def is_passed(lab: LogLab) -> bool:
    """Tell whether the last walk came to the end of the table."""
    cursor = get(lab.database(), lab.tables.log, CURSOR_KEY, SOLE)
    return cursor is not None and cursor["start"] is None


def test_a_walk_goes_on_where_the_last_one_ended(lab, monkeypatch):
    """Each slice is another process, a minute later, which knows nothing but where the walk stands."""
    monkeypatch.setattr(reading, "PAGE_BYTES_MAX", 1_000)
    for number in range(12):
        lab.append(f"s/{number}", 20)

    def walk() -> list[Walked]:
        slices: list[Walked] = []
        while not (slices and slices[-1].is_last):
            slices.append(lab.repair().walk(pages_max=1))
            assert len(slices) < 12
        return slices

    slices = walk()
    assert len(slices) > 3
    assert all(found.indexed for found in slices[:-1])
    assert sum(found.commits for found in slices) == sum(found.indexed for found in slices) == 12
    assert is_passed(lab)
    lab.check_log()

    lab.append("s/5")
    slices = walk()  # the next one begins anew
    assert (sum(found.commits for found in slices), sum(found.indexed for found in slices)) == (13, 1)
    lab.check_log()


def test_a_partition_that_cannot_be_indexed_holds_up_no_other_and_is_told_of(lab):
    for number in range(6):
        lab.append(f"s/{number}", 900)
    poisoned = partition_of("s/0")

    class Poisoned:
        def call(self, operation: str, request: Any) -> Answer:
            if f"L#{lab.tenant}#{poisoned}" in str(request):
                raise ValueError("poison")
            return lab.transport.call(operation, request)

    def walk() -> bool:
        repair = Repair(lab.database(), lab.tables, lab.indexer(Poisoned()))
        return repair.walk(pages_max=1).is_last

    told = 0
    while not is_passed(lab):
        try:
            walk()
        except ValueError:
            told += 1
        assert told < 10

    assert told > 0
    assert {name for name in lab.written if not lab.log().watermark(name).version} == {
        name for name in lab.written if partition_of(name) == poisoned
    }


def test_what_there_was_no_time_for_is_looked_at_by_the_next_walk(lab):
    lab.append("s/1")
    with deadline(0, lab.clock), pytest.raises(Unavailable):
        lab.repair().walk()
    assert not is_passed(lab)

    assert lab.repair().walk().indexed == 1


def test_indexing_is_unfinished_when_time_is_over_and_says_so(lab):
    hint = lab.append("s/1")
    with deadline(0, lab.clock), pytest.raises(Unavailable) as refused:
        lab.indexer().index([hint])

    assert refused.value.code == "unfinished"
    assert lab.indexer().index([Hint(lab.tenant, "s/1", 1)]) == 1
