"""Whatever is done with content that is sealed, no log line shows it, at whatever level, nor where it goes wrong."""

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from functions.audit.app import workers
from functions.audit.domain import views
from holdfast import telemetry
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab

SAMPLE = json.loads((Path(__file__).parents[3] / "events/audit/intake-messages.json").read_text())
SECRET = "Lindenstrasse 12"
SEALED: dict[str, Any] = {"shredkey": "customers/7", "data": {"address": SECRET}}
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:inbox"
SUBSCRIPTION = "/v1/subscriptions/{name}"
ERASURE = "/v1/subjects/{subject}/erasure"


class Lines:
    """All that this process writes down: to its own logger, and by whatever library, to any other."""

    def __init__(self, captured: pytest.CaptureFixture[str], others: pytest.LogCaptureFixture) -> None:
        self._captured = captured
        self._others = others
        self._written = ""

    @property
    def text(self) -> str:
        out, err = self._captured.readouterr()
        self._written += out + err
        return self._written + self._others.text

    @property
    def messages(self) -> set[str]:
        return {json.loads(line).get("message") for line in self.text.splitlines() if line.startswith("{")}


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    logger = telemetry.logger()
    before = logger.log_level
    logger.setLevel("DEBUG")
    caplog.set_level("DEBUG")
    yield Lines(capsys, caplog)
    logger.setLevel(before)


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    monkeypatch.setenv("HOLDFAST_SUBSCRIPTION_TARGETS", QUEUE)
    return AuditLab(log_lab(), monkeypatch)


def told(**more: Any) -> dict[str, Any]:
    """A message of another service, as the queue hands it over."""
    envelope = json.loads(SAMPLE["Records"][0]["body"])
    envelope["detail"] |= SEALED | more
    return {"Records": [{**SAMPLE["Records"][0], "body": json.dumps(envelope)}]}


def go_through(audit: AuditLab) -> None:
    """Do all that can be done with sealed content, and much that cannot."""
    door = audit.door
    key: dict[str, Any] = {"headers": {"idempotency-key": "k"}}
    audit.append("orders/1", event(1, **SEALED), event(2, data={"total": 3}))
    for status, events in ((201, [event(3, **SEALED)]), (201, [event(3, **SEALED)]), (422, [event(4, **SEALED)])):
        assert door.append(events, "any", **key)[0] == status
    assert door.append([event(5, **SEALED)], 1)[0] == 409
    assert door.append([event(5, **SEALED | {"time": SECRET})])[0] == 400
    assert door.append([event(5, **SEALED | {SECRET: SECRET})])[0] == 400
    assert door.call("POST", "/v1/streams/{stream}/events", raw=f'{{"{SECRET}'.encode(), stream="orders~1")[0] == 400
    subscription = {"target": QUEUE, "from": "start"}
    assert door.call("PUT", SUBSCRIPTION, body=subscription, parameters={"name": "all"})[0] == 200
    workers.intake(told(), None)
    workers.intake(told(time=SECRET), None)
    workers.intake({"Records": [{"messageId": "m", "body": SECRET}]}, None)
    for work in (workers.repair, workers.projector, workers.subscriber, workers.archiver):
        work({}, None)
    audit.settle()
    audit.lab.clock.advance(timedelta(minutes=10))
    workers.subscriber({}, None)
    assert SECRET in str(audit.outbox.sent)
    assert SECRET in str(door.events())
    assert SECRET in str(door.state()[1])
    assert SECRET in str(audit.found("type=t&from=2025-01-01T00:00:00Z&include=data"))
    assert door.call("POST", ERASURE, body={"reason": "she asked"}, parameters={"subject": "customers~7"})[0] == 202
    assert door.append([event(6, **SEALED)])[0] == 409
    assert SECRET not in str(door.events())


def test_no_log_line_shows_what_is_sealed(audit, lines):
    go_through(audit)

    assert lines.messages >= {"answered", "taken in", "A message could not be handled.", "repaired", "projected"}
    assert SECRET not in lines.text


def test_an_event_that_breaks_a_read_model_shows_nothing_either(audit, lines, monkeypatch):
    def broken(*_: Any) -> Any:
        raise KeyError("type")

    audit.append("orders/1", event(1, **SEALED))
    audit.index()
    monkeypatch.setattr(views.Events, "rows", broken)
    workers.projector({}, None)

    assert "A view cannot take an event." in lines.messages
    assert SECRET not in lines.text


def test_a_line_that_did_would_be_seen(lines):
    telemetry.logger().debug("a line", address=SECRET)
    logging.getLogger("some.library").debug("Read %s.", {"address": SECRET})

    assert lines.messages == {"a line"}
    assert lines.text.count(SECRET) >= 2
