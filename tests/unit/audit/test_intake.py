"""What other services tell is written down once, however often it comes; a bad message fails alone."""

import copy
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from functions.audit import domain
from functions.audit.app import workers
from functions.audit.domain import intake
from holdfast.cloudevents import Attributes
from holdfast.errors import Invalid
from holdfast.testing import Crash, Fuse, at_every_crash
from tests.audit_lab import AuditLab
from tests.log_lab import LogLab, log_lab

SAMPLE = json.loads((Path(__file__).parents[3] / "events/audit/intake-messages.json").read_text())
ENVELOPE = json.loads(SAMPLE["Records"][0]["body"])


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    audit = AuditLab(log_lab(), monkeypatch)
    audit.as_tenant("acme")
    return audit


def batch(*envelopes: Any) -> dict[str, Any]:
    record = SAMPLE["Records"][0]
    bodies = [each if isinstance(each, str) else json.dumps(each) for each in envelopes]
    return {"Records": [{**record, "messageId": f"m{number}", "body": body} for number, body in enumerate(bodies)]}


def changed(**event: Any) -> dict[str, Any]:
    envelope: dict[str, Any] = copy.deepcopy(ENVELOPE)
    envelope["detail"] |= event
    envelope["detail"] = {name: value for name, value in envelope["detail"].items() if value is not None}
    return envelope


def failed(answer: dict[str, Any]) -> list[str]:
    return [each["itemIdentifier"] for each in answer["batchItemFailures"]]


def stored(audit: AuditLab, stream: str = "payments~p-1001") -> list[Attributes]:
    status, answer, _ = audit.door.events(stream=stream)
    return answer["events"] if status == 200 else []


def test_an_event_of_another_service_is_in_the_stream_of_what_it_is_about(audit):
    assert workers.intake(SAMPLE, None) == {"batchItemFailures": []}

    (found,) = stored(audit)
    assert {name: found[name] for name in ENVELOPE["detail"]} == ENVELOPE["detail"]
    assert found["onbehalfof"] == domain.ACTOR


def test_one_that_comes_again_appends_nothing(audit):
    for _ in range(3):
        assert workers.intake(batch(ENVELOPE, ENVELOPE), None) == {"batchItemFailures": []}

    assert len(stored(audit)) == 1


def test_one_that_comes_again_long_after_others_appends_nothing(audit):
    workers.intake(batch(ENVELOPE, changed(id="second"), changed(id="third")), None)

    assert workers.intake(batch(ENVELOPE), None) == {"batchItemFailures": []}
    assert [each["id"] for each in stored(audit)] == [ENVELOPE["detail"]["id"], "second", "third"]


def test_the_members_order_and_the_envelope_make_no_other_event(audit):
    workers.intake(batch(ENVELOPE), None)
    reordered = {**ENVELOPE, "id": "another", "detail": dict(reversed(ENVELOPE["detail"].items()))}

    assert failed(workers.intake(batch(reordered), None)) == []
    assert len(stored(audit)) == 1


def test_one_that_says_something_else_under_the_same_id_fails(audit):
    workers.intake(batch(ENVELOPE), None)

    assert failed(workers.intake(batch(changed(data={"payment": "other"})), None)) == ["m0"]
    assert len(stored(audit)) == 1


@pytest.mark.parametrize("data", [{"payment": "forged"}, ENVELOPE["detail"].get("data")])
def test_nobody_keeps_an_event_out_by_appending_one_of_its_name_before(audit, data):
    event = {name: ENVELOPE["detail"][name] for name in ("specversion", "id", "source", "type")} | {"data": data}
    assert audit.door.append([event], stream="payments~p-1001")[0] == 201

    assert failed(workers.intake(batch(ENVELOPE), None)) == []

    forged, told = stored(audit)
    assert (forged["actor"], "onbehalfof" in forged) == ("ann", False)
    assert (told["data"], told["onbehalfof"]) == (ENVELOPE["detail"]["data"], domain.ACTOR)


def test_one_that_comes_again_about_something_else_fails(audit):
    workers.intake(batch(ENVELOPE), None)

    assert failed(workers.intake(batch(changed(subject="p-2")), None)) == ["m0"]
    assert stored(audit, "payments~p-2") == []


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        json.dumps({**ENVELOPE, "source": "aws.ec2"}),
        json.dumps({**ENVELOPE, "source": "holdfast."}),
        json.dumps({**ENVELOPE, "source": ["holdfast.payments"]}),
        json.dumps({**ENVELOPE, "source": "holdfast.flags"}),
        json.dumps({**ENVELOPE, "detail": "text"}),
        json.dumps(changed(tenant=None)),
        json.dumps(changed(tenant="No Tenant")),
        json.dumps(changed(tenant=7)),
        json.dumps(changed(type="holdfast.flags.flag.changed.v1")),
        json.dumps(changed(id=None)),
        json.dumps(changed(specversion="0.3")),
        json.dumps(changed(time="yesterday")),
        json.dumps(changed(streamversion=3)),
        json.dumps(ENVELOPE).replace("4200", "NaN"),
    ],
)
def test_a_bad_message_fails_alone(audit, message):
    assert failed(workers.intake(batch(changed(id="before"), message, changed(id="behind")), None)) == ["m1"]
    assert [each["id"] for each in stored(audit)] == ["before", "behind"]


@pytest.mark.parametrize("subject", ["a b", "ä", "x" * 250, "..", "", "a//b"])
def test_a_subject_that_no_stream_can_be_named_after_loses_nothing(audit, subject):
    assert domain.stream_for("payments", subject) == f"payments/sha256:{sha256(subject.encode()).hexdigest()}"


def test_a_subject_that_is_no_name_is_kept_in_the_event(audit):
    assert failed(workers.intake(batch(changed(subject="a b")), None)) == []

    (found,) = stored(audit, domain.stream_for("payments", "a b").replace("/", "~"))
    assert found["subject"] == "a b"


def test_an_event_about_nothing_in_particular_is_in_the_stream_of_its_service(audit):
    assert failed(workers.intake(batch(changed(subject=None)), None)) == []

    assert len(stored(audit, "payments")) == 1


def test_tenants_are_kept_apart(audit):
    workers.intake(batch(ENVELOPE, changed(tenant="other")), None)

    assert len(stored(audit)) == 1
    audit.as_tenant("other")
    assert len(stored(audit)) == 1


def test_what_concerns_a_data_subject_is_sealed(audit):
    workers.intake(batch(changed(shredkey="customers/7", data={"address": "Lindenstrasse"})), None)

    assert stored(audit)[0]["data"] == {"address": "Lindenstrasse"}
    assert b"Lindenstrasse" not in repr(audit.lab.transport.call("Scan", {"TableName": "commits"}).body).encode()


def test_killed_at_any_call_it_writes_once_when_it_is_asked_again():
    def make() -> LogLab:
        return log_lab()

    def act(lab: LogLab, fuse: Fuse) -> None:
        with pytest.MonkeyPatch.context() as patch:
            AuditLab(lab, patch)
            patch.setattr(lab, "transport", fuse.wrap(lab.transport))
            assert workers.intake(SAMPLE, None) == {"batchItemFailures": []}

    def then(crash: Crash[LogLab]) -> None:
        act(crash.world, Fuse())
        with pytest.MonkeyPatch.context() as patch:
            audit = AuditLab(crash.world, patch)
            audit.as_tenant("acme")
            assert len(stored(audit)) == 1

    assert at_every_crash(make, act, then) >= 4


def test_an_intake_without_a_derived_id_is_caught(audit, monkeypatch):
    made = iter(range(100))
    monkeypatch.setattr(intake, "derived", lambda *_: f"random-{next(made)}")

    for _ in range(2):
        workers.intake(SAMPLE, None)
    assert len(stored(audit)) == 2  # what the derived id prevents
    fresh = AuditLab(log_lab(), monkeypatch)
    fresh.as_tenant("acme")
    with pytest.raises(AssertionError):
        test_one_that_comes_again_appends_nothing(fresh)


def test_the_reason_is_told_with_where_it_lies():
    with pytest.raises(Invalid) as refused:
        domain.understand_message(json.dumps(changed(tenant=None)).encode())

    assert refused.value.pointer == "/detail/tenant"
