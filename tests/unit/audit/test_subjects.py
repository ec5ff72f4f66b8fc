"""Data subjects through the door: sealed content, holds, erasure, and what may still be read."""

import json
import zlib
from datetime import timedelta
from typing import Any

import pytest

from functions.audit import adapters, domain
from holdfast.dynamodb.transport import Busy
from tests.audit_lab import AuditLab, event
from tests.capacity import Capacity, Cost
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
    return keyed(audit, method, template, body, subject=subject)[:2]


def keyed(
    audit: AuditLab, method: str, template: str, body: Any, *, key: str | None = None, subject: str = "customers~7"
) -> tuple[int, Any, bool]:
    """Ask under an idempotency key; whether it is said that the answer was given before."""
    headers = {} if key is None else {"idempotency-key": key}
    status, answer, said = audit.door.call(
        method, template, body=body, parameters={"subject": subject}, headers=headers
    )
    return status, answer, said.get("Idempotency-Replayed") == "true"


def told(audit: AuditLab) -> list[Any]:
    found: list[Any] = audit.door.events(stream="subjects~customers~7")[1]["events"]
    return found


def everything(audit: AuditLab) -> str:
    tables = [audit.lab.transport.call("Scan", {"TableName": name}).body for name in ("commits", "log", "views")]
    assert not any("LastEvaluatedKey" in answer for answer in tables)
    objects = [audit.objects.get(key) for key in audit.objects.keys("")]
    packed = [item["state"]["B"] for answer in tables for item in answer["Items"] if "B" in item.get("state", {})]
    return repr(tables) + repr(objects) + repr([unpacked(each) for each in packed])


def unpacked(snapshot: bytes) -> bytes:
    try:
        return zlib.decompress(snapshot)
    except zlib.error:
        return snapshot  # it is sealed


def test_sealed_content_is_read_like_any_other_and_stored_nowhere_in_clear(audit):
    audit.append("orders/1", sealed(1), event(2, data={"total": 3}))
    audit.settle()

    assert audit.door.events(stream="orders~1")[1]["events"][0]["data"] == {"address": SECRET}
    assert audit.door.state(stream="orders~1")[1]["state"] == {"address": SECRET, "total": 3}
    (found,) = audit.found("type=t&from=2025-01-01T00:00:00Z&include=data&limit=1")[:1]
    assert found["event"]["data"] == {"address": SECRET}
    assert json.dumps(found).count(SECRET) == 1
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
    assert ask(audit, "POST", ERASURE, {"reason": "again"}) == (200, answer)


def test_what_was_done_about_a_subject_is_told_in_its_stream_once(audit):
    audit.append("orders/1", sealed(1))
    for _ in range(2):
        ask(audit, "PUT", HOLD, {"reason": "case 4"})
    for _ in range(2):
        ask(audit, "DELETE", HOLD, {"reason": "case 4"})
    for _ in range(2):
        ask(audit, "POST", ERASURE, {"reason": "she asked"})

    assert [each["type"] for each in told(audit)] == [
        "holdfast.audit.subject.held.v1",
        "holdfast.audit.subject.released.v1",
        "holdfast.audit.subject.erased.v1",
    ]
    held, released, erased = (each["data"] for each in told(audit))
    assert (held["holds"], held["until"]) == ([{"reason": "case 4", "by": "ann", "until": None}], None)
    assert (released["holds"], released["reason"], released["state"]) == ([], "case 4", "live")
    assert (erased["state"], erased["reason"], erased["version"]) == ("erased", "she asked", 4)
    assert {each["actor"] for each in told(audit)} == {"ann"}


def test_an_act_that_cannot_be_told_does_not_happen(audit, monkeypatch):
    audit.append("orders/1", sealed(1))

    class Untold:
        """A transport that takes no more commits."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def call(self, operation: str, request: Any) -> Any:
            if "commits" in repr(request) and operation in ("PutItem", "TransactWriteItems"):
                raise Busy("ThrottlingException", is_throttle=True)
            return self.inner.call(operation, request)

    whole = audit.lab.transport
    monkeypatch.setattr(audit.lab, "transport", Untold(whole))
    for method, template in (("PUT", HOLD), ("POST", ERASURE)):
        assert ask(audit, method, template, {"reason": "r"})[1]["code"] == "store_throttled"

    monkeypatch.setattr(audit.lab, "transport", whole)
    subject = adapters.subject_keys(audit.lab.tenant).find("customers/7")
    assert (subject.state, subject.holds, subject.version) == ("live", (), 1)
    assert audit.door.events(stream="subjects~customers~7")[0] == 404


ACTS = [("PUT", HOLD, 200), ("DELETE", HOLD, 200), ("POST", ERASURE, 202)]
each_act = pytest.mark.parametrize(("method", "template", "status"), ACTS)


def prepared(audit: AuditLab) -> None:
    """Two subjects, on which a hold runs that the acts below neither set nor need ended."""
    audit.append("orders/1", sealed(1), sealed(2, subject="other"))
    for subject in ("customers~7", "other"):
        ask(audit, "PUT", HOLD, {"reason": "r", "until": "2026-01-01T00:00:01Z"}, subject)
    audit.lab.clock.advance(timedelta(minutes=2))


@each_act
def test_a_repeat_under_its_key_is_given_the_first_answer_for_ever(audit, method, template, status):
    prepared(audit)
    first = keyed(audit, method, template, {"reason": "r"}, key="k")
    events = len(told(audit))
    assert first[0] == status
    assert first[2] is False
    ask(audit, "PUT", HOLD, {"reason": "another"})
    ask(audit, "DELETE", HOLD, {"reason": "another"})
    ask(audit, "DELETE", HOLD, {"reason": "r"})
    ask(audit, "POST", ERASURE, {"reason": "she asked"})
    audit.lab.clock.advance(timedelta(days=400))

    assert keyed(audit, method, template, {"reason": "r"}, key="k") == (status, first[1], True)
    assert len(told(audit)) >= events
    assert [each["data"]["version"] for each in told(audit)] == [*range(2, len(told(audit)) + 2)]


def test_a_repeat_under_its_key_costs_the_same_however_much_was_done_since(audit, monkeypatch):
    prepared(audit)
    assert keyed(audit, "PUT", HOLD, {"reason": "mine"}, key="k")[0] == 200
    capacity = Capacity(audit.lab.transport)
    monkeypatch.setattr(audit.lab, "transport", capacity)

    def repeated() -> Cost:
        capacity.take()
        assert keyed(audit, "PUT", HOLD, {"reason": "mine"}, key="k")[2] is True
        return capacity.take()

    cost = repeated()
    for _ in range(10):
        assert ask(audit, "PUT", HOLD, {"reason": "r"})[0] == 200
        assert ask(audit, "DELETE", HOLD, {"reason": "r"})[0] == 200

    assert repeated() == cost == Cost({"GetItem": 2, "Query": 1}, reads={"operations": 2, "commits": 1}, writes={})


@each_act
def test_a_key_is_of_one_request(audit, method, template, status):
    prepared(audit)
    assert keyed(audit, method, template, {"reason": "r"}, key="k")[0] == status

    for other, path, _ in ACTS:
        reason = "r" if (other, path) != (method, template) else "another"
        refused = keyed(audit, other, path, {"reason": reason}, key="k")
        assert (refused[0], refused[1]["code"]) == (422, "idempotency_mismatch")


@each_act
def test_of_another_subject_a_key_is_another_one(audit, method, template, status):
    prepared(audit)
    assert keyed(audit, method, template, {"reason": "r"}, key="k")[0] == status

    answer = keyed(audit, method, template, {"reason": "r"}, key="k", subject="other")
    assert (answer[0], answer[1]["subject"], answer[2]) == (status, "other", False)


def test_a_hold_until_a_time_is_another_request_than_one_for_ever(audit):
    audit.append("orders/1", sealed(1))
    body = {"reason": "r", "until": "2031-01-01T00:00:00Z"}
    assert keyed(audit, "PUT", HOLD, body, key="k")[0] == 200

    assert keyed(audit, "PUT", HOLD, {"reason": "r"}, key="k")[1]["code"] == "idempotency_mismatch"
    same = {"reason": "r", "until": "2031-01-01T01:00:00+01:00"}
    assert keyed(audit, "PUT", HOLD, same, key="k")[2] is True


def test_what_is_so_already_is_answered_under_any_key_and_told_once(audit):
    audit.append("orders/1", sealed(1))
    first = keyed(audit, "POST", ERASURE, {"reason": "r"}, key="k1")

    assert keyed(audit, "POST", ERASURE, {"reason": "r"}, key="k2") == (200, first[1], False)
    assert keyed(audit, "POST", ERASURE, {"reason": "other words"}) == (200, first[1], False)
    assert len(told(audit)) == 1


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
        ("POST", ERASURE, {"reason": "x" * 513}, (400, "invalid_body")),
        ("PUT", HOLD, {"reason": "x" * 512}, (404, "subject_not_found")),
        ("PUT", HOLD, {"reason": "x", "until": "tomorrow"}, (400, "invalid_time")),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(audit, method, template, body, expected):
    status, answer = ask(audit, method, template, body)

    assert (status, answer["code"]) == expected


@pytest.mark.parametrize(
    ("method", "template", "body", "expected"),
    [
        ("PUT", HOLD, {"reason": "x", "until": "2001-01-01T00:00:00Z"}, (400, "invalid_until")),
        ("PUT", HOLD, {"reason": "é" * 300}, (400, "invalid_reason")),
        ("DELETE", HOLD, {"reason": "é" * 300}, (400, "invalid_reason")),
        ("POST", ERASURE, {"reason": "é" * 300}, (400, "invalid_reason")),
    ],
)
def test_what_cannot_be_done_about_a_subject_is_refused_and_not_told(audit, method, template, body, expected):
    audit.append("orders/1", sealed(1))
    status, answer = ask(audit, method, template, body)
    assert audit.door.events(stream="subjects~customers~7")[0] == 404

    assert (status, answer["code"]) == expected


@pytest.mark.parametrize(
    ("events", "refusal"),
    [
        ([event(1)], (400, "duplicate_event_id")),
        ([event(2), {}], (400, "invalid_event")),
        ([event(2, data="x" * 300_000)], (413, "event_too_large")),
        ([sealed(2, subject="other", address="x" * 300_000)], (413, "event_too_large")),
        ([event(2, shredkey="not a name")], (400, "invalid_event")),
    ],
)
def test_what_is_refused_leaves_no_key(audit, events, refusal):
    appends = [("orders/1", [sealed(1)]), ("orders/2", events)]
    body = {"appends": [{"stream": name, "expected_version": 0, "events": listed} for name, listed in appends]}

    for answer in (
        audit.door.call("POST", "/v1/commits", body=body),
        audit.door.append([sealed(1), *events], 0, stream="orders~1"),
    ):
        assert (answer[0], answer[1]["code"]) == refusal
    assert audit.lab.transport.call("Scan", {"TableName": "operations"}).body["Items"] == []
    assert ask(audit, "POST", ERASURE, {"reason": "x"})[1]["code"] == "subject_not_found"


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


def test_whether_it_is_a_repeat_nothing_can_tell_any_more_once_its_subject_is_erased(audit):
    key = {"headers": {"idempotency-key": "k"}}
    assert audit.door.append([sealed(1)], 0, stream="orders~1", **key)[0] == 201
    ask(audit, "POST", ERASURE, {"reason": "r"})

    status, answer, _ = audit.door.append([sealed(1)], 0, stream="orders~1", **key)

    assert (status, answer["code"]) == (409, "subject_erased")
    assert audit.door.events(stream="orders~1")[1]["last_version"] == 1


def test_another_tenant_has_no_hold_on_a_subject(audit):
    audit.append("orders/1", sealed(1))
    audit.as_tenant("other")

    assert ask(audit, "POST", ERASURE, {"reason": "x"})[1]["code"] == "subject_not_found"


def test_snapshots_of_sealed_events_are_sealed_and_gone_with_their_key(audit):
    for number in range(0, 1_200, 200):
        audit.append("orders/1", *(sealed(number + n, **{f"k{number + n}": SECRET}) for n in range(200)))
    audit.settle()

    assert adapters.snapshots_of(audit.lab.tenant).keep("orders/1", domain.reducers.of("orders/1")).versions
    assert audit.door.state(stream="orders~1")[1]["state"]["k7"] == SECRET
    assert SECRET not in everything(audit)
    ask(audit, "POST", ERASURE, {"reason": "she asked"})
    state = audit.door.state(stream="orders~1")[1]
    assert (state["state"], state["events_erased"], state["events_applied"]) == ({}, 1_200, 0)
