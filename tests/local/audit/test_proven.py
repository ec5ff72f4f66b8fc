"""
A history on the running stack is proven by the command line; whatever somebody with all rights does to it is found.

What is done is done to the deployed tables behind the service's back, and put back after: the log's rows before the
commits that they name, so that no function takes what comes back for something new.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from holdfast.clock import from_micros
from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.log import Hint
from holdfast.streams.packing import header_of, pack, root_of, unpack
from holdfast_cli.audit_verify import _pem
from holdfast_cli.main import main
from holdfast_client.audit_queries import LogEntry, partition_of
from tests.local.audit.conftest import OwnTenant, happened
from tests.local.platform.conftest import wait_until
from tests.log_lab import LogLab, memory_tables
from tests.memory_dynamodb import MemoryTransport

STREAMS = ("orders/1", "orders/2", "orders/3", "orders/8", "orders/9")
"""They lie in all four partitions; the first and the last share one."""
COMMITS = 4
EVENTS = 3
STREAM = "orders/9"
PARTITION = partition_of(STREAM)
COMMITS_TABLE = "holdfast-audit-commits"
LOG_TABLE = "holdfast-audit-log"

Item = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What a verifier must name; what only a root shows has no stream."""

    reason: str
    leaf: int
    stream: str | None = None
    version: int | None = None
    leaf_offline: int | None = None
    """Where that is another one, since a file holds the newest anchor alone."""


@dataclass(frozen=True)
class Auditor:
    """Somebody with a pinned key and a memory of their own."""

    tenant: OwnTenant
    folder: Path

    def run(self, command: str, *arguments: str | Path) -> tuple[int, Any]:
        """Run one command of the command line, as somebody whose service is elsewhere."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setenv("HOLDFAST_AUDIT_URL", self.tenant.stack.url("audit"))
            patch.setenv("HOLDFAST_TOKEN", self.tenant.token)
            code = main(["audit", command, *map(str, arguments), "--json"])
        return code, json.loads((out if code == 0 else err).getvalue().splitlines()[-1])

    def verify(self, *arguments: str | Path, memory: str = "state.json") -> tuple[int, Any]:
        return self.run("verify", "--state", self.folder / memory, "--key", self.folder / "key.pem", *arguments)

    def export(self, name: str) -> Path:
        path = self.folder / name
        assert self.run("export", "--out", path)[0] == 0
        return path

    def sign(self) -> None:
        """Have the anchor function do now what it does within a minute."""
        answer = self.tenant.stack.client("lambda").invoke(FunctionName="holdfast-audit-anchor", Payload=b"{}")
        assert "FunctionError" not in answer


@dataclass(frozen=True)
class Tables:
    """The deployed tables, as somebody with all rights over them."""

    client: Any
    tenant: str

    def rows(self, table: str, pk: str) -> list[Item]:
        asked = {"TableName": table, "KeyConditionExpression": "pk = :pk", "ConsistentRead": True}
        found: list[Item] = self.client.query(**asked, ExpressionAttributeValues={":pk": {"S": pk}})["Items"]
        return found

    def commits(self, stream: str) -> list[Item]:
        return self.rows(COMMITS_TABLE, f"S#{self.tenant}#{stream}")

    def log(self) -> list[Item]:
        """Every row of the log's partition, and of the streams in it."""
        keys = [f"{kind}#{self.tenant}#{PARTITION}" for kind in ("L", "LH", "M")]
        keys += [f"W#{self.tenant}#{stream}" for stream in STREAMS if partition_of(stream) == PARTITION]
        return [row for key in keys for row in self.rows(LOG_TABLE, key)]

    def replace(self, table: str, before: Iterable[Item], after: Iterable[Item]) -> None:
        kept = {key_text(row) for row in after}
        for row in after:
            self.client.put_item(TableName=table, Item=row)
        for row in before:
            if key_text(row) not in kept:
                self.client.delete_item(TableName=table, Key={"pk": row["pk"], "sk": row["sk"]})

    @contextmanager
    def changed(self, commits: Sequence[Item], log: Sequence[Item] | None = None) -> Iterator[None]:
        """Let the stream hold *commits*, and its partition *log*, for a while."""
        true_commits, true_log = self.commits(STREAM), self.log()
        self.replace(COMMITS_TABLE, true_commits, commits)
        if log is not None:
            self.replace(LOG_TABLE, true_log, log)
        try:
            yield
        finally:
            if log is not None:
                self.replace(LOG_TABLE, log, true_log)
            self.replace(COMMITS_TABLE, commits, true_commits)

    def logged(self, commits: Iterable[Item]) -> list[Item]:
        """Make the log that these commits come to, in this order: on tables in memory, by the indexer itself."""
        lab = LogLab(transport := MemoryTransport(), memory_tables(transport), tenant=self.tenant)
        for commit in commits:
            lab.transport.call("PutItem", {"TableName": lab.tables.commits, "Item": commit})
            stream, first = commit["pk"]["S"].split("#", 2)[2], int(commit["sk"]["N"])
            assert lab.indexer().index([Hint(self.tenant, stream, first)]) == 1
        rows = transport.call("Scan", {"TableName": lab.tables.log}).body["Items"]
        return [row for row in rows if not row["pk"]["S"].startswith("H#")]


def key_text(row: Item) -> str:
    return json.dumps([row["pk"], row["sk"]])


def edit(item: Item, **members: Any) -> Item:
    return {**item, **to_item(members)}


def forged(item: Item, previous: Item) -> Item:
    """Write a commit with other events, and everything that is to hold it together, as the service would have."""
    row, before = from_item(item), from_item(previous)
    events = [event.replace(b"the truth", b"the lie!!") for event in unpack(row["ev"])]
    header = header_of(
        tenant=item["pk"]["S"].split("#")[1],
        stream=STREAM,
        first_version=row["sk"],
        count=row["n"],
        events_root=root_of(events),
        commit_id=row["commit_id"],
        actor=row["actor"],
        recorded_at=from_micros(row["rt"]),
        previous_hash=before["hash"],
    )
    return edit(item, ev=pack(events), root=root_of(events), prev=before["hash"], hash=sha256(header).digest())


@pytest.fixture(scope="module")
def auditor(tenant: OwnTenant, tmp_path_factory: pytest.TempPathFactory) -> Auditor:
    """They have looked when half of it was there, and again at the end; each half has two anchors at least."""
    auditor = Auditor(tenant, tmp_path_factory.mktemp("auditor"))
    size = 0
    for half in (0, 1):
        for stream in STREAMS:
            append(tenant, stream, half)
            if partition_of(stream) == PARTITION:
                size += COMMITS // 2
                wait_until(lambda: tenant.get(f"/v1/log/{PARTITION}/head")["size"] == size, "the log holds it")  # noqa: B023
                auditor.sign()
        (auditor.folder / "key.pem").write_bytes(b"".join(map(_pem, tenant.get("/v1/keys")["keys"])))
        assert auditor.verify(memory="early.json" if half == 0 else "state.json")[0] == 0
    return auditor


def append(tenant: OwnTenant, stream: str, half: int) -> None:
    for commit in range(half * COMMITS // 2, (half + 1) * COMMITS // 2):
        version = commit * EVENTS
        events = [happened(f"{version + number}", data={"text": "the truth"}) for number in range(EVENTS)]
        tenant.audit.append(stream, events, version)


@pytest.fixture(scope="module")
def tables(auditor: Auditor) -> Tables:
    return Tables(auditor.tenant.stack.client("dynamodb"), auditor.tenant.name)


@pytest.fixture(scope="module")
def entries(auditor: Auditor) -> list[LogEntry]:
    """The partition, as it is told while nothing is changed."""
    return list(auditor.tenant.audit.log(PARTITION))


def test_a_history_is_proven_online_offline_and_event_by_event(auditor):
    code, told = auditor.verify()
    assert (code, told["result"], told["tenant"]) == (0, "proven", auditor.tenant.name)
    assert (told["commits"], told["events"]) == (len(STREAMS) * COMMITS, len(STREAMS) * COMMITS * EVENTS)

    code, offline = auditor.verify("--export", auditor.export("history.gz"))
    assert (code, offline["result"], offline["commits"]) == (0, "proven", told["commits"])

    code, event = auditor.run("prove", STREAM, "5", "--key", auditor.folder / "key.pem")
    assert (code, event["result"], event["partition"]) == (0, "proven", PARTITION)


# --- What is done to it

Plant = Callable[[Tables, list[LogEntry]], AbstractContextManager[Found]]


def of_stream(entries: list[LogEntry]) -> list[LogEntry]:
    return [entry for entry in entries if entry.stream == STREAM]


def at(entry: LogEntry, reason: str) -> Found:
    return Found(reason, entry.leaf, entry.stream, entry.first_version)


@contextmanager
def edited(tables: Tables, entries: list[LogEntry]) -> Iterator[Found]:
    """One byte of one event."""
    first, second, *rest = tables.commits(STREAM)
    events = [event.replace(b"the truth", b"the lie!!", 1) for event in unpack(from_item(second)["ev"])]
    with tables.changed([first, edit(second, ev=pack(events)), *rest]):
        yield at(of_stream(entries)[1], "An event of this commit was changed")


@contextmanager
def without_an_attribute(tables: Tables, entries: list[LogEntry]) -> Iterator[Found]:
    first, second, *rest = tables.commits(STREAM)
    with tables.changed([first, {name: value for name, value in second.items() if name != "root"}, *rest]):
        yield at(of_stream(entries)[1], "cannot show this commit")


@contextmanager
def deleted(tables: Tables, entries: list[LogEntry]) -> Iterator[Found]:
    """A commit in the middle."""
    first, _, *rest = tables.commits(STREAM)
    with tables.changed([first, *rest]):
        yield at(of_stream(entries)[1], "cannot show this commit")


@contextmanager
def reordered(tables: Tables, entries: list[LogEntry]) -> Iterator[Found]:
    """Two commits, each at the other's place."""
    first, second, third, *rest = tables.commits(STREAM)
    swapped = [{**third, "sk": second["sk"]}, {**second, "sk": third["sk"]}]
    with tables.changed([first, *swapped, *rest]):
        yield at(of_stream(entries)[1], "does not follow the one before it")


@contextmanager
def cut_off(tables: Tables, entries: list[LogEntry]) -> Iterator[Found]:
    """The newest commits of a stream, which its log still names."""
    *rest, _, _ = tables.commits(STREAM)
    with tables.changed(rest):
        yield at(of_stream(entries)[-2], "cannot show this commit")


def in_order_of_the_log(tables: Tables, entries: list[LogEntry]) -> list[Item]:
    commits = {(stream, int(row["sk"]["N"])): row for stream in STREAMS for row in tables.commits(stream)}
    return [commits[entry.stream, entry.first_version] for entry in entries]


@contextmanager
def cut_off_with_the_log(tables: Tables, entries: list[LogEntry]) -> Iterator[Found]:
    """The newest commits of a partition, as if they had never been: only anchors remember them."""
    left = in_order_of_the_log(tables, entries)[:-2]
    assert {entry.stream for entry in entries[-2:]} == {STREAM}
    with tables.changed(tables.commits(STREAM)[:-2], tables.logged(left)):
        yield Found("the rest was cut off", len(left))


@contextmanager
def forked(tables: Tables, entries: list[LogEntry]) -> Iterator[Found]:
    """From what was seen early on, the stream goes on otherwise, and so does its log: each in itself is sound."""
    first, second, third, fourth = tables.commits(STREAM)
    other_third = forged(third, second)
    other_fourth = forged(fourth, other_third)
    others = {key_text(row): row for row in (other_third, other_fourth)}
    log = [others.get(key_text(row), row) for row in in_order_of_the_log(tables, entries)]
    with tables.changed([first, second, other_third, other_fourth], tables.logged(log)):
        yield Found("has another root", of_stream(entries)[2].leaf, leaf_offline=len(entries) // 2)


PLANTS: dict[str, Plant] = {
    "edited": edited,
    "without an attribute": without_an_attribute,
    "deleted": deleted,
    "reordered": reordered,
    "cut off": cut_off,
    "cut off with the log": cut_off_with_the_log,
    "forked": forked,
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_what_was_done_to_a_history_is_found_online_and_offline_with_its_place(auditor, tables, entries, plant):
    with plant(tables, entries) as expected:
        lies = auditor.export("lies.gz")
        answers = [auditor.verify(memory="early.json"), auditor.verify("--export", lies, memory="early.json")]
        after_all = auditor.verify()

    for (code, told), leaf in zip(answers, (expected.leaf, expected.leaf_offline or expected.leaf), strict=True):
        assert (code, told["error"]["code"]) == (1, "broken")
        assert expected.reason in told["error"]["reason"]
        found = tuple(told["error"][name] for name in ("partition", "leaf", "stream", "version"))
        assert found == (PARTITION, leaf, expected.stream, expected.version)
    assert after_all[0] == 1
    # What was exported before says what it said, and holds against what is told now.
    assert auditor.verify("--export", auditor.folder / "history.gz")[0] == 0


def test_what_lies_beside_a_changed_event_is_proven_still(auditor, tables, entries):
    with edited(tables, entries) as expected:
        code, told = auditor.run("prove", STREAM, str(expected.version), "--key", auditor.folder / "key.pem")
        assert (code, told["error"]["code"]) == (1, "broken")
        assert auditor.run("prove", "orders/8", "5", "--key", auditor.folder / "key.pem")[0] == 0


def test_what_is_put_back_is_proven_again(auditor):
    assert auditor.verify()[0] == 0
