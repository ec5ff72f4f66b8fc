"""The doctor on the running stack: everything is well, and the log takes in what its indexer was not told of."""

import contextlib
import io
import json
from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.dynamodb import Database, DynamoEventStores, Transport
from holdfast.dynamodb.transport import Answer
from holdfast.streams import RawCodec
from holdfast_cli.main import main
from tests.local.audit.as_owner import TABLES, owner_of
from tests.local.audit.conftest import OwnTenant, happened
from tests.local.platform.conftest import wait_until

MISSED = "missed/1"
BEHIND = "behind/1"


class Spoiling:
    """A store in which a commit gets another author than its hash says; how it should stand there is kept."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.sound: list[Mapping[str, Any]] = []

    def call(self, operation: str, request: Mapping[str, Any]) -> Answer:
        if operation == "PutItem":
            self.sound.append(request["Item"])
            request = {**request, "Item": {**request["Item"], "actor": {"S": "mallory"}}}
        return self._inner.call(operation, request)


def test_the_doctor_finds_the_running_stack_well_and_has_its_log_repaired(
    tenant: OwnTenant, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOLDFAST_HOME", str(tenant.stack.home))
    with owner_of(tenant.stack, tenant.name) as owner:
        spoiling = Spoiling(owner.transport)
        stores = DynamoEventStores(Database.connect(spoiling), RawCodec(), TABLES)
        stores.of(tenant.name, "tester").append(MISSED, 0, [json.dumps(happened(1)).encode()], commit_id="missed")
        tenant.audit.append(BEHIND, [happened(1)], None)
        wait_until(lambda: owner.logged(BEHIND) == 1, "the indexer has seen the commit that does not hold together")
        assert owner.logged(MISSED) == 0
        # The indexer is told of rows that are new, and of no row that was changed: whoever takes this in is Repair.
        (sound,) = spoiling.sound
        owner.transport.call("PutItem", {"TableName": TABLES.commits, "Item": sound})

        findings = examined()

        assert findings["service audit"]["verdict"] == "ok"
        # A warning where it was this call that mended it; the schedule calls Repair as well, and may have been first.
        assert findings["log of audit"]["verdict"] in {"ok", "warning"}, findings["log of audit"]
        wait_until(lambda: owner.logged(MISSED) == 1, "the log holds what was stored")


def examined() -> dict[str, Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["doctor", "--json"])
    return {each["check"]: each for each in json.loads(out.getvalue())["findings"]}
