"""Rebuilds through the door."""

from datetime import timedelta
from typing import Any

import boto3
import msgspec
import pytest
from moto import mock_aws

from functions.audit import adapters
from functions.audit.app import workers
from holdfast.aws import client
from holdfast.clock import to_text
from holdfast.errors import Unavailable
from holdfast.log import PARTITIONS
from holdfast.projections.rebuilds import STILL
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab

REBUILD = "/v1/rebuilds/{rebuild_id}"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    audit = AuditLab(log_lab(), monkeypatch)
    for number in range(4):
        audit.append(f"orders/{number}", event(1), event(2, actor="bob"))
    audit.settle()
    return audit


def start(audit: AuditLab, view: str = "streams", key: str | None = "k1", **more: Any) -> tuple[int, Any]:
    headers = {} if key is None else {"idempotency-key": key}
    body = {"view": view, "reason": "to see", **more}
    return audit.door.call("POST", "/v1/rebuilds", body=body, headers=headers)[:2]


def ask(audit: AuditLab, rebuild_id: str, change: str = "") -> tuple[int, Any]:
    method, template = ("POST", f"{REBUILD}/{change}") if change else ("GET", REBUILD)
    return audit.door.call(method, template, parameters={"rebuild_id": rebuild_id})[:2]


def code(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["code"]


@pytest.mark.parametrize("view", ["events", "streams", "activity"])
def test_a_view_is_made_again_compared_and_swapped_in(audit: AuditLab, view: str):
    query = {"events": ("/v1/events", "actor=ann"), "streams": ("/v1/streams", ""), "activity": ("/v1/activity", "")}
    before = audit.get(*query[view])[1]

    status, started = start(audit, view)
    assert (status, started["view"], started["generation"], started["state"]) == (202, view, 2, "running")
    assert sorted(audit.steps) == [(audit.lab.tenant, started["rebuild_id"], p) for p in range(PARTITIONS)]

    audit.lab.clock.advance(timedelta(seconds=2))
    audit.work()

    status, done = ask(audit, started["rebuild_id"])
    assert (status, done["state"], done["remaining_seconds"]) == (200, "flipped", 0)
    assert [each["partition"] for each in done["partitions"]] == list(range(PARTITIONS))
    for each in done["partitions"]:
        assert each["position"] == each["target"]
        assert each["compared"]["is_equal"]
        assert each["digest"] == each["compared"]["digest"] == each["compared"]["live_digest"]
        assert len(each["digest"]) == 64
    assert done["rows"] == sum(each["rows"] for each in done["partitions"]) > 0
    assert done["rate"] > 0
    assert audit.get(*query[view])[1] == before
    assert audit.get(query[view][0], "&".join(filter(None, (query[view][1], "generation=2"))))[1]["items"]


def test_starting_again_with_one_key_is_one_rebuild(audit: AuditLab):
    first = start(audit)
    assert start(audit) == first
    audit.work()

    assert start(audit)[1] == {**first[1], "state": "flipped"}
    assert code(start(audit, "events")) == (422, "idempotency_mismatch")
    assert code(start(audit, reason="another")) == (422, "idempotency_mismatch")
    assert code(start(audit, key=None)) == (400, "idempotency_key_required")


def test_another_request_under_a_key_asks_no_worker_for_anything(audit: AuditLab):
    start(audit)
    audit.steps.clear()

    for more in ({"view": "events"}, {"reason": "another"}, {"auto_flip": False}, {"as_of": "2026-01-01T00:00:00Z"}):
        assert code(start(audit, **more)) == (422, "idempotency_mismatch")
    assert audit.steps == []
    assert start(audit)[0] == 202
    assert len(audit.steps) == PARTITIONS


def test_a_rebuild_whose_steps_could_not_be_sent_is_carried_on_by_the_sweep(
    audit: AuditLab, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any) -> None:
        raise Unavailable("queue_unavailable", "no answer")

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "send_step", refuse)
        assert code(start(audit)) == (503, "queue_unavailable")
        audit.lab.clock.advance(STILL)
        workers.projector({}, None)  # nor now; and nothing else waits for it
    assert audit.steps == []

    audit.lab.clock.advance(STILL)
    workers.projector({}, None)
    workers.projector({}, None)

    assert [partition for _, _, partition in audit.steps] == list(range(PARTITIONS))
    audit.work()
    assert start(audit)[1]["state"] == "flipped"


def test_one_rebuild_of_a_view_runs_at_a_time(audit: AuditLab):
    _, running = start(audit)
    status, problem = start(audit, key="k2")

    assert (status, problem["code"], problem["rebuild_id"]) == (409, "rebuild_running", running["rebuild_id"])
    assert start(audit, "events", key="k3")[0] == 202
    assert ask(audit, running["rebuild_id"], "abandon")[1]["state"] == "abandoned"
    assert start(audit, key="k2")[0] == 202


def test_what_was_known_at_a_time_is_read_by_its_generation_and_never_goes_live(audit: AuditLab):
    known_at = audit.lab.clock.now()
    audit.append("orders/9", event(9))
    audit.settle()

    _, started = start(audit, as_of=to_text(known_at))
    audit.work()

    _, done = ask(audit, started["rebuild_id"])
    assert (done["state"], done["as_of"], done["auto_flip"]) == ("ready", to_text(known_at), False)
    assert code(ask(audit, started["rebuild_id"], "flip")) == (409, "rebuild_not_ready")
    then = audit.get("/v1/streams", f"generation={started['generation']}")[1]["items"]
    now = audit.get("/v1/streams")[1]["items"]
    assert {item["stream"] for item in now} - {item["stream"] for item in then} == {"orders/9"}
    assert start(audit, as_of=to_text(known_at)) == (202, {**started, "state": "ready"})


def test_a_rebuild_that_waits_is_flipped_and_rolled_back_by_hand(audit: AuditLab):
    _, started = start(audit, auto_flip=False)
    rebuild_id = started["rebuild_id"]
    assert code(ask(audit, rebuild_id, "flip")) == (409, "rebuild_not_ready")
    assert code(ask(audit, rebuild_id, "rollback")) == (409, "rebuild_not_live")
    audit.work()
    assert ask(audit, rebuild_id)[1]["state"] == "ready"

    assert ask(audit, rebuild_id, "flip")[1]["state"] == "flipped"
    assert code(ask(audit, rebuild_id, "abandon")) == (409, "rebuild_over")
    assert ask(audit, rebuild_id, "rollback")[1]["state"] == "rolled_back"
    assert len(audit.get("/v1/streams")[1]["items"]) == 4


def test_what_is_no_rebuild_is_not_found(audit: AuditLab):
    _, started = start(audit)
    for rebuild_id in ("x", "", "0" * 3_000, "8b1f6f2e-2a57-4d5c-9f46-000000000000"):
        for change in ("", "flip", "rollback", "abandon"):
            assert code(ask(audit, rebuild_id, change)) == (404, "rebuild_not_found")
    audit.as_tenant("other")
    assert code(ask(audit, started["rebuild_id"])) == (404, "rebuild_not_found")


@pytest.mark.parametrize(
    ("more", "refusal"),
    [
        ({"view": "nothing"}, (404, "view_not_found")),
        ({"reason": ""}, (400, "invalid_body")),
        ({"as_of": "yesterday"}, (400, "invalid_time")),
        ({"as_of": None, "auto_flip": "yes"}, (400, "invalid_body")),
        ({"by": "me"}, (400, "unknown_field")),
    ],
)
def test_a_rebuild_that_makes_no_sense_is_refused(audit: AuditLab, more: dict[str, Any], refusal: tuple[int, str]):
    assert code(start(audit, more.pop("view", "streams"), **more)) == refusal


@mock_aws
def test_a_step_is_a_message_to_a_worker(monkeypatch: pytest.MonkeyPatch):
    client.cache_clear()
    monkeypatch.setattr(adapters, "database", log_lab().database)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    queue = boto3.client("sqs").create_queue(QueueName="rebuilds")["QueueUrl"]
    monkeypatch.setenv("HOLDFAST_REBUILD_QUEUE_URL", queue)

    adapters.send_step("acme", "r1", 3)

    (message,) = boto3.client("sqs").receive_message(QueueUrl=queue)["Messages"]
    assert msgspec.json.decode(message["Body"]) == {"tenant": "acme", "rebuild_id": "r1", "partition": 3}
    monkeypatch.setenv("HOLDFAST_REBUILD_QUEUE_URL", queue + "-gone")
    with pytest.raises(Unavailable) as caught:
        adapters.send_step("acme", "r1", 3)
    assert caught.value.code == "queue_unavailable"
    client.cache_clear()
