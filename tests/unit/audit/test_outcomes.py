"""Whatever has happened is never told as not having happened, wherever the store falls silent, heard or not."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from functions.audit import adapters
from holdfast.clock import MICROSECOND, ManualClock
from holdfast.cursor_keys import CursorKey
from holdfast.dynamodb.transport import Answer, Told, Transport, Unknown
from holdfast.errors import Unavailable
from holdfast.streams import BOUNDARY_AGE_MAX
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
    """A store that answers so many calls; then, if it hears the next one, it carries that out, and no other."""

    def __init__(self, inner: Transport, answers: int, *, hears_one_more: bool) -> None:
        self.inner, self.left, self.hears_one_more, self.is_silent = inner, answers, hears_one_more, False

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        if self.left == 0:
            self.is_silent = True
            if self.hears_one_more:
                self.hears_one_more = False
                with suppress(Told):
                    self.inner.call(operation, request)
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


@pytest.mark.parametrize("hears_one_more", [False, True], ids=["request lost", "reply lost"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_what_has_happened_is_told_or_left_open(monkeypatch: pytest.MonkeyPatch, change: Change, hears_one_more: bool):
    monkeypatch.setenv("HOLDFAST_SUBSCRIPTION_TARGETS", QUEUE)
    has_happened = False
    for answers in range(CALLS_MAX):
        audit = AuditLab(log_lab(), monkeypatch)
        audit.append("orders/1", event(1, shredkey="ann", data={"a": 1}))
        audit.settle()
        assert change.prepare(audit)[0] < 300
        before, whole = change.look(audit), audit.lab.transport
        silent = FallsSilent(whole, answers, hears_one_more=hears_one_more)
        monkeypatch.setattr(audit.lab, "transport", silent)
        monkeypatch.setattr(adapters, "switches", lambda lab=audit.lab: Switches(lab.database(), lab.tables))

        status, answer = change.ask(audit)

        monkeypatch.setattr(audit.lab, "transport", whole)
        if not silent.is_silent:
            assert status < 300
            assert has_happened or not hears_one_more
            return
        if change.look(audit) != before:
            has_happened = True
            assert status < 300 or answer["code"] == "outcome_unknown"
    raise AssertionError("The request never comes to an end.")


# ----- and why it has not, as the route's description says


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    audit = AuditLab(log_lab(), monkeypatch)
    audit.append("orders/1", event(1, shredkey="ann", data={"a": 1}))
    audit.settle()
    return audit


@pytest.mark.parametrize(
    ("template", "query"),
    [
        ("/v1/export", "partition=0&cursor=x"),
        ("/v1/log/missing", "cursor=x"),
        ("/v1/events", "actor=ann&cursor=x"),
        ("/v1/streams", "cursor=x"),
        ("/v1/activity", "cursor=x"),
    ],
)
def test_nothing_goes_on_without_the_key_of_cursors(
    audit: AuditLab, monkeypatch: pytest.MonkeyPatch, template: str, query: str
):
    def away() -> bytes:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(adapters, "cursors", CursorKey(away, audit.lab.clock).cursors)

    status, problem, _ = audit.get(template, query)
    assert (status, problem["code"]) == (503, "cursor_key_unknown")


@pytest.mark.parametrize(
    ("template", "query"),
    [
        ("/v1/streams/{stream}/events", ""),
        ("/v1/streams/{stream}/state", ""),
        ("/v1/streams/{stream}/diff", "from_version=0"),
        ("/v1/events", "actor=ann&include=data"),
    ],
)
def test_what_is_sealed_is_not_shown_without_its_key(
    audit: AuditLab, monkeypatch: pytest.MonkeyPatch, template: str, query: str
):
    def away(*_: Any) -> Any:
        raise Unavailable("keys_unavailable", "nobody answers")

    monkeypatch.setattr(audit.ring.__class__, "unwrap", away)
    audit.keys.forget(audit.lab.tenant, "ann")

    status, problem, _ = audit.get(template, query, stream="orders~1")
    assert (status, problem["code"]) == (503, "keys_unavailable")


class Slow:
    """A store whose answers to queries come so late that nothing may be built on them any more."""

    def __init__(self, inner: Transport, clock: ManualClock) -> None:
        self.inner, self.clock = inner, clock

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        answer = self.inner.call(operation, request)
        if operation == "Query":
            self.clock.advance(BOUNDARY_AGE_MAX + MICROSECOND)
        return answer


@pytest.mark.parametrize(
    "ask",
    [
        asking("PUT", "/v1/settings", {"record_reads": True}),
        asking("PUT", "/v1/subjects/{subject}/hold", {"reason": "r"}, **SUBJECT),
        asking("POST", "/v1/subjects/{subject}/erasure", {"reason": "r"}, **SUBJECT),
        lambda audit: audit.door.append([event(2)], "any", stream="orders~1")[:2],
    ],
)
def test_nothing_is_built_on_an_end_that_was_read_too_long_ago(
    audit: AuditLab, monkeypatch: pytest.MonkeyPatch, ask: Ask
):
    monkeypatch.setattr(audit.lab, "transport", Slow(audit.lab.transport, audit.lab.clock))

    status, problem = ask(audit)
    assert (status, problem["code"]) == (503, "boundary_expired")
