"""A history on the running stack is proven by the command line, and one changed byte in the table is found."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.streams.packing import pack, unpack
from holdfast_cli.audit_verify import _pem
from holdfast_client.audit_queries import partition_of
from tests.local.audit.conftest import OwnTenant, happened

STREAMS = ("orders/1", "orders/2", "orders/3", "orders/8", "orders/9")
COMMITS = 4
EVENTS = 3
TABLE = "holdfast-audit-commits"


@dataclass(frozen=True)
class Auditor:
    """Somebody with a pinned key and a memory of their own."""

    tenant: OwnTenant
    folder: Path

    def run(self, command: str, *arguments: str | Path) -> tuple[int, Any]:
        done = self.tenant.run("audit", command, *arguments, "--json")
        told = done.stdout if done.returncode == 0 else done.stderr.splitlines()[-1]
        return done.returncode, json.loads(told)

    def verify(self, *arguments: str | Path) -> tuple[int, Any]:
        memory = ("--state", self.folder / "state.json", "--key", self.folder / "key.pem")
        return self.run("verify", *memory, *arguments)


@pytest.fixture(scope="module")
def auditor(tenant: OwnTenant, tmp_path_factory: pytest.TempPathFactory) -> Auditor:
    folder = tmp_path_factory.mktemp("auditor")
    for stream in STREAMS:
        append(tenant, stream)
    (folder / "key.pem").write_bytes(b"".join(map(_pem, tenant.get("/v1/keys")["keys"])))
    return Auditor(tenant, folder)


def append(tenant: OwnTenant, stream: str) -> None:
    for commit in range(COMMITS):
        version = commit * EVENTS
        events = [happened(f"{version + number}", data={"text": "the truth"}) for number in range(EVENTS)]
        tenant.audit.append(stream, events, version)


def test_a_history_is_proven_online_offline_and_event_by_event(auditor):
    code, told = auditor.verify()
    assert (code, told["result"], told["tenant"]) == (0, "proven", auditor.tenant.name)
    assert (told["commits"], told["events"]) == (len(STREAMS) * COMMITS, len(STREAMS) * COMMITS * EVENTS)

    exported = auditor.folder / "history.gz"
    assert auditor.run("export", "--out", exported)[0] == 0
    code, offline = auditor.verify("--export", exported)
    assert (code, offline["result"], offline["commits"]) == (0, "proven", told["commits"])

    code, event = auditor.run("prove", "orders/9", "5", "--key", auditor.folder / "key.pem")
    assert (code, event["result"], event["partition"]) == (0, "proven", partition_of("orders/9"))


@pytest.fixture
def lied(auditor: Auditor) -> Iterator[dict[str, Any]]:
    """Change one byte of one event behind the service's back, as somebody with all rights would; put it back."""
    table = auditor.tenant.stack.client("dynamodb")
    key = to_item({"pk": f"S#{auditor.tenant.name}#orders/8", "sk": 2 * EVENTS + 1})
    item = table.get_item(TableName=TABLE, Key=key, ConsistentRead=True)["Item"]
    packed = from_item(item)["ev"]
    events = [event.replace(b"the truth", b"the lie!!", 1) for event in unpack(packed)]
    table.put_item(TableName=TABLE, Item={**item, "ev": {"B": pack(events)}})
    yield {"partition": partition_of("orders/8"), "stream": "orders/8", "version": 2 * EVENTS + 1}
    table.put_item(TableName=TABLE, Item=item)


def test_one_changed_event_in_the_table_is_found_with_its_partition_leaf_and_stream(auditor, lied):
    (leaf,) = [
        entry.leaf
        for entry in auditor.tenant.audit.log(lied["partition"])
        if (entry.stream, entry.first_version) == (lied["stream"], lied["version"])
    ]

    code, told = auditor.verify()

    assert (code, told["error"]["code"]) == (1, "broken")
    found = {name: told["error"][name] for name in ("partition", "leaf", "stream", "version")}
    assert found == {**lied, "leaf": leaf}
    lies = auditor.folder / "lies.gz"
    assert auditor.run("export", "--out", lies)[0] == 0
    assert auditor.verify("--export", lies)[0] == 1
    code, event = auditor.run("prove", lied["stream"], str(lied["version"]), "--key", auditor.folder / "key.pem")
    assert (code, event["error"]["code"]) == (1, "broken")
    # What lies beside it is proven still.
    assert auditor.run("prove", "orders/9", "5", "--key", auditor.folder / "key.pem")[0] == 0


def test_what_is_put_back_is_proven_again(auditor):
    assert auditor.verify()[0] == 0
