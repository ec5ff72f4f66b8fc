"""Data subjects through the door: sealed content, holds, erasure, and what may still be read."""

import json
from datetime import timedelta
from typing import Any

import pytest

from functions.audit import adapters, domain
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab

SECRET = "Lindenstrasse 12"
HOLD = "/v1/subjects/{subject}/hold"
ERASURE = "/v1/subjects/{subject}/erasure"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    return AuditLab(log_lab(), monkeypatch)


def sealed(number: int, subject: str = "customers/7", **data: Any) -> dict[str, Any]:
    return event(number, shredkey=subject, data=data or {"address": SECRET})


def ask(audit: AuditLab, method: str, template: str, body: Any, subject: str = "customers~7") -> tuple[int, Any]:
    status, answer, _ = audit.door.call(method, template, body=body, parameters={"subject": subject})
    return status, answer


def everything(audit: AuditLab) -> str:
    tables = [audit.lab.transport.call("Scan", {"TableName": name}).body for name in ("commits", "log", "views")]
    assert not any("LastEvaluatedKey" in answer for answer in tables)
    objects = [audit.objects.get(key) for key in audit.objects.keys("")]
    return repr(tables) + repr(objects)


def test_sealed_content_is_read_like_any_other_and_stored_nowhere_in_clear(audit):
    audit.append("orders/1", sealed(1), event(2, data={"total": 3}))
    audit.settle()

    assert audit.door.events(stream="orders~1")[1]["events"][0]["data"] == {"address": SECRET}
    assert audit.door.state(stream="orders~1")[1]["state"] == {"address": SECRET, "total": 3}
    (found,) = audit.found("type=t&from=2025-01-01T00:00:00Z&include=data&limit=1")[:1]
    assert json.dumps(found).count(SECRET) <= 1
    assert SECRET not in everything(audit)


def test_erased_content_is_gone_everywhere_and_the_log_still_stands(audit):
    audit.append("orders/1", sealed(1), event(2, data={"total": 3}))
    audit.settle()
    before = audit.lab.log().heads()

    status, answer = ask(audit, "POST", ERASURE, {"reason": "she asked"})

    assert (status, answer["state"], answer["subject"]) == (202, "erased", "customers/7")
    assert answer["final_at"] > answer["erased_at"]
    first = audit.door.events(stream="orders~1")[1]["events"][0]
    assert first["erased"] is True
    assert "data" not in first
    state = audit.door.state(stream="orders~1")[1]
    assert (state["state"], state["events_erased"]) == ({"total": 3}, 1)
    assert [head.root for head in audit.lab.log().heads()] == [head.root for head in before]
    assert ask(audit, "POST", ERASURE, {"reason": "again"}) == (202, answer)


def test_what_was_done_about_a_subject_is_told_in_its_stream_once(audit):
    audit.append("orders/1", sealed(1))
    for _ in range(2):
        ask(audit, "PUT", HOLD, {"reason": "case 4"})
    for _ in range(2):
        ask(audit, "DELETE", HOLD, {"reason": "case 4"})
    for _ in range(2):
        ask(audit, "POST", ERASURE, {"reason": "she asked"})

    told = audit.door.events(stream="subjects~customers~7")[1]["events"]
    assert [each["type"] for each in told] == [
        "holdfast.audit.subject.held.v1",
        "holdfast.audit.subject.released.v1",
        "holdfast.audit.subject.erased.v1",
    ]
    assert told[2]["data"]["reason"] == "she asked"


def test_a_held_subject_is_not_erased_until_it_is_released(audit):
    audit.append("orders/1", sealed(1))
    assert ask(audit, "PUT", HOLD, {"reason": "case 4"})[0] == 200

    status, answer = ask(audit, "POST", ERASURE, {"reason": "she asked"})
    assert (status, answer["code"]) == (409, "held")

    assert ask(audit, "DELETE", HOLD, {"reason": "case 4"})[0] == 200
    assert ask(audit, "POST", ERASURE, {"reason": "she asked"})[0] == 202


def test_a_hold_that_has_run_out_holds_no_longer(audit):
    audit.append("orders/1", sealed(1))
    until = (audit.lab.clock.now() + timedelta(days=1)).isoformat()
    assert ask(audit, "PUT", HOLD, {"reason": "case 4", "until": until})[0] == 200
    audit.lab.clock.advance(timedelta(days=2))

    assert ask(audit, "POST", ERASURE, {"reason": "she asked"})[0] == 202


@pytest.mark.parametrize(
    ("method", "template", "body", "expected"),
    [
        ("POST", ERASURE, {"reason": "x"}, (404, "subject_not_found")),
        ("PUT", HOLD, {"reason": "x"}, (404, "subject_not_found")),
        ("POST", ERASURE, {}, (400, "invalid_body")),
        ("POST", ERASURE, {"reason": ""}, (400, "invalid_body")),
        ("PUT", HOLD, {"reason": "x", "until": "tomorrow"}, (400, "invalid_time")),
        ("PUT", HOLD, {"reason": "x", "until": "2001-01-01T00:00:00Z"}, (400, "invalid_until")),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(audit, method, template, body, expected):
    status, answer = ask(audit, method, template, body)

    assert (status, answer["code"]) == expected


def test_nothing_more_is_sealed_for_an_erased_subject(audit):
    audit.append("orders/1", sealed(1))
    ask(audit, "POST", ERASURE, {"reason": "she asked"})

    status, answer, _ = audit.door.append([sealed(2)], "any", stream="orders~1")

    assert (status, answer["code"]) == (409, "subject_erased")


def test_a_repeat_of_a_sealed_append_is_the_same_request_and_other_content_is_not(audit):
    key = {"headers": {"idempotency-key": "k"}}
    first = audit.door.append([sealed(1)], 0, stream="orders~1", **key)
    again = audit.door.append([sealed(1)], 0, stream="orders~1", **key)
    other = audit.door.append([sealed(1, address="elsewhere")], 0, stream="orders~1", **key)

    assert (again[0], again[1]) == (201, first[1])
    assert (other[0], other[1]["code"]) == (422, "idempotency_mismatch")


def test_another_tenant_has_no_hold_on_a_subject(audit):
    audit.append("orders/1", sealed(1))
    audit.as_tenant("other")

    assert ask(audit, "POST", ERASURE, {"reason": "x"})[1]["code"] == "subject_not_found"


def test_a_stream_with_sealed_events_keeps_no_snapshot(audit):
    for number in range(0, 1_200, 200):
        audit.append("orders/1", *(sealed(number + n, **{f"k{number + n}": SECRET}) for n in range(200)))
    audit.settle()

    assert adapters.snapshots_of(audit.lab.tenant).keep("orders/1", domain.reducers.of("orders/1")) is None
    assert SECRET not in everything(audit)
