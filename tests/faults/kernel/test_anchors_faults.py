"""Anchors under every crash, every lost reply, and two who make them at once; and mistakes that must be noticed."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from holdfast.anchors import Anchor, Anchors
from holdfast.anchors import anchors as module
from holdfast.dynamodb.transport import Unknown
from holdfast.errors import Unavailable, Uncertain
from holdfast.objects import MemoryObjects
from holdfast.testing import Killed
from tests.anchored import Moments, World, watched


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
    watched(world, moments).sign()
    return moments.names


def places() -> range:
    """Number the calls of one run."""
    names = calls_of_one_run()
    assert {"call", "get", "sign", "put_new"} <= set(names)
    return range(len(names))


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_leaves_a_chain_that_goes_on(is_after):
    for place in places():
        world = begun()

        def die(number: int, now_after: bool, _name: str, place: int = place) -> None:
            if (number, now_after) == (place, is_after):
                raise Killed

        with pytest.raises(Killed):
            watched(world, Moments(die)).sign()
        world.chain()
        world.clock.advance(timedelta(minutes=1))
        world.anchors().sign()

        assert len(world.chain()) == 2, place
        assert world.pointed() == 2
        world.grow("bob", 2, 2)
        world.anchors().sign()
        assert len(world.chain()) == 3


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

            made.append(watched(world, Moments(meet)).sign())

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

        watched(world, Moments(meet)).sign()
        world.anchors().sign()

        last = world.chain()[-1]
        assert world.pointed() == last.said.seq
        assert last.said.leaves == 3


def test_a_lost_reply_of_the_table_makes_no_second_anchor():
    for place in places():
        world = begun()

        def lose(number: int, now_after: bool, name: str, place: int = place) -> None:
            if (number, now_after, name) == (place, True, "call"):
                raise Unknown("the reply was lost")

        watched(world, Moments(lose)).sign()

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

    watched(world, moments).sign()

    assert world.pointed() == 40
    assert moments.names.count("get") <= 14


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


def shrinking_is_signed() -> None:
    world = begun()
    world.grow("ann", 0, 2)
    with pytest.raises(module.Inconsistent):
        world.anchors().sign()


@pytest.mark.parametrize(
    ("mistake", "promise"),
    [
        (overwriting, test_two_who_anchor_at_once_make_one_anchor),
        (taking_another_s_place, test_two_who_anchor_at_once_make_one_anchor),
        (pointing_first, lambda: test_a_crash_at_any_call_leaves_a_chain_that_goes_on(is_after=False)),
        (never_looking_back, shrinking_is_signed),
    ],
    ids=["overwriting", "taking another's place", "pointing first", "never looking back"],
)
def test_a_planted_mistake_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    mistake: Callable[[pytest.MonkeyPatch], None],
    promise: Callable[[], None],
):
    mistake(monkeypatch)

    with pytest.raises((Exception, pytest.fail.Exception)):
        promise()
