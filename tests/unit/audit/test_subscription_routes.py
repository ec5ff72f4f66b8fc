"""Subscriptions through the door, and the function that moves them."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cloudevents.v1.http import from_json

from functions.audit.app import workers
from holdfast.errors import Unavailable
from holdfast.log import PARTITIONS, partition_of
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab

ONE = "/v1/subscriptions/{name}"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:inbox"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:news"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    monkeypatch.setenv("HOLDFAST_SUBSCRIPTION_TARGETS", f"{QUEUE}*,{TOPIC}")
    return AuditLab(log_lab(), monkeypatch)


def ask(audit: AuditLab, method: str, template: str = ONE, body: Any = None, name: str = "all", query: str = "") -> Any:
    return audit.door.call(method, template, body=body, parameters={"name": name}, path=f"x?{query}")[:2]


def subscribe(audit: AuditLab, **settings: Any) -> Any:
    return ask(audit, "PUT", body={"target": QUEUE, "from": "start", **settings})


def told(audit: AuditLab, kind: str) -> list[Any]:
    return [each for each in audit.outbox.published if each["type"] == f"holdfast.audit.{kind}.v1"]


def sent(audit: AuditLab, target: str = QUEUE) -> list[Any]:
    return [json.loads(message.body) for message in audit.outbox.sent[target]]


def sweep(audit: AuditLab) -> None:
    audit.lab.clock.advance(timedelta(minutes=10))
    workers.subscriber({}, None)


def test_a_subscription_is_made_read_changed_and_ended(audit):
    status, made = subscribe(audit, types=["t"], stream_prefix="orders/")

    assert status == 200
    assert (made["name"], made["target"], made["types"], made["stream_prefix"]) == ("all", QUEUE, ["t"], "orders/")
    assert (made["from"], made["created_by"], made["parked"]) == ("start", "ann", 0)
    assert [each["partition"] for each in made["partitions"]] == list(range(PARTITIONS))
    assert ask(audit, "GET") == (200, made)

    status, changed = subscribe(audit, target=TOPIC)
    assert (status, changed["target"], changed["types"], changed["created_at"]) == (200, TOPIC, [], made["created_at"])

    assert ask(audit, "DELETE") == (204, None)
    status, problem = ask(audit, "GET")
    assert (status, problem["code"]) == (404, "subscription_not_found")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"target": "arn:aws:sqs:eu-central-1:123456789012:other"}, 403, "target_not_allowed"),
        ({"target": "arn:aws:lambda:eu-central-1:123456789012:function:x"}, 400, "invalid_target"),
        ({"target": QUEUE, "from": "yesterday"}, 400, "invalid_body"),
        ({"target": QUEUE, "stream_prefix": "a b"}, 400, "invalid_subscription"),
        ({"target": QUEUE, "types": [""]}, 400, "invalid_subscription"),
        ({"target": QUEUE, "types": ["t"] * 51}, 400, "invalid_body"),
        ({"target": QUEUE, "types": ["t" * 513]}, 400, "invalid_body"),
        ({"target": QUEUE, "types": ["é" * 257]}, 400, "invalid_subscription"),
        ({"target": QUEUE, "stream_prefix": "o" * 201}, 400, "invalid_body"),
        ({"target": QUEUE + "x" * 400}, 400, "invalid_body"),
        ({"target": QUEUE, "tenant": "other"}, 400, "unknown_field"),
        ({}, 400, "invalid_body"),
    ],
)
def test_what_cannot_be_subscribed_to_is_refused(audit, body, status, code):
    answer = ask(audit, "PUT", body=body)

    assert (answer[0], answer[1]["code"]) == (status, code)


@pytest.mark.parametrize("path", [ONE, f"{ONE}/parked"])
@pytest.mark.parametrize(("name", "status"), [("none", 404), ("a%20b", 400)])
def test_what_is_not_there_is_not_found(audit, path, name, status):
    assert ask(audit, "GET", path, name=name)[0] == status


def test_another_tenants_subscription_is_not_there(audit):
    subscribe(audit)
    audit.as_tenant("other")

    assert ask(audit, "GET")[0] == 404
    assert ask(audit, "DELETE")[0] == 404
    assert ask(audit, "POST", f"{ONE}/redrive")[0] == 404


def test_events_arrive_as_a_stranger_parses_them(audit):
    subscribe(audit)
    audit.append("orders/1", event(1, subject="o1", data={"total": 3}), event(2, shredkey="ann", data={"a": 1}))
    audit.index()

    workers.subscriber({}, None)

    first, second = (from_json(message.body) for message in audit.outbox.sent[QUEUE])
    assert (first["id"], first["subject"], first["streamversion"], first.data) == ("1", "o1", 1, {"total": 3})
    assert (second["streamversion"], second.data) == (2, {"a": 1})
    assert first["tenant"] == second["tenant"] == audit.lab.tenant
    assert sent(audit)[0] == {**audit.door.events()[1]["events"][0], "tenant": audit.lab.tenant}


def test_an_erased_event_arrives_without_its_content_and_says_so(audit):
    audit.append("orders/1", event(1, shredkey="ann", data={"secret": "Lindenstrasse"}))
    audit.index()
    audit.door.call("POST", "/v1/subjects/{subject}/erasure", body={"reason": "asked"}, parameters={"subject": "ann"})
    audit.lab.clock.advance(timedelta(minutes=2))
    subscribe(audit)

    workers.subscriber({}, None)

    (found,) = (each for each in sent(audit) if each["source"] == "urn:test")
    assert (found["erased"], "data" in found, "data_base64" in found) == (True, False, False)
    assert "Lindenstrasse" not in json.dumps(sent(audit))


def test_a_record_of_the_log_moves_the_tenants_subscriptions_along_its_partition(audit):
    subscribe(audit)
    audit.append("orders/1", event(1))
    audit.index()
    keys = {"pk": {"S": f"L#{audit.lab.tenant}#{partition_of('orders/1')}"}, "sk": {"S": f"{1:016d}"}}

    workers.subscriber({"Records": [{"eventName": "INSERT", "dynamodb": {"Keys": keys}}]}, None)

    assert [each["id"] for each in sent(audit)] == ["1"]


def test_a_stream_that_stands_still_is_seen_parked_told_of_and_let_go_on(audit):
    subscribe(audit)
    audit.append("orders/1", event(1))
    audit.append("orders/2", event(2))
    audit.index()
    audit.outbox.refusal = lambda _, message: "poison" if '"id":"1"' in message.body else None

    workers.subscriber({}, None)
    status, found = ask(audit, "GET", f"{ONE}/parked")
    (item,) = found["items"]
    assert status == 200
    assert (item["stream"], item["version"], item["attempts"], item["is_parked"]) == ("orders/1", 1, 1, False)
    assert item["due_at"] > "2026"

    for _ in range(6):
        sweep(audit)
    (item,) = ask(audit, "GET", f"{ONE}/parked")[1]["items"]
    assert (item["attempts"], item["is_parked"], item["due_at"], item["reason"]) == (5, True, None, "poison")
    assert ask(audit, "GET")[1]["parked"] == 1
    (parked,) = told(audit, "subscription.parked")
    assert (parked["tenant"], parked["data"]["stream"], parked["data"]["version"]) == (audit.lab.tenant, "orders/1", 1)

    audit.outbox.refusal = lambda *_: None
    sweep(audit)
    assert [each["id"] for each in sent(audit)] == ["2"]
    assert ask(audit, "POST", f"{ONE}/redrive", query="stream=orders~1") == (202, {"redriven": ["orders/1"]})
    sweep(audit)
    assert [each["id"] for each in sent(audit)] == ["2", "1"]
    assert ask(audit, "GET", f"{ONE}/parked") == (200, {"items": []})
    assert ask(audit, "POST", f"{ONE}/redrive") == (202, {"redriven": []})
    assert ask(audit, "POST", f"{ONE}/redrive", query="stream=orders~1")[1]["code"] == "not_parked"


def test_a_bus_that_does_not_answer_delays_what_is_told_and_nothing_else(audit, monkeypatch):
    subscribe(audit)
    audit.append("orders/1", event(1))
    audit.append("orders/2", event(2))
    audit.index()
    audit.outbox.refusal = lambda _, message: "poison" if '"id":"1"' in message.body else None

    def refuse(*_: Any) -> None:
        raise Unavailable("bus_unavailable", "no answer")

    with monkeypatch.context() as patch:
        patch.setattr(audit.outbox, "publish", refuse)
        for _ in range(8):
            sweep(audit)
    assert ask(audit, "GET")[1]["parked"] == 1
    sweep(audit)
    sweep(audit)

    assert len(told(audit, "subscription.parked")) == 1
    assert [each["id"] for each in sent(audit)] == ["2"]


def test_subscribing_takes_its_scope(audit):
    principal = audit.door.principal
    audit.door.principal = msgspec.structs.replace(principal, scopes=principal.scopes - {"audit:subscribe"})

    for method, path in (
        ("PUT", ONE),
        ("GET", ONE),
        ("DELETE", ONE),
        ("GET", f"{ONE}/parked"),
        ("POST", f"{ONE}/redrive"),
    ):
        body = {"target": QUEUE} if method == "PUT" else None
        assert ask(audit, method, path, body)[0] == 403
