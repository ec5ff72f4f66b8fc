"""Tickets, connections, topics, frames, and the door in front of them."""

import threading
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from botocore import exceptions as failures

from holdfast.auth import Principal
from holdfast.broadcast import ApiGatewayPost, Broadcast, Gone, Tickets, Undelivered, frames, posting
from holdfast.broadcast.connections import POSTERS_MAX, Connection, Member
from holdfast.broadcast.posting import FRAME_BYTES_MAX, MESSAGE_BYTES_MAX
from holdfast.clock import ManualClock, SystemClock
from holdfast.dynamodb import Database, Tables
from holdfast.errors import Denied
from tests.broadcast_lab import ANN, BroadcastLab, MemoryPost

GIVEN_UP_AFTER_SECONDS = 10.0
BOB = Principal("bobs", "bob", frozenset({"audit:read"}), "jti-bob", expires=2**40)


@pytest.fixture
def lab() -> BroadcastLab:
    return BroadcastLab()


def ending(lab: BroadcastLab, seconds: int) -> Principal:
    """Give who Ann is with a token that ends in some seconds."""
    return msgspec.structs.replace(ANN, expires=int(lab.clock.now().timestamp()) + seconds)


# --- Tickets


def test_a_ticket_names_whom_it_was_issued_to(lab: BroadcastLab):
    ticket = lab.tickets().issue(ANN)

    assert lab.tickets().redeem(ticket, "c1") == ANN


def test_a_ticket_is_used_once(lab: BroadcastLab):
    ticket = lab.tickets().issue(ANN)
    lab.tickets().redeem(ticket, "c1")

    with pytest.raises(Denied, match="ticket_invalid"):
        lab.tickets().redeem(ticket, "c2")


def test_the_same_connection_that_asks_again_is_the_same_use(lab: BroadcastLab):
    ticket = lab.tickets().issue(ANN)
    lab.tickets().redeem(ticket, "c1")
    lab.clock.advance(timedelta(hours=1))

    assert lab.tickets().redeem(ticket, "c1") == ANN


def test_a_ticket_is_good_for_a_minute_and_no_longer(lab: BroadcastLab):
    early, late = lab.tickets().issue(ANN), lab.tickets().issue(ANN)
    lab.clock.advance(timedelta(seconds=59))
    lab.tickets().redeem(early, "c1")
    lab.clock.advance(timedelta(seconds=1))

    with pytest.raises(Denied) as refused:
        lab.tickets().redeem(late, "c2")
    assert refused.value.http_status == 401


def test_a_ticket_is_good_for_no_longer_than_the_token_it_was_asked_for_with(lab: BroadcastLab):
    early, late = (lab.tickets().issue(ending(lab, 5)) for _ in range(2))
    lab.clock.advance(timedelta(seconds=4))
    assert lab.tickets().redeem(early, "c1").jti == ANN.jti
    lab.clock.advance(timedelta(seconds=1))

    with pytest.raises(Denied, match="ticket_invalid"):
        lab.tickets().redeem(late, "c2")


@pytest.mark.parametrize("ticket", ["", "x", "x" * 10_000, "ü", "TK#"])
def test_what_is_no_ticket_opens_nothing(lab: BroadcastLab, ticket: str):
    with pytest.raises(Denied, match="ticket_invalid"):
        lab.tickets().redeem(ticket, "c1")
    assert lab.rows() == []


def test_the_ticket_itself_is_stored_nowhere(lab: BroadcastLab):
    ticket = lab.tickets().issue(ANN)

    assert ticket not in str(lab.transport.call("Scan", {"TableName": lab.table}).body)
    assert len(ticket) == 43


# --- Connections and topics


def test_a_connection_is_known_until_it_is_forgotten(lab: BroadcastLab):
    broadcast = lab.broadcast()
    made = lab.connect()
    broadcast.connect("c1", ANN)

    assert broadcast.connection("c1") == made
    broadcast.forget("c1")
    broadcast.forget("c1")
    assert broadcast.connection("c1") is None


def test_forgetting_a_connection_leaves_no_row_of_it(lab: BroadcastLab):
    broadcast = lab.broadcast()
    ann, bob = lab.connect("c1"), lab.connect("c2", BOB)
    for topic in ("one", "two"):
        broadcast.subscribe(ann, topic, {}, request_id="r")
        broadcast.subscribe(bob, topic, {}, request_id="r")

    broadcast.forget("c1")

    assert {sk for _, sk in lab.rows()} & {"c1"} == set()
    assert not [pk for pk, _ in lab.rows() if "c1" in pk]
    assert len(lab.rows()) == 5


def test_a_message_reaches_the_members_of_its_topic_and_tenant_alone(lab: BroadcastLab):
    broadcast = lab.broadcast()
    for name, principal, topic in (("c1", ANN, "a"), ("c2", ANN, "b"), ("c3", BOB, "a")):
        broadcast.subscribe(lab.connect(name, principal), topic, {}, request_id="r")

    delivery = broadcast.publish("acme", "a", [b'{"n":1}', b'{"n":2}'])

    assert delivery.sent == 1
    assert lab.post.heard("c1") == [{"n": 1}, {"n": 2}]
    assert not lab.post.taken


def test_who_unsubscribed_hears_no_more(lab: BroadcastLab):
    broadcast = lab.broadcast()
    ann = lab.connect()
    broadcast.subscribe(ann, "a", {}, request_id="r")
    broadcast.unsubscribe(ann, "a")
    broadcast.unsubscribe(ann, "a")

    assert broadcast.publish("acme", "a", [b"1"]).sent == 0
    assert broadcast.connection("c1") == ann


def test_subscribing_again_begins_anew_and_repeating_a_request_does_not(lab: BroadcastLab):
    broadcast, ann = lab.broadcast(), lab.connect()
    first = broadcast.subscribe(ann, "a", {"prefix": "x"}, request_id="r1")
    repeated = broadcast.subscribe(ann, "a", {"prefix": "x"}, request_id="r1")
    second = broadcast.subscribe(ann, "a", {"prefix": "y"}, request_id="r2")

    assert repeated == first
    assert (second.epoch, second.attributes["prefix"]) == (2, "y")
    assert broadcast.member(ann, "a") == second


def test_a_connection_that_is_gone_is_forgotten_and_the_others_are_served(lab: BroadcastLab):
    broadcast = lab.broadcast()
    for name in ("c1", "c2", "c3"):
        broadcast.subscribe(lab.connect(name), "a", {}, request_id="r")
    lab.post.open.remove("c2")

    delivery = broadcast.publish("acme", "a", [b"1"])

    assert (delivery.sent, delivery.gone) == (2, 1)
    assert [member.connection.id for member in broadcast.members("acme", "a")] == ["c1", "c3"]
    assert broadcast.connection("c2") is None


def test_a_member_whose_connection_no_row_tells_of_is_forgotten_too(lab: BroadcastLab):
    broadcast = lab.broadcast()
    ann = lab.connect()
    lab.post.open.clear()
    broadcast.forget("c1")
    broadcast.subscribe(ann, "a", {}, request_id="late")

    assert broadcast.publish("acme", "a", [b"1"]).gone == 1
    assert lab.rows() == []


def test_a_frame_that_is_not_taken_is_told_and_forgets_nobody(lab: BroadcastLab):
    def refuse(_connection_id: str) -> None:
        raise Undelivered("throttled")

    broadcast = lab.broadcast()
    broadcast.subscribe(lab.connect(), "a", {}, request_id="r")
    lab.post.before = refuse

    assert broadcast.publish("acme", "a", [b"1"]).failed == 1
    assert broadcast.connection("c1") is not None


def codes(lab: BroadcastLab, connection_id: str = "c1") -> list[str]:
    return [message["code"] for message in lab.post.heard(connection_id)]


def test_the_connections_of_a_revoked_token_are_told_so_and_closed(lab: BroadcastLab):
    broadcast = lab.broadcast()
    broadcast.subscribe(lab.connect(), "a", {}, request_id="r")
    lab.revoked.add(ANN.jti)

    assert broadcast.publish("acme", "a", [b"1"]).gone == 1
    assert codes(lab) == ["token_revoked"]
    assert lab.post.open == set()
    assert lab.rows() == []


def test_a_connection_ends_with_its_token(lab: BroadcastLab):
    broadcast = lab.broadcast()
    broadcast.subscribe(lab.connect("c1", ending(lab, 60)), "a", {}, request_id="r")
    broadcast.subscribe(lab.connect("c2", ending(lab, 61)), "a", {}, request_id="r")
    lab.clock.advance(timedelta(seconds=60))

    delivery = broadcast.publish("acme", "a", [b'{"n":1}'])

    assert (delivery.sent, delivery.gone) == (1, 1)
    assert codes(lab, "c1") == ["token_expired"]
    assert lab.post.heard("c2") == [{"n": 1}]
    assert lab.post.open == {"c2"}
    assert not [row for row in lab.rows() if "c1" in str(row)]


@pytest.mark.parametrize("trouble", [Gone, Undelivered])
def test_who_cannot_be_told_why_is_closed_all_the_same(lab: BroadcastLab, trouble: type[Exception]):
    def refuse(_connection_id: str) -> None:
        raise trouble

    broadcast = lab.broadcast()
    broadcast.subscribe(lab.connect("c1", ending(lab, 1)), "a", {}, request_id="r")
    lab.clock.advance(timedelta(seconds=1))
    lab.post.before = refuse

    assert broadcast.publish("acme", "a", [b"1"]).gone == 1
    assert lab.post.open == set()
    assert lab.rows() == []


def test_a_connection_over_its_time_is_not_served(lab: BroadcastLab):
    broadcast = lab.broadcast()
    broadcast.subscribe(lab.connect(), "a", {}, request_id="r")
    lab.clock.advance(timedelta(hours=2, minutes=10))

    assert broadcast.publish("acme", "a", [b"1"]).gone == 1
    assert broadcast.connection("c1") is None


# --- Many at a time


class Waiting(MemoryPost):
    """A post that takes a slow connection's frame only when all others have theirs."""

    others: threading.Event

    def send(self, connection_id: str, frame: bytes) -> None:
        if connection_id == "slow":
            assert self.others.wait(GIVEN_UP_AFTER_SECONDS), "the others wait for it"
        super().send(connection_id, frame)
        if len(self.taken) == len(self.open) - 1:
            self.others.set()


def member(name: str) -> Member:
    return Member(Connection(name, ANN, expires=2**40), "a", 1, {})


def no_tables(post: MemoryPost, clock: Any, posters: int = POSTERS_MAX) -> Broadcast:
    return Broadcast(Database.connect(Nowhere(), clock), Tables("", ""), post, posters=posters)


class Nowhere:
    def call(self, operation: str, request: Any) -> Any:
        raise AssertionError("nothing is read or written here")


def test_a_slow_connection_holds_up_no_other():
    members = [member("slow"), *(member(f"c{n}") for n in range(50))]
    post = Waiting({each.connection.id for each in members})
    post.others = threading.Event()

    assert no_tables(post, SystemClock()).deliver(members, lambda _member: [b"1"]).sent == 51


def test_one_publication_ends_in_time_and_tells_whom_it_did_not_reach():
    members, clock = [member(f"c{n}") for n in range(64)], ManualClock()
    post = MemoryPost({each.connection.id for each in members})
    post.before = lambda _name: clock.advance(timedelta(seconds=1))

    delivery = no_tables(post, clock, posters=1).deliver(members, lambda _member: [b"1"])

    assert (delivery.sent, delivery.skipped) == (10, 54)


# --- Frames


def test_messages_share_frames_in_order_and_none_is_cut():
    messages = [bytes([65 + n % 26]) * (n * 97 % 3_000) for n in range(400)]
    made = list(frames(messages))

    assert [line for frame in made for line in frame.split(b"\n")] == messages
    assert all(len(frame) <= FRAME_BYTES_MAX for frame in made)
    assert len(made) < 25


def test_a_message_over_a_frame_travels_alone_and_one_over_the_limit_not_at_all():
    large = b"x" * MESSAGE_BYTES_MAX

    assert list(frames([b"a", large, b"b"])) == [b"a", large, b"b"]
    with pytest.raises(ValueError, match="131073"):
        list(frames([large + b"x"]))


def test_a_full_frame_is_exactly_full():
    half = b"x" * (FRAME_BYTES_MAX // 2)

    assert [len(frame) for frame in frames([half, half[1:]])] == [FRAME_BYTES_MAX]
    assert len(list(frames([half, half]))) == 2


# --- API Gateway's management API


class Management:
    """What the management API answers, one attempt after the other; None is a success."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def post_to_connection(self, **request: Any) -> None:
        self._answer("post", request)

    def delete_connection(self, **request: Any) -> None:
        self._answer("delete", request)

    def _answer(self, operation: str, request: dict[str, Any]) -> None:
        self.asked.append((operation, request))
        answer = self.answers.pop(0)
        if answer:
            raise answer


def status(code: int) -> failures.ClientError:
    return failures.ClientError({"ResponseMetadata": {"HTTPStatusCode": code}}, "PostToConnection")  # type: ignore[typeddict-item]


def api_gateway(monkeypatch: pytest.MonkeyPatch, management: Management) -> ApiGatewayPost:
    monkeypatch.setattr(posting, "client", lambda _name, endpoint_url: management)
    return ApiGatewayPost("http://nowhere", ManualClock())


def test_a_frame_is_posted_as_it_is(monkeypatch: pytest.MonkeyPatch):
    management = Management(None)
    api_gateway(monkeypatch, management).send("c1", b"frame")

    assert management.asked == [("post", {"ConnectionId": "c1", "Data": b"frame"})]


@pytest.mark.parametrize("passing", [status(429), status(500), failures.ReadTimeoutError(endpoint_url="x")])
def test_what_passes_is_tried_again(monkeypatch: pytest.MonkeyPatch, passing: Exception):
    management = Management(passing, passing, None)
    api_gateway(monkeypatch, management).send("c1", b"frame")

    assert len(management.asked) == 3


def test_a_frame_is_offered_only_so_often(monkeypatch: pytest.MonkeyPatch):
    management = Management(*[status(429)] * 9)

    with pytest.raises(Undelivered):
        api_gateway(monkeypatch, management).send("c1", b"frame")
    assert len(management.asked) == 3


def test_a_connection_that_is_gone_is_told_apart(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Gone):
        api_gateway(monkeypatch, Management(status(410))).send("c1", b"frame")


@pytest.mark.parametrize("code", [403, 413])
def test_a_fault_of_ours_is_not_taken_for_one_that_passes(monkeypatch: pytest.MonkeyPatch, code: int):
    with pytest.raises(failures.ClientError):
        api_gateway(monkeypatch, Management(status(code))).send("c1", b"frame")


@pytest.mark.parametrize("answer", [None, status(410), status(500)])
def test_closing_is_no_error_whatever_it_meets(monkeypatch: pytest.MonkeyPatch, answer: Exception | None):
    management = Management(answer)
    api_gateway(monkeypatch, management).close("c1")

    assert management.asked == [("delete", {"ConnectionId": "c1"})]


# --- The door


def event(kind: str, connection_id: str = "c1", **members: Any) -> dict[str, Any]:
    return {
        "requestContext": {"eventType": kind, "connectionId": connection_id, "requestId": "r1", "routeKey": "x"},
        **members,
    }


def opening(ticket: str, connection_id: str = "c1") -> dict[str, Any]:
    return event("CONNECT", connection_id, queryStringParameters={"ticket": ticket})


def test_a_ticket_opens_the_door_once(lab: BroadcastLab):
    ticket = lab.tickets().issue(ANN)

    assert lab.door()(opening(ticket)) == {"statusCode": 200}
    assert lab.door()(opening(ticket, "c2")) == {"statusCode": 403}
    assert lab.broadcast().connection("c1").principal == ANN  # type: ignore[union-attr]
    assert lab.broadcast().connection("c2") is None


@pytest.mark.parametrize("query", [None, {}, {"ticket": ""}, {"other": "x"}])
def test_without_a_ticket_the_door_stays_shut(lab: BroadcastLab, query: dict[str, str] | None):
    assert lab.door()(event("CONNECT", queryStringParameters=query)) == {"statusCode": 403}


def test_who_leaves_is_forgotten(lab: BroadcastLab):
    lab.listen()

    assert lab.door()(event("DISCONNECT")) == {"statusCode": 200}
    assert lab.rows() == []


def test_what_a_connection_says_after_its_token_has_ended_is_not_heard(lab: BroadcastLab):
    lab.door()(opening(lab.tickets().issue(ending(lab, 30))))
    lab.post.open.add("c1")
    lab.door()(event("MESSAGE", body='{"type":"subscribe"}'))
    lab.post.heard("c1")
    lab.clock.advance(timedelta(seconds=30))

    assert lab.door()(event("MESSAGE", body='{"type":"ping"}')) == {"statusCode": 200}
    assert codes(lab) == ["token_expired"]
    assert lab.post.open == set()
    assert not [pk for pk, _ in lab.rows() if not pk.startswith("TK#")]


def test_a_connection_that_nobody_knows_is_closed(lab: BroadcastLab):
    lab.post.open.add("c9")

    assert lab.door()(event("MESSAGE", "c9", body="{}")) == {"statusCode": 200}
    assert lab.post.open == set()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "malformed_json"),
        ("nonsense", "malformed_json"),
        ('{"type":"subscribe","type":"ping"}', "not_i_json"),
        ("[]", "invalid_message"),
        ('{"type":"shout"}', "invalid_message"),
        ('{"type":"subscribe","prefix":1}', "invalid_message"),
        ('{"type":"subscribe","after":{"4":1}}', "invalid_message"),
        ('{"type":"subscribe","after":{"0":-1}}', "invalid_message"),
        ('{"type":"subscribe","other":1}', "invalid_message"),
        ('{"type":"ping"}', "not_subscribed"),
        ('"' + "x" * MESSAGE_BYTES_MAX + '"', "invalid_message"),
    ],
)
def test_a_message_that_cannot_be_followed_is_answered_with_the_reason(lab: BroadcastLab, body: str, code: str):
    lab.connect()

    assert lab.door()(event("MESSAGE", body=body)) == {"statusCode": 200}
    [told] = lab.post.heard("c1")
    assert (told["type"], told["code"], told["request_id"]) == ("error", code, "r1")


def test_a_bug_behind_the_door_tells_nobody_its_text(lab: BroadcastLab, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("an inner secret")

    monkeypatch.setattr(Tickets, "redeem", fail)

    assert lab.door()(opening("x")) == {"statusCode": 500}


def test_what_the_door_says_is_json(lab: BroadcastLab):
    lab.connect()
    lab.door()(event("MESSAGE", body="{}"))

    assert msgspec.json.decode(lab.post.taken["c1"][0])["retryable"] is False
