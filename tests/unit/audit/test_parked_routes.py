"""Streams that stand still in a read model, through the door."""

from typing import Any

import pytest

from functions.audit import domain
from functions.audit.app import workers
from holdfast.errors import Unavailable
from holdfast.log import partition_of
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab

VIEW = "/v1/views/{view}"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    """A trail whose read model `streams` cannot take version 2 of some streams."""
    audit = AuditLab(log_lab(), monkeypatch)
    with monkeypatch.context() as patch:
        poison(patch, "orders/1", "orders/2")
        for number in range(1, 4):
            audit.append("orders/1", event(number))
            audit.append("orders/2", event(number))
            audit.append("orders/3", event(number))
        audit.settle()
    return audit


def poison(patch: pytest.MonkeyPatch, *streams: str) -> None:
    sound = domain.views.Streams.change

    def change(self: Any, key: Any, row: Any, recorded: Any) -> Any:
        if recorded.stream in streams and recorded.version == 2:
            raise ValueError("a bug")
        return sound(self, key, row, recorded)

    patch.setattr(domain.views.Streams, "change", change)


def parked(audit: AuditLab, view: str = "streams") -> tuple[int, Any]:
    return audit.door.call("GET", f"{VIEW}/parked", parameters={"view": view})[:2]


def redrive(audit: AuditLab, query: str = "", view: str = "streams") -> tuple[int, Any]:
    return audit.door.call("POST", f"{VIEW}/redrive", path=f"x?{query}", parameters={"view": view})[:2]


def versions(audit: AuditLab) -> dict[str, int]:
    return {item["stream"]: item["version"] for item in audit.get("/v1/streams")[1]["items"]}


def test_streams_that_stand_still_are_listed_with_the_reason(audit: AuditLab):
    status, answer = parked(audit)

    assert (status, answer["generation"]) == (200, 1)
    found = {item["stream"]: item for item in answer["items"]}
    assert set(found) == {"orders/1", "orders/2"}
    assert found["orders/1"]["version"] == 2
    assert found["orders/1"]["partition"] == partition_of("orders/1")
    assert found["orders/1"]["reason"] == "ValueError: a bug"
    assert parked(audit, "events") == (200, {"generation": 1, "items": []})
    assert versions(audit) == {"orders/1": 1, "orders/2": 1, "orders/3": 3}


def test_once_the_bug_is_mended_one_stream_goes_on_or_all_do(audit: AuditLab):
    assert redrive(audit, "stream=orders~1") == (200, {"redriven": ["orders/1"], "parked": []})
    assert versions(audit) == {"orders/1": 3, "orders/2": 1, "orders/3": 3}

    assert redrive(audit) == (200, {"redriven": ["orders/2"], "parked": []})
    assert versions(audit) == {"orders/1": 3, "orders/2": 3, "orders/3": 3}
    assert redrive(audit) == (200, {"redriven": [], "parked": []})
    assert parked(audit)[1]["items"] == []


def test_what_is_still_poison_stands_still_and_is_told_of(audit: AuditLab, monkeypatch: pytest.MonkeyPatch):
    poison(monkeypatch, "orders/1")

    status, answer = redrive(audit)

    assert (status, answer["redriven"]) == (200, ["orders/2"])
    assert [(item["stream"], item["version"]) for item in answer["parked"]] == [("orders/1", 2)]
    assert [item["stream"] for item in parked(audit)[1]["items"]] == ["orders/1"]


def test_what_does_not_stand_still_is_not_found(audit: AuditLab):
    for answer, code in (
        (redrive(audit, "stream=orders~3"), "not_parked"),
        (redrive(audit, view="nothing"), "view_not_found"),
        (parked(audit, view="nothing"), "view_not_found"),
    ):
        assert (answer[0], answer[1]["code"]) == (404, code)
    audit.as_tenant("other")
    assert parked(audit) == (200, {"generation": 1, "items": []})
    assert redrive(audit, "stream=orders~1")[1]["code"] == "not_parked"


def test_a_read_model_whose_code_is_gone_is_not_redriven(audit: AuditLab, monkeypatch: pytest.MonkeyPatch):
    newer = type("Newer", (domain.views.Streams,), {"version": domain.STREAMS.version + 1})()
    monkeypatch.setattr(domain, "VIEWS", (domain.EVENTS, newer, domain.ACTIVITY))

    status, problem = redrive(audit)

    assert (status, problem["code"]) == (409, "view_outdated")
    assert len(parked(audit)[1]["items"]) == 2


def erased_and_not_told(audit: AuditLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Erase a subject whose erasure the read model that tells of it cannot take."""
    subject = {"subject": "customers~7"}
    audit.append("orders/3", event(9, shredkey="customers/7", data={"a": 1}))
    audit.door.call("POST", "/v1/subjects/{subject}/erasure", body={"reason": "r"}, parameters=subject)
    with monkeypatch.context() as patch:
        patch.setattr(domain.views.Activity, "keys", lambda *_: 1 / 0)
        workers.repair({}, None)
        workers.projector({}, None)
    assert audit.outbox.published == []


def test_what_an_event_is_told_of_for_is_told_when_it_is_redriven(audit: AuditLab, monkeypatch: pytest.MonkeyPatch):
    erased_and_not_told(audit, monkeypatch)

    assert "subjects/customers/7" in redrive(audit, view="activity")[1]["redriven"]

    assert [each["type"] for each in audit.outbox.published] == ["holdfast.audit.subject.erased.v1"]


def test_what_cannot_be_told_keeps_its_stream_where_it_stands(audit: AuditLab, monkeypatch: pytest.MonkeyPatch):
    erased_and_not_told(audit, monkeypatch)

    def refuse(_events: Any) -> None:
        raise Unavailable("bus_unavailable", "no answer")

    with monkeypatch.context() as patch:
        patch.setattr(audit.outbox, "publish", refuse)
        status, problem = redrive(audit, "stream=subjects~customers~7", view="activity")

    assert (status, problem["code"]) == (503, "bus_unavailable")
    assert "subjects/customers/7" in [item["stream"] for item in parked(audit, "activity")[1]["items"]]


def test_redriving_takes_the_scope_of_rebuilds(audit: AuditLab):
    scopes = audit.door.principal.scopes - {"audit:rebuild"}
    audit.door.principal = type(audit.door.principal)("lab", "ann", scopes, "j", 2**40)

    assert (parked(audit)[0], redrive(audit)[0]) == (403, 403)
