"""Whatever has happened is never told as not having happened, wherever the store falls silent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from functions.audit import adapters
from holdfast.dynamodb.transport import Answer, Transport, Unknown
from holdfast.switches import Switches
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab

QUEUE = "arn:aws:sqs:eu-central-1:123456789012:inbox"
SUBSCRIPTION = "/v1/subscriptions/{name}"
REBUILD = "/v1/rebuilds/{rebuild_id}"
CALLS_MAX = 60
"""Calls to the store that one request makes, at most."""

Ask = Callable[[AuditLab], tuple[int, Any]]


class FallsSilent:
    """A store that answers so many calls, and then hears nothing any more."""

    def __init__(self, inner: Transport, answers: int) -> None:
        self.inner, self.left, self.is_silent = inner, answers, False

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        self.is_silent = self.left == 0
        if self.is_silent:
            raise Unknown("no answer")
        self.left -= 1
        return self.inner.call(operation, request)


@dataclass(frozen=True)
class Change:
    """Something that is asked for, and how one sees whether it has happened."""

    name: str
    prepare: Ask
    ask: Ask
    look: Ask


def asking(method: str, template: str, body: Any = None, **parameters: str) -> Ask:
    def ask(audit: AuditLab) -> tuple[int, Any]:
        headers = {"idempotency-key": "k"}
        return audit.door.call(method, template, body=body, parameters=parameters, headers=headers)[:2]

    return ask


def of_rebuild(method: str, template: str) -> Ask:
    def ask(audit: AuditLab) -> tuple[int, Any]:
        (rebuild_id,) = {step[1] for step in audit.steps} or {audit.door.rebuild_id}  # type: ignore[attr-defined]
        audit.door.rebuild_id = rebuild_id  # type: ignore[attr-defined]
        return asking(method, template, rebuild_id=rebuild_id)(audit)

    return ask


def nothing(_audit: AuditLab) -> tuple[int, Any]:
    return 200, None


def there(audit: AuditLab) -> tuple[int, Any]:
    return asking("GET", SUBSCRIPTION, name="all")(audit)[0], None


PUT = asking("PUT", SUBSCRIPTION, {"target": QUEUE, "from": "start"}, name="all")
SUBJECT = {"subject": "ann"}


def known(audit: AuditLab) -> tuple[int, Any]:
    return 200, adapters.subject_keys(audit.lab.tenant).find("ann")


CHANGES = [
    Change("a subscription", nothing, PUT, there),
    Change("its end", PUT, asking("DELETE", SUBSCRIPTION, name="all"), there),
    Change("a setting", nothing, asking("PUT", "/v1/settings", {"record_reads": True}), asking("GET", "/v1/settings")),
    Change("a hold", nothing, asking("PUT", "/v1/subjects/{subject}/hold", {"reason": "r"}, **SUBJECT), known),
    Change("an erasure", nothing, asking("POST", "/v1/subjects/{subject}/erasure", {"reason": "r"}, **SUBJECT), known),
    Change(
        "a rebuild given up",
        asking("POST", "/v1/rebuilds", {"view": "streams", "reason": "r"}),
        of_rebuild("POST", f"{REBUILD}/abandon"),
        lambda audit: (200, of_rebuild("GET", REBUILD)(audit)[1]["state"]),
    ),
    Change("an append", nothing, lambda audit: audit.door.append([event(7)], "any", stream="orders~1")[:2],
           lambda audit: audit.door.events(stream="orders~1")[:2]),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_what_has_happened_is_told_or_left_open(monkeypatch: pytest.MonkeyPatch, change: Change):
    monkeypatch.setenv("HOLDFAST_SUBSCRIPTION_TARGETS", QUEUE)
    for answers in range(CALLS_MAX):
        audit = AuditLab(log_lab(), monkeypatch)
        audit.append("orders/1", event(1, shredkey="ann", data={"a": 1}))
        audit.settle()
        assert change.prepare(audit)[0] < 300
        before, whole = change.look(audit), audit.lab.transport
        silent = FallsSilent(whole, answers)
        monkeypatch.setattr(audit.lab, "transport", silent)
        monkeypatch.setattr(adapters, "switches", lambda lab=audit.lab: Switches(lab.database(), lab.tables))

        status, answer = change.ask(audit)

        monkeypatch.setattr(audit.lab, "transport", whole)
        if not silent.is_silent:
            assert status < 300
            return
        if change.look(audit) != before:
            assert status < 300 or answer["code"] == "outcome_unknown"
    raise AssertionError("The request never comes to an end.")
