"""Reads of history are events where a tenant wants that: one put before the answer, or no answer."""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from functions.audit import adapters, domain
from functions.audit.app import tail, workers
from functions.audit.service.access import Access
from holdfast.broadcast import Broadcast
from holdfast.cloudevents import rendered
from holdfast.dynamodb import Database
from holdfast.dynamodb.transport import Answer, Unknown
from holdfast.errors import Invalid, Unavailable
from holdfast.log import partition_of
from holdfast.switches import KNOWN_FOR
from tests.audit_door import described
from tests.audit_lab import AuditLab, event
from tests.broadcast_lab import MemoryPost
from tests.capacity import Capacity
from tests.log_lab import log_lab

SETTINGS = "/v1/settings"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:inbox"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    audit = AuditLab(log_lab(), monkeypatch)
    audit.append("orders/1", event(1, data={"total": 3}), event(2, data={"total": 4}))
    audit.settle()
    return audit


def turn(audit: AuditLab, *, is_on: bool) -> Any:
    return audit.door.call("PUT", SETTINGS, body={"record_reads": is_on})[:2]


def reads(audit: AuditLab) -> list[Any]:
    """Find what was recorded, without being recorded."""
    found = []
    for row in audit.lab.transport.call("Scan", {"TableName": "commits"}).body["Items"]:
        stream = row["pk"]["S"].split("#", 2)[2]
        if stream.startswith("access/2026"):
            (commit,) = adapters.event_stores().of(audit.lab.tenant, "test").read(stream)
            found.append((stream, commit))
    return sorted(found, key=lambda each: each[1].recorded_at)


def told(audit: AuditLab) -> list[Any]:
    return [rendered(commit)[0] for _, commit in reads(audit)]


ASKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "events": (
        "/v1/streams/{stream}/events",
        "after=1",
        {"stream": "orders/1", "after": 1, "limit": 100, "order": "asc"},
    ),
    "state": ("/v1/streams/{stream}/state", "version=1", {"stream": "orders/1", "version": 1}),
    "diff": ("/v1/streams/{stream}/diff", "from_version=1", {"stream": "orders/1", "from_version": 1}),
    "search": ("/v1/events", "actor=ann", {"actor": "ann", "order": "asc", "limit": 100}),
    "streams": ("/v1/streams", "prefix=orders~", {"prefix": "orders/", "limit": 100}),
    "activity": ("/v1/activity", "from=2026-01-01T00:00:00Z", {"from": "2026-01-01T00:00:00Z", "by": "day"}),
    "log": ("/v1/log/{partition}", "after=0&limit=7", {"partition": "0", "after": 0, "limit": 7}),
    "inclusion": ("/v1/log/{partition}/inclusion", "stream=orders~1&version=1", {"stream": "orders/1", "version": 1}),
    "export": ("/v1/export", "partition=0", {"partition": "0", "from_leaf": 0}),
}


def ask(audit: AuditLab, what: str, request_id: str) -> tuple[int, Any]:
    template, query, _ = ASKED[what]
    parameters = {"stream": "orders~1", "partition": "0"}
    return audit.door.call("GET", template, path=f"x?{query}", parameters=parameters, request_id=request_id)[:2]


def test_nothing_is_recorded_where_nobody_has_turned_it_on(audit):
    for what in ASKED:
        ask(audit, what, f"r-{what}")

    assert reads(audit) == []
    assert audit.door.call("GET", SETTINGS)[1] == {"record_reads": False, "changed_at": None, "changed_by": None}


@pytest.mark.parametrize("what", sorted(ASKED))
def test_who_read_what_and_when_is_an_event(audit, what):
    turn(audit, is_on=True)

    ask(audit, what, "r-1")

    ((stream, commit),) = reads(audit)
    (found,) = told(audit)
    assert (stream, commit.actor) == ("access/2026-01-01/r-1", "ann")
    assert (found["type"], found["actor"]) == ("holdfast.audit.read.v1", "ann")
    assert found["data"]["what"] == what
    assert found["data"]["token_id"] == "j"
    expected = ASKED[what][2]
    assert {name: found["data"]["query"][name] for name in expected} == expected
    assert found.get("subject") == ("orders/1" if "stream" in expected else None)


def test_the_answer_is_the_same_as_without(audit):
    before = {what: ask(audit, what, "r") for what in ("events", "state", "diff")}
    turn(audit, is_on=True)

    assert {what: ask(audit, what, f"r-{what}") for what in before} == before
    assert len(reads(audit)) == 3


UNRECORDED = [
    ("/v1/log", {}),
    ("/v1/log/missing", {}),
    ("/v1/log/{partition}/head", {"partition": "0"}),
    ("/v1/log/{partition}/consistency", {"partition": "0"}),
    ("/v1/anchors/latest", {}),
    ("/v1/keys", {}),
    ("/v1/settings", {}),
    ("/v1/subscriptions/{name}", {"name": "all"}),
    ("/v1/subscriptions/{name}/parked", {"name": "all"}),
    ("/v1/anchors/{seq}", {"seq": "1"}),
    ("/v1/views/{view}/parked", {"view": "events"}),
    ("/v1/rebuilds/{rebuild_id}", {"rebuild_id": "r"}),
    ("/openapi.json", {}),
]
"""They show no event, and nobody who did something to one."""


def test_every_other_route_that_reads_is_recorded(audit):
    recorded = {template for template, _, _ in ASKED.values()}
    reading = {path for path, methods in described().items() if "get" in methods}

    assert reading == recorded | {template for template, _ in UNRECORDED}
    turn(audit, is_on=True)
    for number, (template, parameters) in enumerate(UNRECORDED):
        audit.door.call("GET", template, parameters=parameters, request_id=f"r-{number}")
    assert reads(audit) == []


def test_who_has_events_sent_where_is_recorded_before_they_are(audit, monkeypatch):
    monkeypatch.setenv("HOLDFAST_SUBSCRIPTION_TARGETS", QUEUE)
    turn(audit, is_on=True)
    body = {"target": QUEUE, "types": ["t"], "stream_prefix": "orders/", "from": "start"}
    route = "/v1/subscriptions/{name}"

    assert audit.door.call("PUT", route, body=body, parameters={"name": "all"})[0] == 200

    (found,) = told(audit)
    assert (found["actor"], found["data"]["what"]) == ("ann", "subscription")
    assert found["data"]["query"] == {"name": "all", **body}
    monkeypatch.setattr(audit.lab, "transport", Refusing(audit.lab.transport))
    status, problem, _ = audit.door.call("PUT", route, body=body, parameters={"name": "more"}, request_id="r-2")
    assert (status, problem["code"]) == (503, "not_recorded")
    assert audit.door.call("GET", route, parameters={"name": "more"})[0] == 404


@dataclass
class Socket:
    """A WebSocket at the tail's function."""

    post: MemoryPost

    def say(self, kind: str, message: Any = None, **more: Any) -> int:
        context = {"eventType": kind, "connectionId": "c1", "requestId": "r-tail"}
        body = None if message is None else json.dumps(message)
        answer: int = tail({"requestContext": context, "body": body, **more}, None)["statusCode"]
        return answer


@pytest.fixture
def socket(audit: AuditLab, monkeypatch: pytest.MonkeyPatch) -> Socket:
    """Open one with a ticket."""
    post = MemoryPost(open={"c1"})
    monkeypatch.setattr(adapters, "broadcast", lambda: Broadcast(audit.lab.database(), audit.lab.tables, post))
    monkeypatch.setattr(adapters, "websocket_url", lambda: "wss://example")
    ticket = audit.door.call("POST", "/v1/tickets", request_id="r-ticket")[1]["ticket"]
    socket = Socket(post)
    assert socket.say("CONNECT", queryStringParameters={"ticket": ticket}) == 200
    return socket


def test_who_listens_to_what_from_where_on_is_recorded(audit, socket):
    turn(audit, is_on=True)
    heads = {str(head.partition): head.position for head in audit.lab.log().heads()}
    partition = str(partition_of("orders/1"))

    socket.say("MESSAGE", {"type": "subscribe", "prefix": "orders/", "after": {partition: 1}})

    ((stream, commit),) = reads(audit)
    (found,) = told(audit)
    assert (stream, commit.actor) == ("access/2026-01-01/r-tail", "ann")
    assert found["data"] == {
        "what": "tail",
        "query": {"prefix": "orders/", "after": heads | {partition: 1}},
        "token_id": "j",
    }
    assert [each["type"] for each in socket.post.heard("c1")] == ["event", "at"]


def test_who_cannot_be_recorded_hears_nothing(audit, socket, monkeypatch):
    turn(audit, is_on=True)
    monkeypatch.setattr(audit.lab, "transport", Refusing(audit.lab.transport))

    socket.say("MESSAGE", {"type": "subscribe"})
    socket.say("MESSAGE", {"type": "ping"})

    assert [each["code"] for each in socket.post.heard("c1")] == ["not_recorded", "not_subscribed"]


def stale(audit: AuditLab, request_id: str) -> tuple[int, Any]:
    return audit.door.append([event(9)], 0, stream="orders~1", request_id=request_id)[:2]


def test_a_refused_append_that_shows_the_winner_is_a_read(audit):
    turn(audit, is_on=True)

    assert len(stale(audit, "r-1")[1]["events"]) == 2

    ((stream, commit),) = reads(audit)
    (found,) = told(audit)
    assert (stream, commit.actor, found["subject"]) == ("access/2026-01-01/r-1", "ann", "orders/1")
    assert found["data"] == {
        "what": "winner",
        "query": {"stream": "orders/1", "after": 0, "limit": 2},
        "token_id": "j",
    }


def test_one_that_shows_nothing_is_none(audit):
    turn(audit, is_on=True)
    audit.door.principal = msgspec.structs.replace(
        audit.door.principal, scopes=audit.door.principal.scopes - {"audit:read"}
    )

    assert stale(audit, "r-1")[1]["events_after"] == 0
    assert reads(audit) == []


def test_a_winner_that_cannot_be_recorded_is_not_shown(audit, monkeypatch):
    turn(audit, is_on=True)
    monkeypatch.setattr(audit.lab, "transport", Refusing(audit.lab.transport))

    status, problem = stale(audit, "r-1")

    assert (status, problem["code"]) == (503, "not_recorded")
    assert "events" not in problem


def test_what_is_asked_for_is_bounded_before_it_is_recorded(audit, monkeypatch):
    monkeypatch.setenv("HOLDFAST_SUBSCRIPTION_TARGETS", QUEUE)
    turn(audit, is_on=True)
    route, name = "/v1/subscriptions/{name}", {"name": "all"}
    for body in ({"target": '"' * 2_000_000}, {"target": QUEUE, "types": ['"' * 2_000_000]}):
        status, problem, _ = audit.door.call("PUT", route, body=body, parameters=name)
        assert (status, problem["code"]) == (400, "invalid_body")
    assert reads(audit) == []

    most = {"target": QUEUE, "types": ["\x01" * 512] * 50, "stream_prefix": "o" * 200}
    assert audit.door.call("PUT", route, body=most, parameters=name)[0] == 200
    (found,) = told(audit)
    assert found["data"]["query"]["types"] == most["types"]


def test_a_read_that_no_event_holds_is_refused_for_good(audit):
    turn(audit, is_on=True)

    tenant, clock = audit.lab.tenant, audit.lab.clock
    access = Access(adapters.event_stores().of(tenant, "ann"), adapters.switches(), tenant, clock)

    with pytest.raises(Invalid, match="event_too_large"):
        access.record(domain.Read(tenant, "ann", "token-1", "r-1", "state", {"stream": "x" * 300_000}))

    assert reads(audit) == []


def test_a_recorded_read_is_kept_for_good_with_its_rows(audit):
    def rows() -> dict[str, int]:
        tables = ("commits", "log", "views")
        return {name: len(audit.lab.transport.call("Scan", {"TableName": name}).body["Items"]) for name in tables}

    turn(audit, is_on=True)
    ask(audit, "state", "r-0")
    workers.repair({}, None)
    workers.projector({}, None)
    before = rows()

    ask(audit, "state", "r-1")
    workers.repair({}, None)
    workers.projector({}, None)
    added = {name: count - before[name] for name, count in rows().items()}
    audit.lab.clock.advance(timedelta(days=100))
    workers.archiver({}, None)

    # A segment and a watermark; four rows of `events`, and one of `streams`.
    assert added == {"commits": 1, "log": 2, "views": 5}
    assert len(reads(audit)) == 2
    hot = audit.lab.transport.call("Scan", {"TableName": "commits"}).body["Items"]
    assert sum("#access/2026" in row["pk"]["S"] for row in hot) == 2


def test_what_is_asked_for_in_vain_was_asked_for(audit):
    turn(audit, is_on=True)

    status = audit.door.call("GET", "/v1/streams/{stream}/state", stream="no name", request_id="r-1")[0]

    assert status == 400
    (found,) = told(audit)
    assert found["data"]["query"]["stream"] == "no name"
    assert "subject" not in found


def test_a_read_costs_one_unit_and_one_request_more(audit, monkeypatch):
    turn(audit, is_on=True)
    ask(audit, "state", "r-0")  # what is turned on is known now
    counting = Capacity(audit.lab.transport)
    monkeypatch.setattr(audit.lab, "transport", counting)

    ask(audit, "state", "r-1")

    cost = counting.take()
    assert cost.requests["PutItem"] == 1
    assert cost.writes == {"commits": 1}


class Refusing:
    """A transport that takes no more commits."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def call(self, operation: str, request: Any) -> Answer:
        if operation == "PutItem" and request["TableName"] == "commits":
            raise Unknown("no answer")
        answer: Answer = self.inner.call(operation, request)
        return answer


@pytest.mark.parametrize("what", sorted(ASKED))
def test_a_read_that_cannot_be_recorded_is_not_answered(audit, monkeypatch, what):
    turn(audit, is_on=True)
    monkeypatch.setattr(audit.lab, "transport", Refusing(audit.lab.transport))

    status, problem = ask(audit, what, "r-1")

    assert (status, problem["code"], problem["retryable"]) == (503, "not_recorded", True)


def test_nor_is_one_of_which_nobody_can_say_whether_it_is_to_be_recorded(audit, monkeypatch):
    def refuse(*_: Any) -> None:
        raise Unavailable("store_unavailable", "no answer")

    monkeypatch.setattr(type(audit.switches), "known", refuse)

    assert ask(audit, "state", "r-1")[1]["code"] == "not_recorded"


def test_two_reads_never_share_a_record(audit):
    turn(audit, is_on=True)
    assert ask(audit, "state", "r-1")[0] == 200

    assert ask(audit, "events", "r-1")[1]["code"] == "not_recorded"
    assert len(reads(audit)) == 1


@pytest.mark.parametrize("request_id", ["a/b", "..", "a b", "", "x" * 129])
def test_a_request_id_that_is_no_name_names_a_stream_all_the_same(audit, request_id):
    turn(audit, is_on=True)

    assert ask(audit, "state", request_id)[0] == 200
    assert len(reads(audit)) == 1


def test_turning_it_on_and_off_is_told_and_cannot_be_hidden(audit):
    assert turn(audit, is_on=True)[1]["record_reads"] is True
    assert turn(audit, is_on=True)[0] == 200
    audit.lab.clock.advance(timedelta(seconds=1))
    status, answer = turn(audit, is_on=False)

    assert (status, answer["record_reads"], answer["changed_by"]) == (200, False, "ann")
    events = audit.door.events(stream="access~settings", request_id="r-9")[1]["events"]
    assert [(each["type"], each["actor"], each["data"]) for each in events] == [
        ("holdfast.audit.settings.changed.v1", "ann", {"record_reads": True}),
        ("holdfast.audit.settings.changed.v1", "ann", {"record_reads": False}),
    ]


def test_what_is_turned_off_is_recorded_no_more(audit):
    turn(audit, is_on=True)
    turn(audit, is_on=False)

    ask(audit, "state", "r-1")

    assert reads(audit) == []


def test_another_process_hears_of_it_in_time(audit, monkeypatch):
    mine = audit.switches
    ask(audit, "state", "r-0")
    other = type(mine)(audit.lab.database(), audit.lab.tables)
    monkeypatch.setattr(adapters, "switches", lambda: other)
    turn(audit, is_on=True)
    monkeypatch.setattr(adapters, "switches", lambda: mine)

    audit.lab.clock.advance(KNOWN_FOR + timedelta(seconds=1))
    ask(audit, "state", "r-1")

    assert len(reads(audit)) == 1


class Meddling:
    """A transport through which bob turns it, time and again, just before the next change."""

    def __init__(self, audit: AuditLab, patch: pytest.MonkeyPatch, *wishes: bool) -> None:
        self.audit, self.patch, self.wishes, self.inner = audit, patch, list(wishes), audit.lab.transport

    def call(self, operation: str, request: Any) -> Answer:
        if operation == "TransactWriteItems" and self.wishes:
            wishes, self.wishes = self.wishes, []
            ann = self.audit.door.principal
            self.audit.door.principal = msgspec.structs.replace(ann, subject="bob")
            with self.patch.context() as patch:
                patch.setattr(self.audit.lab, "transport", self.inner)
                assert [turn(self.audit, is_on=is_on)[0] for is_on in wishes] == [200] * len(wishes)
            self.audit.door.principal = ann
        answer: Answer = self.inner.call(operation, request)
        return answer


def switched(audit: AuditLab) -> list[tuple[str, bool]]:
    events = audit.door.events(stream="access~settings", request_id="r-settings")[1]["events"]
    return [(each["actor"], each["data"]["record_reads"]) for each in events]


def test_two_who_turn_it_at_once_tell_each_what_they_did(audit, monkeypatch):
    turn(audit, is_on=True)
    monkeypatch.setattr(audit.lab, "transport", Meddling(audit, monkeypatch, False, True))

    answer = turn(audit, is_on=False)[1]

    assert (answer["record_reads"], answer["changed_by"]) == (False, "ann")
    assert switched(audit) == [("ann", True), ("bob", False), ("bob", True), ("ann", False)]


def test_who_finds_done_what_was_to_be_done_has_done_nothing(audit, monkeypatch):
    monkeypatch.setattr(audit.lab, "transport", Meddling(audit, monkeypatch, True))

    answer = turn(audit, is_on=True)[1]

    assert (answer["record_reads"], answer["changed_by"]) == (True, "bob")
    assert switched(audit) == [("bob", True)]


def test_tenants_turn_their_own(audit):
    turn(audit, is_on=True)
    audit.as_tenant("other")

    assert audit.door.call("GET", SETTINGS)[1]["record_reads"] is False


def test_turning_takes_its_scope(audit):
    scopes = audit.door.principal.scopes - {"audit:admin"}
    audit.door.principal = msgspec.structs.replace(audit.door.principal, scopes=scopes)

    assert turn(audit, is_on=True)[0] == 403
    assert audit.door.call("GET", SETTINGS)[0] == 403


def test_known_switches_are_read_once(audit):
    counting = Capacity(audit.lab.transport)
    switches = type(audit.switches)(Database.connect(counting, audit.lab.clock), audit.lab.tables)
    for _ in range(5):
        switches.known("acme")

    assert counting.take().requests == {"GetItem": 1}
