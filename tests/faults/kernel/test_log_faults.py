"""The log through lost, repeated and reordered hints, crashes at every call, lost replies and rivals."""

import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.transport import Answer, Transport
from holdfast.errors import Unavailable
from holdfast.log import Hint, partition_of
from holdfast.proofs import verify_consistency, verify_inclusion
from holdfast.retry import deadline
from holdfast.testing import FAULTS, FaultyTransport, Fuse, Killed
from tests.log_lab import LogLab, log_lab
from tests.soak import examples


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


@pytest.mark.parametrize("seed", range(examples(8, soak=200)))
def test_lost_repeated_and_reordered_hints_leave_no_gap_and_no_repeat(lab, seed):
    noise = random.Random(seed)
    hints = lab.grow(noise, 25)
    arriving = [hint for hint in hints for _ in range(noise.choice((0, 1, 1, 2)))]
    noise.shuffle(arriving)
    while arriving:
        batch = [arriving.pop() for _ in range(min(len(arriving), noise.randrange(1, 6)))]
        lab.indexer().index(batch)

    lab.repair().walk()  # what no hint told of

    lab.check_log()
    lab.check_leaves()
    assert lab.broken == []


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


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 12))
def test_killed_at_any_call_it_goes_on_where_it_was(lab, at, after):
    noise = random.Random(at)
    lab.indexer().index(lab.grow(noise, 4))
    hints = lab.grow(noise, 12)
    fuse = Fuse(at, after=after)
    try:
        lab.indexer(fuse.wrap(lab.transport)).index(hints)
    except Killed:
        pass
    else:
        assert len(fuse.calls) < at

    lab.indexer().index(hints)

    lab.check_log()


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


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(9, 15))
def test_killed_between_segment_and_tile_the_proofs_still_stand(lab, at, after):
    """More commits than one tile holds: three segments, nine calls, and then the tile and its place above."""
    for _ in range(270):
        hint = lab.append("s/1")
    with contextlib.suppress(Killed):
        lab.indexer(Fuse(at, after=after).wrap(lab.transport)).index([hint])
    lab.indexer().index([hint])
    partition, size = partition_of("s/1"), 270

    leaves = [entry.reference.leaf_hash for entry in lab.entries()[partition]]
    for leaf in (0, 3, 255, 256, 269):
        proof = lab.log().inclusion(partition, leaf)
        assert verify_inclusion(leaves[leaf], leaf, size, proof.path, lab.log().head(partition).root)
    proof = lab.log().consistency(partition, 200, 270)
    assert verify_consistency(200, 270, proof.path, proof.root_first, proof.root_second)


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


def test_a_walk_goes_on_where_the_last_one_ended(lab):
    for number in range(6):
        lab.append(f"s/{number}", 900)
    slices = []
    for _ in range(200):
        slices.append(lab.repair().walk(pages_max=1))
        if slices[-1].is_last:
            break

    assert lab.repair().passed_at() is not None
    lab.check_log()


def test_indexing_is_unfinished_when_time_is_over_and_says_so(lab):
    hint = lab.append("s/1")
    with deadline(0, lab.clock), pytest.raises(Unavailable) as refused:
        lab.indexer().index([hint])

    assert refused.value.code == "unfinished"
    assert lab.indexer().index([Hint(lab.tenant, "s/1", 1)]) == 1
