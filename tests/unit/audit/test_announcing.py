"""What the audit trail tells on the bus: what its samples say, whatever crashes, and nothing that did not happen."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cloudevents.v1.http import from_json

from functions.audit import adapters, domain
from functions.audit.app import announcing, tail, workers
from holdfast.anchors import Inconsistent
from holdfast.broadcast import Broadcast
from holdfast.cloudevents import check
from holdfast.dynamodb.attributes import ordered
from holdfast.dynamodb.batches import put_many
from holdfast.dynamodb.reads import get
from holdfast.envelope import MemoryKeyRing
from holdfast.errors import Unavailable
from holdfast.ids import derived
from holdfast.log import partition_of
from holdfast.subjects import KeyCache
from tests.audit_lab import AuditLab, event
from tests.broadcast_lab import MemoryPost
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


def erase(audit: AuditLab) -> None:
    body, subject = {"reason": "r"}, {"subject": "customers~7"}
    status, answer, _ = audit.door.call("POST", "/v1/subjects/{subject}/erasure", body=body, parameters=subject)
    assert (status, answer["state"]) == (202, "erased")


def found_and_projected() -> None:
    """Let a minute pass: what nothing announced is found, and the read models move."""
    workers.repair({}, None)
    workers.projector({}, None)


def refuse(*_: Any) -> None:
    raise Unavailable("bus_unavailable", "no answer")


def lose(audit: AuditLab, stream: str) -> None:
    """Take the commits of a stream out of the table, as nobody may."""
    for row in audit.lab.transport.call("Scan", {"TableName": "commits"}).body["Items"]:
        if row["pk"]["S"].endswith(stream):
            key = {"pk": row["pk"], "sk": row["sk"]}
            audit.lab.transport.call("DeleteItem", {"TableName": "commits", "Key": key})


def produce(audit: AuditLab) -> None:
    """Let everything happen that is told of."""
    audit.append("orders/1", event(1, shredkey="customers/7", data={"a": 1}))
    audit.settle()
    workers.anchor({}, None)
    start_rebuild(audit)
    work(audit)
    erase(audit)
    found_and_projected()
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


def test_what_is_done_is_answered_though_nobody_can_be_told_and_that_is_counted(audit, monkeypatch, capsys):
    audit.append("orders/1", event(1))
    audit.settle()
    rebuild_id = start_rebuild(audit)

    monkeypatch.setattr(audit.outbox, "publish", refuse)
    status = audit.door.call("POST", "/v1/rebuilds/{rebuild_id}/abandon", parameters={"rebuild_id": rebuild_id})[0]

    assert status == 200
    assert '"UntoldEvents":[1.0]' in capsys.readouterr().out


def test_an_erasure_is_told_of_when_the_bus_is_back_and_meanwhile_holds_up_one_read_model_only(audit, monkeypatch):
    audit.append("orders/1", event(1, shredkey="customers/7", data={"a": 1}))
    audit.settle()
    with monkeypatch.context() as patch:
        patch.setattr(audit.outbox, "publish", refuse)
        erase(audit)
        for _ in range(2):
            found_and_projected()
    assert told(audit, "subject.erased") == []
    assert [item["stream"] for item in audit.get("/v1/streams")[1]["items"]] == ["orders/1", "subjects/customers/7"]
    assert sum(item["count"] for item in audit.get("/v1/activity")[1]["items"]) == 1

    for _ in range(2):
        found_and_projected()

    (erased,) = told(audit, "subject.erased")
    assert (erased["tenant"], erased["subject"]) == (audit.lab.tenant, "subjects/customers/7")
    assert erased["data"]["subject"] == "customers/7"
    assert erased["data"]["final_at"] > erased["time"]


def test_an_erasure_that_was_told_of_before_a_crash_is_told_of_again_as_the_same(audit, monkeypatch):
    audit.append("orders/1", event(1, shredkey="customers/7", data={"a": 1}))
    erase(audit)
    workers.repair({}, None)

    class Crashed(BaseException):
        pass

    def told_and_crashed(events: Any) -> None:
        audit.outbox.published.extend(events)
        raise Crashed

    with monkeypatch.context() as patch:
        patch.setattr(audit.outbox, "publish", told_and_crashed)
        with pytest.raises(Crashed):
            workers.projector({}, None)
    workers.projector({}, None)

    first, second = told(audit, "subject.erased")
    assert first == second


def test_an_erasure_is_not_told_of_by_a_read_model_that_is_made_again(audit):
    audit.append("orders/1", event(1, shredkey="customers/7", data={"a": 1}))
    erase(audit)
    found_and_projected()
    body = {"view": "activity", "reason": "to see"}
    audit.door.call("POST", "/v1/rebuilds", body=body, headers={"idempotency-key": "k1"})
    assert work(audit) == []
    found_and_projected()

    assert audit.get("/v1/activity", "generation=2")[0] == 200
    assert len(told(audit, "subject.erased")) == 1


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


def test_damage_that_a_caller_meets_is_told_of_with_where_and_whose(audit):
    audit.append("orders/1", event(1))
    audit.settle()
    lose(audit, "orders/1")
    partition = partition_of("orders/1")

    assert audit.get("/v1/events", "actor=ann&include=data")[0] == 500
    assert audit.get("/v1/export", f"partition={partition}")[1]["lines"][-1]["type"] == "damaged"

    events = told(audit, "integrity.failed")
    assert [each["data"]["where"] for each in events] == ["GET /v1/events", "GET /v1/export"]
    assert {(each["tenant"], each["data"]["kind"]) for each in events} == {(audit.lab.tenant, "Lost")}


def test_content_that_was_forged_is_told_of(audit):
    audit.append("orders/1", event(1, shredkey="customers/7", data={"a": 1}))
    audit.ring = MemoryKeyRing()  # the key that it was sealed under is another one now
    audit.keys = KeyCache(audit.lab.clock)

    assert audit.door.events()[0] == 500

    assert [each["data"]["kind"] for each in told(audit, "integrity.failed")] == ["Forged"]


def test_a_damaged_snapshot_is_told_of_and_the_state_is_answered_all_the_same(audit):
    for number in range(3):
        audit.append("orders/1", *(event(250 * number + n, data={"n": n}) for n in range(250)))
    audit.settle()
    reducer = domain.reducers.of("orders/1")
    (version,) = adapters.snapshots_of(audit.lab.tenant).keep("orders/1", reducer).versions
    pk = f"N#{audit.lab.tenant}#{reducer.label}#orders/1"
    row = get(audit.lab.database(), audit.lab.tables.log, pk, ordered(version))
    assert row is not None
    put_many(audit.lab.database(), audit.lab.tables.log, [row | {"state": b"damaged"}])

    status, answer, _ = audit.door.state()

    assert (status, answer["state"], answer["version"]) == (200, {"n": 249}, 750)
    (found,) = told(audit, "integrity.failed")
    assert (found["tenant"], found["subject"], found["data"]["kind"]) == (audit.lab.tenant, "snapshots", "Damaged")


def test_damage_that_a_subscriber_or_a_tail_meets_is_told_of(audit, monkeypatch):
    subscription = {"target": QUEUE, "from": "start"}
    audit.door.call("PUT", "/v1/subscriptions/{name}", body=subscription, parameters={"name": "all"})
    audit.append("orders/1", event(1))
    audit.settle()
    lose(audit, "orders/1")

    workers.subscriber({}, None)

    (found,) = told(audit, "integrity.failed")
    assert (found["data"]["where"], found["tenant"]) == ("subscriptions/all", audit.lab.tenant)
    post = MemoryPost(open={"c1"})
    revoked: set[str] = set()
    monkeypatch.setattr(
        adapters,
        "broadcast",
        lambda: Broadcast(audit.lab.database(), audit.lab.tables, post, is_revoked=revoked.__contains__),
    )
    ticket = adapters.tickets().issue(audit.door.principal)
    message = {"type": "subscribe", "after": {str(partition_of("orders/1")): 0}}
    assert tail(heard("CONNECT", queryStringParameters={"ticket": ticket}), None) == {"statusCode": 200}
    assert tail(heard("MESSAGE", body=json.dumps(message)), None) == {"statusCode": 500}
    assert told(audit, "integrity.failed")[1]["data"]["where"] == "tail"


def heard(kind: str, **members: Any) -> dict[str, Any]:
    """Write an event of a WebSocket connection as API Gateway does."""
    return {"requestContext": {"eventType": kind, "connectionId": "c1", "requestId": "r1"}, **members}


def test_a_read_model_whose_code_is_gone_is_told_of(audit, monkeypatch, capsys):
    audit.append("orders/1", event(1))
    audit.settle()
    newer = type("Newer", (domain.views.Streams,), {"version": domain.STREAMS.version + 1})()
    monkeypatch.setattr(domain, "VIEWS", (domain.EVENTS, newer, domain.ACTIVITY))
    audit.append("orders/1", event(2))
    audit.index()

    for _ in range(2):
        workers.projector({}, None)

    assert capsys.readouterr().out.count('"OutdatedViews":[1.0]') == 2
    assert [item["version"] for item in audit.get("/v1/streams")[1]["items"]] == [1]
    assert len(audit.found("actor=ann")) == 2


def test_commits_that_repair_finds_are_measured(audit, capsys):
    audit.append("orders/1", event(1))
    audit.lab.clock.advance(timedelta(seconds=90))

    workers.repair({}, None)

    assert '"LogLagSeconds":[90.0]' in capsys.readouterr().out


def test_damage_is_what_tampering_makes_and_no_passing_failure(audit):
    with pytest.raises(Unavailable), announcing.telling_of_damage("views"):
        raise Unavailable("store_unavailable", "no answer")

    assert audit.outbox.published == []
