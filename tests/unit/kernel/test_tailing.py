"""What a tail sends, when it goes on, and what it says of what it did not send."""

from typing import Any

import msgspec
import pytest

from holdfast import tailing as module
from holdfast.auth import Principal
from holdfast.broadcast import Undelivered
from holdfast.errors import Denied, Invalid
from holdfast.log.values import partition_of
from holdfast.tailing import BEHIND_MAX, Mark, Run, Tailed, advanced, at
from tests.broadcast_lab import ANN, BroadcastLab

STREAM = "orders/1"
P = partition_of(STREAM)


@pytest.fixture
def lab() -> BroadcastLab:
    return BroadcastLab()


# --- What is sent: pure


def run(first: int, last: int, *, after: int | None = None, stream: str = STREAM) -> Run:
    events = tuple(Tailed(P, position, stream, b'{"n":%d}' % position) for position in range(first, last + 1))
    return Run(P, first - 1 if after is None else after, last, events)


def told(step: tuple[Mark, list[bytes]] | None) -> tuple[Mark, list[Any]]:
    assert step is not None
    return step[0], [msgspec.json.decode(message) for message in step[1]]


def test_each_event_names_the_one_before_it():
    mark, messages = told(advanced(Mark(4, 2), "", run(5, 7)))

    assert mark == Mark(7, 7)
    assert [(each["after"], each["position"]) for each in messages] == [(2, 5), (5, 6), (6, 7)]
    assert messages[0] == {
        "type": "event",
        "partition": P,
        "position": 5,
        "after": 2,
        "stream": STREAM,
        "event": {"n": 5},
    }


def test_what_was_sent_is_not_sent_again():
    assert told(advanced(Mark(6, 6), "", run(5, 7)))[1][0]["position"] == 7
    assert advanced(Mark(7, 7), "", run(5, 7)) is None
    assert advanced(Mark(9, 9), "", run(5, 7)) is None


def test_what_is_not_wanted_is_passed_over_in_silence():
    assert told(advanced(Mark(4, 2), "users/", run(5, 7))) == (Mark(7, 2), [])


def test_a_run_that_begins_too_late_is_a_gap():
    assert told(advanced(Mark(3, 2), "", run(5, 7))) == (
        Mark(7, 7),
        [{"type": "gap", "partition": P, "after": 3}],
    )


def test_who_is_too_far_behind_is_told_of_a_gap():
    assert len(told(advanced(Mark(0, 0), "", run(1, BEHIND_MAX)))[1]) == BEHIND_MAX
    assert told(advanced(Mark(0, 0), "", run(1, BEHIND_MAX + 1)))[1] == [{"type": "gap", "partition": P, "after": 0}]


def test_an_event_that_no_message_can_hold_becomes_a_gap_and_the_next_follows_it():
    large = Tailed(P, 2, STREAM, b'"' + b"x" * (128 * 1024) + b'"')
    events = (*run(1, 1).events, large, *run(3, 3).events)
    mark, messages = told(advanced(Mark(0, 0), "", Run(P, 0, 3, events)))

    assert [each["type"] for each in messages] == ["event", "gap", "event"]
    assert (messages[1]["after"], messages[2]["after"], mark) == (1, 2, Mark(3, 3))


def test_where_a_connection_is_covers_every_partition():
    marks = [Mark(9, 4), Mark(0, 0), Mark(3, 3), Mark(8, 1)]

    assert msgspec.json.decode(at(marks)) == {
        "type": "at",
        "positions": {"0": 9, "1": 0, "2": 3, "3": 8},
        "after": {"0": 4, "1": 0, "2": 3, "3": 1},
    }


# --- Subscribing


def heard(lab: BroadcastLab, connection_id: str = "c1") -> list[tuple[str, Any]]:
    """Give what a connection heard, as (type, position)."""
    return [(each["type"], each.get("position")) for each in lab.post.heard(connection_id)]


def ask(lab: BroadcastLab, connection: Any, message: Any, request_id: str = "r") -> None:
    lab.tailing()(connection, message, request_id=request_id)


def test_a_subscription_begins_now_and_is_answered_with_where_that_is(lab: BroadcastLab):
    lab.log.append(STREAM, b"1", b"2")
    ask(lab, lab.connect(), {"type": "subscribe"})

    [answer] = lab.post.heard("c1")
    assert answer["positions"][str(P)] == answer["after"][str(P)] == 2


def test_a_subscription_from_a_position_brings_what_came_since(lab: BroadcastLab):
    lab.log.append(STREAM, b"1", b"2", b"3")
    ask(lab, lab.connect(), {"type": "subscribe", "after": {str(P): 1}})

    assert heard(lab) == [("event", 2), ("event", 3), ("at", None)]


def test_a_subscription_from_far_back_is_a_gap(lab: BroadcastLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BEHIND_MAX", 2)
    lab.log.append(STREAM, b"1", b"2", b"3")
    ask(lab, lab.connect(), {"type": "subscribe", "after": {str(P): 0}})

    assert heard(lab) == [("gap", None), ("at", None)]


def test_a_subscription_from_beyond_the_end_waits_for_nothing_that_is_not_there(lab: BroadcastLab):
    ask(lab, lab.connect(), {"type": "subscribe", "after": {str(P): 99}})
    lab.post.heard("c1")
    lab.log.append(STREAM, b"1")
    lab.tailing().push("acme", P)

    assert heard(lab) == [("event", 1)]


def test_the_same_request_again_does_not_begin_anew(lab: BroadcastLab):
    connection = lab.connect()
    ask(lab, connection, {"type": "subscribe"}, "r1")
    lab.log.append(STREAM, b"1")
    lab.tailing().push("acme", P)
    lab.post.heard("c1")
    ask(lab, connection, {"type": "subscribe"}, "r1")

    assert heard(lab) == [("at", None)]


def test_another_subscription_of_the_same_connection_replaces_the_first(lab: BroadcastLab):
    connection = lab.listen(prefix="orders/")
    ask(lab, connection, {"type": "subscribe", "prefix": "users/"}, "r2")
    lab.post.heard("c1")
    lab.log.append(STREAM, b"1")
    lab.tailing().push("acme", P)

    assert heard(lab) == []


def test_who_may_not_read_may_not_listen(lab: BroadcastLab):
    connection = lab.connect("c1", Principal("acme", "eve", frozenset({"audit:append"}), "j", expires=2**40))

    with pytest.raises(Denied, match="scope_missing"):
        ask(lab, connection, {"type": "subscribe"})


@pytest.mark.parametrize("prefix", ["x" * 201])
def test_a_prefix_longer_than_a_name_is_refused(lab: BroadcastLab, prefix: str):
    with pytest.raises(Invalid, match="invalid_message"):
        ask(lab, lab.connect(), {"type": "subscribe", "prefix": prefix})


# --- Pushing


def test_everybody_who_wants_it_is_sent_what_is_new_once(lab: BroadcastLab):
    lab.listen("c1", prefix="orders/")
    lab.listen("c2")
    lab.listen("c3", prefix="users/")
    lab.log.append(STREAM, b"1", b"2")

    assert lab.tailing().push("acme", P).sent == 3
    lab.tailing().push("acme", P)

    assert heard(lab, "c1") == heard(lab, "c2") == [("event", 1), ("event", 2)]
    assert heard(lab, "c3") == []


def test_another_tenants_listeners_hear_nothing(lab: BroadcastLab):
    lab.listen("c1", Principal("other", "eve", frozenset({"audit:read"}), "j", expires=2**40))
    lab.log.append(STREAM, b"1")
    lab.tailing().push("acme", P)

    assert heard(lab) == []


def test_where_nobody_listens_nothing_is_read(lab: BroadcastLab):
    lab.listen("c1", prefix="users/")
    lab.log.append(STREAM, b"1", b"2")
    lab.tailing().push("acme", P)
    lab.tailing().push("nobody", P)

    assert lab.log.read == 0


def test_what_was_not_taken_shows_when_the_client_asks_next(lab: BroadcastLab):
    def refuse(_connection_id: str) -> None:
        raise Undelivered("lost on the way")

    connection = lab.listen()
    lab.log.append(STREAM, b"1")
    lab.post.before = refuse
    assert lab.tailing().push("acme", P).failed == 1
    lab.post.before = lambda _connection_id: None
    ask(lab, connection, {"type": "ping"})

    [answer] = lab.post.heard("c1")
    assert answer["after"][str(P)] == 1


def test_who_asks_is_sent_what_nobody_pushed(lab: BroadcastLab):
    asking = [lab.listen("c1"), lab.listen("c2", prefix="users/")]
    lab.log.append(STREAM, b"1")
    for connection in asking:
        ask(lab, connection, {"type": "ping"})

    assert heard(lab, "c1") == [("event", 1), ("at", None)]
    assert heard(lab, "c2") == [("at", None)]


def test_events_that_would_fill_the_memory_are_left_to_be_read(lab: BroadcastLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RUN_BYTES_MAX", 10)
    lab.listen("c1")
    lab.log.append(STREAM, *[b"12345"] * 3)
    lab.tailing().push("acme", P)

    assert heard(lab) == [("gap", None)]


def test_the_connections_of_a_revoked_token_are_sent_nothing(lab: BroadcastLab):
    lab.listen("c1")
    lab.revoked.add(ANN.jti)
    lab.log.append(STREAM, b"1")

    assert lab.tailing().push("acme", P).gone == 1
    assert heard(lab) == [("error", None)]
