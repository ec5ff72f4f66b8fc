"""What is counted for alarms: what nobody foresaw, what is held up, and what stands still for as long as it does."""

import json
from datetime import timedelta
from typing import Any

import pytest

from functions.audit import adapters, domain
from functions.audit.app import tail, workers
from holdfast.broadcast import Broadcast, Tickets
from holdfast.errors import Unavailable
from holdfast.log import partition_of
from holdfast.projections import Projector
from tests.audit_lab import AuditLab, event
from tests.broadcast_lab import MemoryPost
from tests.log_lab import log_lab

QUEUE = "arn:aws:sqs:eu-central-1:123456789012:inbox"
SUBSCRIPTION = "/v1/subscriptions/{name}"


class Measured:
    """What was measured since somebody asked last, by name."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured

    def take(self, name: str) -> list[float]:
        lines = [json.loads(line) for line in self._captured.readouterr().out.splitlines()]
        return [value for line in lines if "_aws" in line for value in line.get(name, [])]


@pytest.fixture
def measured(capsys: pytest.CaptureFixture[str]) -> Measured:
    return Measured(capsys)


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    monkeypatch.setenv("HOLDFAST_SUBSCRIPTION_TARGETS", QUEUE)
    return AuditLab(log_lab(), monkeypatch)


def break_down(*_: Any) -> None:
    raise KeyError("a bug")


def titles(audit: AuditLab) -> list[str]:
    return [item["stream"] for item in audit.get("/v1/streams")[1]["items"]]


# ----- what nobody foresaw


def test_a_request_that_meets_a_bug_is_counted_and_one_that_is_to_be_repeated_is_not(audit, monkeypatch, measured):
    audit.append("orders/1", event(1))
    partition = {"partition": str(partition_of("orders/1"))}
    too_early = audit.get("/v1/log/{partition}/inclusion", "stream=orders~1&version=1", parameters=partition)
    assert (too_early[0], too_early[1]["code"]) == (503, "not_in_log_yet")
    assert measured.take("UnexpectedErrors") == []

    monkeypatch.setattr(adapters, "views_of", break_down)

    assert audit.get("/v1/streams")[1]["code"] == "internal"
    assert measured.take("UnexpectedErrors") == [1.0]


def test_so_is_what_happens_to_a_tail(audit, monkeypatch, measured):
    monkeypatch.setattr(adapters, "broadcast", lambda: Broadcast(audit.lab.database(), audit.lab.tables, MemoryPost()))
    context = {"eventType": "CONNECT", "connectionId": "c1", "requestId": "r"}
    handshake = {"requestContext": context, "queryStringParameters": {"ticket": "none"}}
    assert tail(handshake, None) == {"statusCode": 403}
    assert measured.take("UnexpectedErrors") == []

    monkeypatch.setattr(Tickets, "redeem", break_down)

    assert tail(handshake, None) == {"statusCode": 500}
    assert measured.take("UnexpectedErrors") == [1.0]


# ----- what is held up


@pytest.mark.parametrize("is_sweep", [False, True])
def test_one_tenants_trouble_holds_up_no_other_and_is_counted_until_it_is_over(audit, monkeypatch, measured, is_sweep):
    mine = audit.lab.tenant
    for tenant in (mine, "other"):
        audit.as_tenant(tenant)
        audit.append("orders/1", event(1))
    workers.repair({}, None)
    project = Projector.project

    def refuse(self: Projector, tenant: str, partition: int) -> None:
        if tenant == mine:
            raise Unavailable("bus_unavailable", "no answer")
        project(self, tenant, partition)

    with monkeypatch.context() as patch:
        patch.setattr(Projector, "project", refuse)
        workers.projector({} if is_sweep else audit.segments(), None)

    assert titles(audit) == ["orders/1"]
    audit.as_tenant(mine)
    assert titles(audit) == []
    assert measured.take("ViewsHeldUp") == [1.0]

    workers.projector({}, None)

    assert titles(audit) == ["orders/1"]
    assert measured.take("ViewsHeldUp") == []


# ----- what stands still


def test_streams_that_a_read_model_cannot_take_are_counted_each_minute_until_they_go_on(audit, monkeypatch, measured):
    with monkeypatch.context() as patch:
        patch.setattr(domain.views.Streams, "change", break_down)
        for stream in ("orders/1", "orders/2", "orders/3"):
            audit.append(stream, event(1))
        audit.settle()
    for _ in range(2):
        workers.projector({}, None)
    assert measured.take("ParkedStreams") == [3.0, 3.0]

    audit.door.call("POST", "/v1/views/{view}/redrive", parameters={"view": "streams"})

    workers.projector({}, None)
    assert measured.take("ParkedStreams") == [0.0]
    workers.projector(audit.segments(), None)
    assert measured.take("ParkedStreams") == []


def test_a_read_model_that_has_to_be_rebuilt_is_counted_and_one_to_be_made_is_not(audit, monkeypatch, measured):
    newer = type("Newer", (domain.views.Streams,), {"version": 3})()
    audit.append("orders/1", event(1))
    audit.settle()
    monkeypatch.setattr(domain, "VIEWS", (domain.EVENTS, newer, domain.ACTIVITY))
    audit.as_tenant("other")
    audit.append("orders/1", event(1))
    workers.repair({}, None)

    for _ in range(2):
        workers.projector({}, None)

    assert measured.take("OutdatedViews") == [1.0, 1.0]


def test_streams_that_a_subscriber_cannot_take_are_counted_each_minute_until_they_go_on(audit, measured):
    def sweep() -> None:
        audit.lab.clock.advance(timedelta(minutes=10))
        workers.subscriber({}, None)

    audit.door.call("PUT", SUBSCRIPTION, body={"target": QUEUE, "from": "start"}, parameters={"name": "all"})
    audit.append("orders/1", event(1))
    audit.append("orders/2", event(2))
    audit.index()
    audit.outbox.refusal = lambda *_: "poison"
    for _ in range(5):
        sweep()
    assert measured.take("ParkedStreams") == [0.0] * 5

    for _ in range(2):
        sweep()
    assert measured.take("ParkedStreams") == [2.0, 2.0]

    audit.outbox.refusal = lambda *_: None
    audit.door.call("POST", f"{SUBSCRIPTION}/redrive", parameters={"name": "all"})
    sweep()
    assert measured.take("ParkedStreams") == [0.0]
    workers.subscriber(audit.segments(), None)
    assert measured.take("ParkedStreams") == []
