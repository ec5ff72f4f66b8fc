"""What the audit trail tells on the bus: what its samples say, whatever crashes, and nothing that did not happen."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cloudevents.v1.http import from_json

from functions.audit import adapters
from functions.audit.app import announcing, workers
from holdfast.anchors import Inconsistent
from holdfast.cloudevents import check
from holdfast.errors import Unavailable
from holdfast.ids import derived
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab

SAMPLES = Path(__file__).parents[3] / "events/audit"
TOLD = ("anchor.signed", "rebuild.finished", "subject.erased", "subscription.parked", "integrity.failed")
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:inbox"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    monkeypatch.setenv("HOLDFAST_SUBSCRIPTION_TARGETS", QUEUE)
    return AuditLab(log_lab(), monkeypatch)


def told(audit: AuditLab, name: str) -> list[Any]:
    return [each for each in audit.outbox.published if each["type"] == f"holdfast.audit.{name}.v1"]


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def shape(value: Any) -> Any:
    """Say of what kinds a value is made."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    return type(value).__name__


def rebuild_message(rebuild_id: str, tenant: str, partition: int) -> dict[str, Any]:
    body = json.dumps({"tenant": tenant, "rebuild_id": rebuild_id, "partition": partition})
    return {"messageId": str(partition), "body": body, "eventSourceARN": "arn:aws:sqs:x:1:rebuild"}


def start_rebuild(audit: AuditLab) -> str:
    body = {"view": "streams", "reason": "to see"}
    status, answer, _ = audit.door.call("POST", "/v1/rebuilds", body=body, headers={"idempotency-key": "k1"})
    assert status == 202
    return str(answer["rebuild_id"])


def work(audit: AuditLab) -> list[Any]:
    """Let the function of rebuilds take its messages until there are none."""
    failed = []
    for _ in range(20):
        if not audit.steps:
            break
        tenant, rebuild_id, partition = audit.steps.pop(0)
        failed += workers.rebuilder({"Records": [rebuild_message(rebuild_id, tenant, partition)]}, None)[
            "batchItemFailures"
        ]
    return failed


def produce(audit: AuditLab) -> None:
    """Let everything happen that is told of."""
    audit.append("orders/1", event(1, shredkey="customers/7", data={"a": 1}))
    audit.settle()
    workers.anchor({}, None)
    start_rebuild(audit)
    work(audit)
    audit.door.call(
        "POST", "/v1/subjects/{subject}/erasure", body={"reason": "r"}, parameters={"subject": "customers~7"}
    )
    audit.door.call(
        "PUT", "/v1/subscriptions/{name}", body={"target": QUEUE, "from": "start"}, parameters={"name": "all"}
    )
    audit.outbox.refusal = lambda *_: "poison"
    for _ in range(7):
        audit.lab.clock.advance(timedelta(minutes=10))
        workers.subscriber({}, None)
    audit.append("orders/9", event(1))
    commits = audit.lab.transport.call("Scan", {"TableName": "commits"}).body["Items"]
    item = next(row for row in commits if row["pk"]["S"].endswith("orders/9"))
    audit.lab.transport.call("PutItem", {"TableName": "commits", "Item": {**item, "actor": {"S": "mallory"}}})
    workers.repair({}, None)


def test_each_sample_is_what_is_told_and_each_that_is_told_has_a_sample(audit):
    produce(audit)

    for name in TOLD:
        envelope, found = sample(name), told(audit, name)
        assert found, name
        assert shape(found[0]) == shape(envelope["detail"]), name
        assert (envelope["source"], envelope["detail-type"]) == (found[0]["source"], found[0]["type"])
    assert {each["type"] for each in audit.outbox.published} == {f"holdfast.audit.{name}.v1" for name in TOLD}


@pytest.mark.parametrize("name", TOLD)
def test_a_sample_is_a_cloudevent_that_strangers_read(name):
    detail = sample(name)["detail"]

    assert check(detail, "") == detail
    assert from_json(json.dumps(detail))["type"] == f"holdfast.audit.{name}.v1"


def test_an_anchor_that_was_signed_is_told_of_whatever_happened_then(audit, monkeypatch):
    audit.append("orders/1", event(1))
    audit.index()

    def refuse(*_: Any) -> None:
        raise Unavailable("bus_unavailable", "no answer")

    with monkeypatch.context() as patch:
        patch.setattr(audit.outbox, "publish", refuse)
        with pytest.raises(Unavailable):
            workers.anchor({}, None)
    assert adapters.anchors().latest()
    audit.append("orders/1", event(2))
    audit.index()
    workers.anchor({}, None)
    workers.anchor({}, None)

    assert [each["data"]["seq"] for each in told(audit, "anchor.signed")] == [1, 2]
    assert "tenant" not in told(audit, "anchor.signed")[0]


def test_a_rebuild_is_told_of_by_the_message_that_finishes_it_and_again_if_that_comes_again(audit, monkeypatch):
    audit.append("orders/1", event(1))
    audit.settle()
    rebuild_id = start_rebuild(audit)

    def refuse(*_: Any) -> None:
        raise Unavailable("bus_unavailable", "no answer")

    with monkeypatch.context() as patch:
        patch.setattr(audit.outbox, "publish", refuse)
        assert work(audit)
    assert told(audit, "rebuild.finished") == []

    again = {"Records": [rebuild_message(rebuild_id, audit.lab.tenant, 3)]}
    for _ in range(2):
        assert workers.rebuilder(again, None) == {"batchItemFailures": []}

    first, second = told(audit, "rebuild.finished")
    assert first == second
    assert (first["data"]["state"], first["tenant"]) == ("flipped", audit.lab.tenant)


def test_a_rebuild_that_goes_on_is_not_told_of_and_one_that_is_given_up_is(audit):
    audit.append("orders/1", event(1))
    audit.settle()
    rebuild_id = start_rebuild(audit)
    assert told(audit, "rebuild.finished") == []

    for _ in range(2):
        status = audit.door.call("POST", "/v1/rebuilds/{rebuild_id}/abandon", parameters={"rebuild_id": rebuild_id})[0]
        assert status == 200

    events = told(audit, "rebuild.finished")
    assert {each["data"]["state"] for each in events} == {"abandoned"}
    assert len({each["id"] for each in events}) == 1


def test_a_message_about_no_rebuild_tells_nothing(audit):
    message = rebuild_message(derived("none"), audit.lab.tenant, 0)

    assert workers.rebuilder({"Records": [message]}, None) == {"batchItemFailures": []}
    assert audit.outbox.published == []


def test_what_is_done_is_answered_though_nobody_can_be_told(audit, monkeypatch):
    audit.append("orders/1", event(1, shredkey="customers/7", data={"a": 1}))

    def refuse(*_: Any) -> None:
        raise Unavailable("bus_unavailable", "no answer")

    monkeypatch.setattr(audit.outbox, "publish", refuse)
    status, answer, _ = audit.door.call(
        "POST", "/v1/subjects/{subject}/erasure", body={"reason": "r"}, parameters={"subject": "customers~7"}
    )

    assert (status, answer["state"]) == (202, "erased")


def test_logs_that_do_not_follow_from_what_was_signed_are_told_of_each_time(audit, monkeypatch):
    def inconsistent(*_: Any) -> None:
        raise Inconsistent("Partition 0 of acme was signed with 5 commits and is another now.")

    monkeypatch.setattr("holdfast.anchors.Anchors.sign", inconsistent)
    for _ in range(2):
        with pytest.raises(Inconsistent):
            workers.anchor({}, None)

    first, second = told(audit, "integrity.failed")
    assert first["id"] == second["id"]
    assert (first["data"]["kind"], first["data"]["where"]) == ("Inconsistent", "anchors")


def test_damage_is_what_tampering_makes_and_no_passing_failure(audit):
    with pytest.raises(Unavailable), announcing.telling_of_damage("views"):
        raise Unavailable("store_unavailable", "no answer")

    assert audit.outbox.published == []
