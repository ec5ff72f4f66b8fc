"""`./holdfast doctor` and the log: the real function that repairs, called as it is deployed, by hand."""

import io
import json
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from functions.audit.app import workers
from holdfast import telemetry
from holdfast.log import repair
from holdfast_cli import doctor, repairing
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab

Act = Callable[[], Any]


class NotThere(ClientError):
    pass


class Functions:
    """Deployed functions, called as Lambda calls them."""

    exceptions = type("Exceptions", (), {"ResourceNotFoundException": NotThere})

    def __init__(self, act: Act, *, is_local: bool = True) -> None:
        self.act = act
        self.is_local = is_local
        self.called = 0

    def client(self, service: str) -> "Functions":
        assert service == "lambda"
        return self

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803 - Lambda's own names
        if FunctionName != "holdfast-audit-repair":
            raise NotThere({"Error": {"Code": "ResourceNotFoundException"}}, "Invoke")
        self.called += 1
        json.loads(Payload)
        try:
            return {"Payload": io.BytesIO(json.dumps(self.act()).encode())}
        except RuntimeError as error:
            said = {"errorMessage": str(error), "errorType": "RuntimeError"}
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps(said).encode())}


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    audit = AuditLab(log_lab(), monkeypatch)
    # What the service logs would stand among what the command prints.
    monkeypatch.setattr(telemetry, "logger", MagicMock)
    for number in range(6):
        audit.append(f"orders/{number}", event(number))
    return audit


def repaired(functions: Functions, *services: str, **rest: Any) -> list[Any]:
    return list(repairing.repairs(functions, services or ("audit",), **rest))  # type: ignore[arg-type]


def by_hand() -> Any:
    return workers.repair({}, None)


def test_commits_that_the_indexer_missed_are_in_the_log_and_told_of(audit: AuditLab):
    (finding,) = repaired(Functions(by_hand))

    assert (finding.check, finding.verdict) == ("log of audit", "warning")
    assert finding.detail == "6 commits were stored and not in the log; they are now."
    assert sum(head.size for head in audit.lab.log().heads()) == 6
    (again,) = repaired(Functions(by_hand))
    assert (again.verdict, again.detail) == ("ok", "holds all that is stored")


@pytest.mark.parametrize("first", [1, 4])
def test_a_walk_that_stands_somewhere_is_pushed_on_until_all_has_been_looked_at(audit: AuditLab, monkeypatch, first):
    request = repair.Repair._request
    monkeypatch.setattr(repair.Repair, "_request", lambda self, start: {**request(self, start), "Limit": 1})
    monkeypatch.setattr(repair.Repair.walk, "__defaults__", (1,))
    for _ in range(first):
        workers.repair({}, None)
    audit.append("orders/0", event("late"))  # behind the walk, as likely as not
    seen: list[int] = []

    repaired(Functions(by_hand), show=seen.append)

    assert sum(head.size for head in audit.lab.log().heads()) == 7
    assert seen == sorted(seen)
    assert seen[-1] >= 7


def test_a_walk_by_hand_ends(audit: AuditLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(repairing, "CALLS_MAX", 3)
    functions = Functions(lambda: {"commits": 100, "indexed": 0, "is_last": False})

    (finding,) = repaired(functions)

    assert functions.called == 3
    assert (finding.verdict, finding.detail) == (
        "ok", "300 commits were looked at, and none was missed; the schedule goes on",
    )  # fmt: skip


@pytest.mark.parametrize(("is_local", "fix"), [(True, "./holdfast logs audit"), (False, "./holdfast logs audit --aws")])
def test_a_repair_that_fails_is_told_with_its_reason_and_where_its_logs_are(audit: AuditLab, is_local, fix):
    def broken() -> Any:
        raise RuntimeError("a commit is lost")

    (finding,) = repaired(Functions(broken, is_local=is_local))

    assert (finding.verdict, finding.fix) == ("failed", fix)
    assert "a commit is lost" in finding.detail


def test_a_service_that_keeps_no_streams_has_nothing_to_repair(audit: AuditLab):
    assert [finding.check for finding in repaired(Functions(by_hand), "flags", "audit")] == ["log of audit"]


@pytest.mark.parametrize(("is_local", "fix"), [(True, "./holdfast status"), (False, "aws sts get-caller-identity")])
def test_where_nobody_answers_that_is_told(audit: AuditLab, is_local, fix):
    def unreachable() -> Any:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    (finding,) = repaired(Functions(unreachable, is_local=is_local))

    assert finding.verdict == "failed"
    assert finding.fix.startswith(fix)


def test_the_doctor_looks_after_the_logs_in_the_cloud_when_asked(audit: AuditLab, command, monkeypatch):
    asked: list[bool] = []
    functions = Functions(by_hand, is_local=False)

    def target(*, aws: bool) -> Any:
        asked.append(aws)
        return functions

    monkeypatch.setattr(doctor, "target", target)

    code, out, _ = command("doctor", "--aws", "--json")

    told = json.loads(out.splitlines()[-1])
    assert (code, asked, told["ok"]) == (0, [True], True)
    assert [(each["check"], each["verdict"]) for each in told["findings"]] == [("log of audit", "warning")]
    assert told["findings"][0]["fix"].startswith("./holdfast logs audit --aws")
