"""Anchors under every crash, every lost reply, and two who make them at once; and mistakes that must be noticed."""

import itertools
import random
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from holdfast.anchors import Anchor, Anchors
from holdfast.anchors import anchors as module
from holdfast.anchors.statements import read_leaf
from holdfast.dynamodb.transport import Unknown
from holdfast.errors import Unavailable, Uncertain
from holdfast.log.values import PARTITIONS
from holdfast.objects import Damaged, MemoryObjects
from holdfast.proofs import verify_consistency
from holdfast.testing import Crash, Fuse, at_every_crash
from tests.anchored import Moments, World, watched_anchors
from tests.log_lab import LogLab, log_lab


def begun() -> World:
    """A service with one anchor, whose logs have moved since."""
    world = World()
    world.grow("ann", 0, 3)
    world.grow("bob", 2, 1)
    world.anchors().sign()
    world.clock.advance(timedelta(minutes=1))
    world.grow("ann", 0, 5)
    return world


def calls_of_one_run() -> list[str]:
    world, moments = begun(), Moments()
    watched_anchors(world, moments).sign()
    return moments.names


def places() -> range:
    """Number the calls of one run."""
    names = calls_of_one_run()
    assert {"call", "get", "sign", "put_new"} <= set(names)
    return range(len(names))


def test_a_crash_at_any_call_leaves_a_chain_that_goes_on():
    def act(world: World, fuse: Fuse) -> None:
        world.anchors(fuse.wrap(world.transport), fuse.wrap(world.objects), fuse.wrap(world.signer)).sign()

    def then(crash: Crash[World]) -> None:
        world = crash.world
        world.chain()
        world.clock.advance(timedelta(minutes=1))
        world.anchors().sign()

        assert len(world.chain()) == 2
        assert world.pointed() == 2
        world.grow("bob", 2, 2)
        world.anchors().sign()
        assert len(world.chain()) == 3

    assert at_every_crash(begun, act, then) == 2 * len(places())


def anchored(log: LogLab, growth: Sequence[int]) -> list[Anchor]:
    """Let a log grow by so many commits at a time, and by one elsewhere, and anchor it each time."""
    world, noise = World(log.transport, log.tables.log, log.clock), random.Random(1)
    for commits in growth:
        log.indexer().index([*log.grow(noise, commits, streams=1), log.append("s/1")])
        log.clock.advance(timedelta(minutes=1))
        world.anchors().sign()
    return world.chain()


def proven(log: LogLab, anchors: list[Anchor]) -> list[bool]:
    """Ask the log for a proof between every two anchors, of each head that has moved; tell which hold."""
    found = []
    for earlier, later in itertools.combinations(anchors, 2):
        heads = {leaf.partition: leaf for leaf in map(read_leaf, later.heads)}
        for before in map(read_leaf, earlier.heads):
            now = heads[before.partition]
            if 0 < before.size < now.size:
                path = log.log().consistency(before.partition, before.size, now.size).path
                roots = bytes.fromhex(before.root), bytes.fromhex(now.root)
                found.append(verify_consistency(before.size, now.size, path, *roots))
    return found


def test_every_anchor_of_a_log_that_grows_is_proven_consistent_with_all_before_it():
    """To more than one tile, and a partition that has only begun."""
    log = log_lab()
    anchors = anchored(log, [1, 1, 30, 0, 220, 40, 3])
    found = proven(log, anchors)

    assert sorted(leaf.size for leaf in map(read_leaf, anchors[-1].heads)) == [0, 0, 7, 295]
    assert len(found) == 2 * 21 - 1  # every two, of two partitions of which one stood still once
    assert all(found)


def test_a_log_that_was_written_anew_is_not_consistent_with_what_was_anchored():
    """It has as many commits, and others."""
    growth = [1, 4, 20]
    anchors = anchored(log_lab(), growth)
    anew = log_lab()
    anchored(anew, growth)

    assert proven(anew, anchors) == [False] * 6


def test_two_who_anchor_at_once_make_one_anchor():
    """One runs from beginning to end inside every call of the other."""
    for place in places():
        for is_after in (False, True):
            world = begun()
            made = list[Anchor | None]()

            def meet(
                number: int,
                now_after: bool,
                _name: str,
                world: World = world,
                made: list[Anchor | None] = made,
                at: tuple[int, bool] = (place, is_after),
            ) -> None:
                if (number, now_after) == at:
                    world.clock.advance(timedelta(seconds=1))
                    made.append(world.anchors().sign())

            made.append(watched_anchors(world, Moments(meet)).sign())

            newest = world.chain()[1:]
            assert [anchor for anchor in {*made} if anchor] == newest, (place, is_after)
            assert world.anchors().latest() == newest[0]


def test_two_who_see_different_heads_make_one_chain():
    for place in places():
        world = begun()

        def meet(number: int, now_after: bool, _name: str, world: World = world, place: int = place) -> None:
            if (number, now_after) == (place, False):
                world.clock.advance(timedelta(seconds=1))
                world.grow("ann", 0, 6)
                world.grow("cai", 1, 1)
                world.anchors().sign()

        watched_anchors(world, Moments(meet)).sign()
        world.anchors().sign()

        last = world.chain()[-1]
        assert world.pointed() == last.said.seq
        assert last.said.leaves == 3 * PARTITIONS


def test_a_lost_reply_of_the_table_makes_no_second_anchor():
    for place in places():
        world = begun()

        def lose(number: int, now_after: bool, name: str, place: int = place) -> None:
            if (number, now_after, name) == (place, True, "call"):
                raise Unknown("the reply was lost")

        watched_anchors(world, Moments(lose)).sign()

        assert len(world.chain()) == 2
        assert world.pointed() == 2


def test_an_object_whose_writing_is_uncertain_is_found_by_the_next_run():
    world = begun()

    class Uncertainly(MemoryObjects):
        def put_new(self, key: str, body: bytes) -> bool:
            world.objects.put_new(key, body)
            raise Uncertain("outcome_unknown", "It may be there.")

    objects = Uncertainly(world.objects._bodies)
    with pytest.raises(Uncertain):
        world.anchors(objects=objects).sign()
    assert world.pointed() == 1

    found = world.anchors().sign()

    assert found == world.chain()[-1]
    assert (len(world.chain()), world.pointed()) == (2, 2)


@pytest.mark.parametrize(
    "refusal",
    [
        Unavailable("signer_unavailable", "KMS does not answer."),
        ClientError({"Error": {"Code": "DisabledException"}}, "Sign"),
        ClientError({"Error": {"Code": "AccessDeniedException"}}, "Sign"),
    ],
    ids=["silence", "disabled", "denied"],
)
def test_a_key_that_will_not_sign_leaves_nothing_behind(refusal):
    world = begun()

    class Refusing:
        public_key = world.signer.public_key

        def sign(self, message: bytes) -> bytes:
            raise refusal

    with pytest.raises(type(refusal)):
        world.anchors(signer=Refusing()).sign()
    assert (len(world.chain()), world.pointed()) == (1, 1)

    world.anchors().sign()
    assert len(world.chain()) == 2


def test_a_lost_pointer_costs_few_reads():
    world = World()
    world.grow("ann", 0, 1)
    for size in range(1, 41):
        world.grow("ann", 0, size)
        world.anchors().sign()
    world.point(None)
    moments = Moments()

    watched_anchors(world, moments).sign()

    assert world.pointed() == 40
    assert moments.names.count("get") <= 14


def test_a_head_that_has_shrunk_is_not_signed():
    world = begun()
    world.grow("ann", 0, 2)

    with pytest.raises(module.Inconsistent):
        world.anchors().sign()
    assert len(world.chain()) == 1


# --- Planted mistakes


def overwriting(patch: pytest.MonkeyPatch) -> None:
    def put_new(self: MemoryObjects, key: str, body: bytes) -> bool:
        self._bodies[key] = body
        return True

    patch.setattr(MemoryObjects, "put_new", put_new)


def taking_another_s_place(patch: pytest.MonkeyPatch) -> None:
    def keep(self: Anchors, anchor: Anchor) -> Anchor:
        self.objects.put_new(module._key(anchor.said.seq), anchor.to_bytes())
        return anchor

    patch.setattr(Anchors, "_keep", keep)


def pointing_first(patch: pytest.MonkeyPatch) -> None:
    keep = Anchors._keep

    def keep_late(self: Anchors, anchor: Anchor) -> Anchor:
        self._point(anchor.said.seq - 1, anchor)
        return keep(self, anchor)

    patch.setattr(Anchors, "_keep", keep_late)


def never_looking_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(module, "_check_growth", lambda _before, _now: None)


RED = (AssertionError, pytest.fail.Exception, Damaged)
"""How a test says that something is wrong, or an anchor; any other error would be the mistake's own fault."""


@pytest.mark.parametrize(
    ("mistake", "promise"),
    [
        (overwriting, test_two_who_anchor_at_once_make_one_anchor),
        (taking_another_s_place, test_two_who_anchor_at_once_make_one_anchor),
        (pointing_first, test_a_crash_at_any_call_leaves_a_chain_that_goes_on),
        (never_looking_back, test_a_head_that_has_shrunk_is_not_signed),
    ],
    ids=["overwriting", "taking another's place", "pointing first", "never looking back"],
)
def test_a_planted_mistake_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    mistake: Callable[[pytest.MonkeyPatch], None],
    promise: Callable[[], None],
):
    promise()  # green without the mistake

    mistake(monkeypatch)

    with pytest.raises(RED):
        promise()
