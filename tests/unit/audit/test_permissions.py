"""
No function asks AWS for what its role does not let it ask, and no role lets it ask for more.

Roles are written by hand, and a test with the rights of an owner shows nothing of them: so every route and every
function is led through its life here, its rare turns too, and each request is held against the template.
"""

import itertools
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from functions.audit import adapters, domain
from functions.audit.app import app, tail, workers
from holdfast import snapshots
from holdfast.archive import ArchiveReader
from holdfast.broadcast import Broadcast
from holdfast.dynamodb.transport import Answer
from holdfast.envelope import MemoryKeyRing
from holdfast.log import partition_of
from holdfast.log.blocks import EVENTS_CLOSE
from holdfast.projections.rebuilds import STILL
from holdfast.proofs import TILE_HASHES
from holdfast.streams import Append
from holdfast.subjects import KeyCache, SubjectKeys
from holdfast.testing import Killed
from tests.audit_lab import AuditLab, event
from tests.broadcast_lab import MemoryPost
from tests.log_lab import LogLab, memory_tables
from tests.memory_dynamodb import MemoryTransport
from tests.permitted import API, Watch, WatchedObjects, WatchedOutbox, WatchedPost, WatchedRing, WatchedSigner

INTAKE = json.loads((Path(__file__).parents[3] / "events/audit/intake-messages.json").read_text())
FUNCTIONS = {API, "Anchor", "Archiver", "Indexer", "Intake", "Projector", "Rebuilder", "Repair", "Subscriber", "Tail"}
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:inbox"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:news"
AGED = timedelta(days=100)
WEEK = timedelta(days=8)
PARTITION = partition_of("orders/1")
POISONED = next(name for name in map("poisoned/{}".format, range(20)) if partition_of(name) == 0)
GROWING = [name for name in map("growing:{}".format, range(400)) if partition_of(name) == PARTITION][:64]
"""Streams of one partition."""


class NoTimeLeft:
    """Of a function's time, as Lambda tells it."""

    def get_remaining_time_in_millis(self) -> int:
        return 0


class Trail:
    """An audit trail of which it is noted which function asks for what."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("HOLDFAST_SUBSCRIPTION_TARGETS", f"{QUEUE},{TOPIC}")
        patch.setenv("HOLDFAST_WEBSOCKET_URL", "wss://here")
        self.memory = MemoryTransport()
        self.watch = Watch(self.memory)
        self.audit = AuditLab(LogLab(self.watch, memory_tables(self.memory)), patch)
        self.audit.as_tenant("acme")
        self.audit.lab.tenant = "acme"
        self.patch = patch
        self.post = MemoryPost(open={"c1"})
        self.asked: set[str] = set()
        self.grown: list[int] = []
        self.requests = itertools.count()
        self.archive = WatchedObjects(self.audit.objects, self.watch, "ArchiveBucket")
        anchored = WatchedObjects(self.audit.anchored, self.watch, "AnchorBucket")
        patch.setattr(adapters, "archive_objects", lambda: self.archive)
        patch.setattr(adapters, "anchor_objects", lambda: anchored)
        patch.setattr(adapters, "outbox", lambda: WatchedOutbox(self.audit.outbox, self.watch))
        patch.setattr(adapters, "signer", lambda: WatchedSigner(self.audit.signer, self.watch))
        for name in ("broadcast", "send_step", "subject_keys"):
            patch.setattr(adapters, name, getattr(self, f"_{name}"))

    def _broadcast(self) -> Broadcast:
        lab, post = self.audit.lab, WatchedPost(self.post, self.watch)
        return Broadcast(lab.database(), lab.tables, post, is_revoked=lambda _: False)

    def _send_step(self, *step: Any) -> None:
        self.watch.note("RebuildQueue", "sqs:SendMessage")
        self.audit.steps.append(step)

    def _subject_keys(self, tenant: str) -> SubjectKeys:
        lab, ring = self.audit.lab, WatchedRing(self.audit.ring, self.watch)
        return SubjectKeys(lab.database(), lab.tables, ring, tenant, self.audit.keys)

    def pass_by(self, time: timedelta) -> None:
        self.audit.lab.clock.advance(time)

    # ----- the functions

    def _acting(self, name: str) -> AbstractContextManager[None]:
        """Let a function act, in a process of its own: it remembers no key or object that another has read."""
        lab = self.audit.lab
        self.audit.keys = KeyCache(lab.clock)
        self.audit._archived = ArchiveReader(lab.database(), lab.tables, self.archive)
        return self.watch.acting(name)

    def ask(self, method: str, template: str, body: Any = None, query: str = "", **parameters: Any) -> Any:
        headers = {"idempotency-key": key} if (key := parameters.pop("key", None)) else {}
        with self._acting(API):
            status, answer, _ = self.audit.door.call(
                method, template, body=body, path=f"x?{query}", parameters=parameters, headers=headers
            )
        assert status < 300, (method, template, answer)
        self.asked.add(f"{method} {template}")
        return answer

    def append(self, stream: str, *events: Any, expected: Any = "any") -> None:
        self.pass_by(timedelta(milliseconds=7))
        body = {"events": list(events), "expected_version": expected}
        self.ask("POST", "/v1/streams/{stream}/events", body, stream=stream.replace("/", "~"))

    def wake(self, name: str, event: Any | None = None, context: Any = None) -> Any:
        with self._acting(name):
            return getattr(workers, name.lower())(event or {}, context)

    def index(self, *streams: str) -> None:
        """Wake the indexer with records of these streams' last commits, and the projector with those of the log."""
        known = self._rows("commits")
        keys = [key for key in known if key["pk"]["S"].partition("#")[2].partition("#")[2] in streams]
        before = self._rows("log")
        self.wake("Indexer", records(keys))
        grown = [key for key in self._rows("log") if key not in before and key["pk"]["S"].startswith("L#")]
        self.wake("Projector", records(grown))
        self.wake("Subscriber", records(grown))

    def settle(self) -> None:
        for name in ("Repair", "Projector", "Subscriber", "Anchor"):
            self.wake(name)

    def work(self, until: int = 0) -> None:
        """Let the rebuilder take its messages until so many are left."""
        while len(self.audit.steps) > until:
            self.step()

    def step(self, context: Any = None) -> None:
        tenant, rebuild_id, partition = self.audit.steps.pop(0)
        body = json.dumps({"tenant": tenant, "rebuild_id": rebuild_id, "partition": partition})
        message = {"messageId": "m", "body": body, "eventSourceARN": QUEUE}
        assert self.wake("Rebuilder", {"Records": [message]}, context) == {"batchItemFailures": []}

    def hear(self, kind: str, *, status: int = 200, **members: Any) -> None:
        context = {"eventType": kind, "connectionId": "c1", "requestId": f"r{next(self.requests)}"}
        with self._acting("Tail"):
            assert tail({"requestContext": context, **members}, None) == {"statusCode": status}

    def listen_from_the_beginning(self, *, status: int = 200) -> None:
        self.post.open.add("c1")
        self.hear("CONNECT", queryStringParameters={"ticket": self.ask("POST", "/v1/tickets")["ticket"]})
        self.hear("MESSAGE", body=json.dumps({"type": "subscribe", "after": dict.fromkeys("0123", 0)}), status=status)

    def commits(self, stream: str) -> list[Any]:
        """Read a stream's rows behind the service's back."""
        rows = self.memory.call("Scan", {"TableName": "commits"}).body["Items"]
        return [row for row in rows if row["pk"]["S"] == f"S#acme#{stream}"]

    def _rows(self, table: str) -> list[Any]:
        return [
            {"pk": row["pk"], "sk": row["sk"]} for row in self.memory.call("Scan", {"TableName": table}).body["Items"]
        ]


def records(keys: list[Any]) -> dict[str, Any]:
    return {"Records": [{"eventName": "INSERT", "dynamodb": {"Keys": key}} for key in keys]}


# ----- what is done, in the order of a life


def write(trail: Trail) -> None:
    trail.append("orders/1", event(1, data={"a": 1}), expected=None)
    trail.append("orders/1", event(2, data={"a": 2}), expected=1)
    trail.append("orders/1", event(2, data={"a": 2}), expected=1)
    trail.append("orders/2", event(1, shredkey="customers/7", data={"secret": 1}))
    both = [{"stream": f"orders/{n}", "expected_version": "any", "events": [event(f"both-{n}")]} for n in (3, 4)]
    for _ in range(2):
        trail.ask("POST", "/v1/commits", {"appends": both}, key="both")
    for message in (INTAKE, INTAKE, about_somebody(1), about_somebody(2)):
        assert trail.wake("Intake", message) == {"batchItemFailures": []}
    trail.index("orders/1", "orders/2")
    trail.settle()


def about_somebody(number: int) -> Any:
    """Write a message of another service about a data subject."""
    envelope = json.loads(INTAKE["Records"][0]["body"])
    envelope["detail"] |= {"id": f"sealed-{number}", "shredkey": "customers/8"}
    return {"Records": [{**INTAKE["Records"][0], "body": json.dumps(envelope)}]}


def write_much(trail: Trail) -> None:
    """
    Let streams grow so long that snapshots of them are made: where hints come, and where Repair finds them.

    They are objects, as large ones are.
    """
    with trail.patch.context() as patch:
        patch.setattr(snapshots, "INLINE_BYTES_MAX", 0)
        for stream in ("long/1", "long/2"):
            for first in (0, EVENTS_CLOSE):
                sealed = event(first, shredkey="customers/7", data={"secret": first})
                trail.append(stream, sealed, *(event(n, data={"n": n}) for n in range(first + 1, first + EVENTS_CLOSE)))
                if stream == "long/1":
                    trail.index(stream)
        trail.settle()


def read(trail: Trail) -> None:
    one = {"stream": "orders~1"}
    trail.ask("GET", "/v1/streams/{stream}/events", query="order=desc", **one)
    trail.ask("GET", "/v1/streams/{stream}/events", stream="orders~2")
    trail.ask("GET", "/v1/streams/{stream}/state", **one)
    trail.ask("GET", "/v1/streams/{stream}/state", stream="long~1")
    trail.ask("GET", "/v1/streams/{stream}/diff", query="from_version=1", **one)
    trail.ask("GET", "/v1/events", query="actor=ann&include=data&limit=10")
    trail.ask("GET", "/v1/streams")
    trail.ask("GET", "/v1/activity")
    trail.ask("GET", "/v1/log")
    trail.ask("GET", "/v1/log/missing")
    trail.ask("GET", "/v1/log/{partition}", partition=str(PARTITION))
    trail.ask("GET", "/v1/log/{partition}/head", partition=str(PARTITION))
    trail.ask("GET", "/v1/log/{partition}/inclusion", query="stream=orders~1&version=1", partition=str(PARTITION))
    trail.ask("GET", "/v1/log/{partition}/consistency", query="from=1&to=1", partition=str(PARTITION))
    trail.ask("GET", "/v1/export", query=f"partition={PARTITION}")
    trail.ask("GET", "/v1/anchors/latest")
    trail.ask("GET", "/v1/anchors/{seq}", seq="1")
    trail.ask("GET", "/v1/keys")
    trail.ask("GET", "/openapi.json")


def read_while_it_is_recorded(trail: Trail) -> None:
    trail.ask("GET", "/v1/settings")
    trail.ask("PUT", "/v1/settings", {"record_reads": True})
    trail.pass_by(timedelta(minutes=1))
    trail.ask("GET", "/v1/streams/{stream}/events", stream="orders~1")
    trail.hear("CONNECT", queryStringParameters={"ticket": trail.ask("POST", "/v1/tickets")["ticket"]})
    trail.hear("MESSAGE", body=json.dumps({"type": "subscribe"}))
    trail.hear("DISCONNECT")
    trail.ask("PUT", "/v1/settings", {"record_reads": False})
    trail.pass_by(timedelta(minutes=1))


def grow(trail: Trail) -> list[Any]:
    """Let a partition grow by as many commits as a tile of its tree holds; return records of them."""
    store = adapters.event_stores().of("acme", "ann")
    number = len(trail.grown)
    for _ in range(TILE_HASHES // len(GROWING)):
        number += 1
        events = [msgspec.json.encode(event(number))]
        store.append_many([Append(name, number - 1, events) for name in GROWING], commit_id=f"growing-{number}")
        trail.grown.append(number)
    return [{"pk": {"S": f"S#acme#{name}"}, "sk": {"N": str(number)}} for name in GROWING]


def prove(trail: Trail) -> None:
    """Prove and export what the indexer could not make tiles of any more: whoever misses one makes it."""

    class KilledBeforeTheTile:
        def call(self, operation: str, request: Any) -> Answer:
            if "M#acme" in str(request):
                raise Killed
            return trail.watch.call(operation, request)

    killed = trail.audit.lab.database(KilledBeforeTheTile())
    for _ in range(2):
        grown = grow(trail)
        with trail.patch.context() as patch:
            patch.setattr(adapters, "database", lambda: killed)
            with pytest.raises(Killed):
                trail.wake("Indexer", records(grown))
    partition, size = str(PARTITION), 2 * TILE_HASHES
    query = f"stream={GROWING[0]}&version=1&size={size}"
    trail.ask("GET", "/v1/log/{partition}/inclusion", query=query, partition=partition)
    trail.ask("GET", "/v1/log/{partition}/consistency", query=f"from=3&to={size}", partition=partition)
    trail.ask("GET", "/v1/export", query=f"partition={PARTITION}&from_leaf={size - 1}")
    trail.wake("Indexer", records(grow(trail)))
    grow(trail)
    trail.wake("Repair")


def rebuild(trail: Trail) -> None:
    """Make every view again; the log has grown when it is swapped in, and again when it is rolled back."""
    for view in ("events", "streams", "activity"):
        body = {"view": view, "reason": "r", "auto_flip": False}
        place = {"rebuild_id": trail.ask("POST", "/v1/rebuilds", body, key=view)["rebuild_id"]}
        trail.ask("GET", "/v1/rebuilds/{rebuild_id}", **place)
        trail.pass_by(STILL)
        trail.wake("Projector")  # which asks again for steps that nobody makes
        trail.step(NoTimeLeft())  # and so does who is at one
        trail.work()
        for change in ("flip", "rollback"):
            trail.append("orders/1", event(f"{view}-{change}"))
            trail.settle()
            trail.ask("POST", f"/v1/rebuilds/{{rebuild_id}}/{change}", **place)
        other = trail.ask("POST", "/v1/rebuilds", {**body, "auto_flip": True}, key=f"{view}2")["rebuild_id"]
        trail.work()
        last = trail.ask("POST", "/v1/rebuilds", {**body, "reason": other}, key=f"{view}3")["rebuild_id"]
        trail.ask("POST", "/v1/rebuilds/{rebuild_id}/abandon", rebuild_id=last)
        trail.work()
    trail.pass_by(WEEK)
    trail.settle()


def but_for_one_stream(sound: Callable[..., Any]) -> Callable[..., Any]:
    def change(*given: Any) -> Any:
        if given[-1].stream == POISONED:
            raise ValueError("a bug")
        return sound(*given)

    return change


def redrive(trail: Trail) -> None:
    for view, method in (("streams", "change"), ("events", "rows")):
        with trail.patch.context() as patch:
            made_by = type(getattr(domain, view.upper()))
            patch.setattr(made_by, method, but_for_one_stream(getattr(made_by, method)))
            trail.append(POISONED, event(f"poison-{view}"))
            trail.index(POISONED)
            trail.settle()
            trail.ask("POST", "/v1/rebuilds", {"view": view, "reason": "as good as it gets"}, key=f"poison-{view}")
            trail.work(until=1)
            trail.append(POISONED, event(f"behind-{view}"))  # which the swap has to take along
            trail.index(POISONED)
            trail.work()
        assert trail.ask("GET", "/v1/views/{view}/parked", view=view)["items"]
        assert trail.ask("POST", "/v1/views/{view}/redrive", view=view)["redriven"]


def subscribe(trail: Trail) -> None:
    place = {"name": "all"}
    trail.ask("PUT", "/v1/subscriptions/{name}", {"target": QUEUE, "from": "start"}, **place)
    trail.ask("PUT", "/v1/subscriptions/{name}", {"target": TOPIC, "types": ["t"]}, **place)
    trail.audit.outbox.refusal = lambda *_: "poison"
    for _ in range(7):
        trail.pass_by(timedelta(minutes=10))
        trail.wake("Subscriber")
    assert trail.ask("GET", "/v1/subscriptions/{name}/parked", **place)["items"]
    trail.audit.outbox.refusal = lambda *_: None
    trail.ask("POST", "/v1/subscriptions/{name}/redrive", **place)
    trail.wake("Subscriber")
    trail.ask("GET", "/v1/subscriptions/{name}", **place)
    assert trail.audit.outbox.sent[TOPIC]


def end_the_subscription(trail: Trail) -> None:
    trail.ask("DELETE", "/v1/subscriptions/{name}", name="all")
    trail.wake("Subscriber")


def listen(trail: Trail) -> None:
    trail.listen_from_the_beginning()
    trail.append("orders/2", event("heard", shredkey="customers/7", data={"secret": 2}))
    trail.index("orders/2")
    trail.hear("MESSAGE", body=json.dumps({"type": "ping"}))
    trail.hear("DISCONNECT")
    trail.hear("CONNECT", queryStringParameters={"ticket": trail.ask("POST", "/v1/tickets")["ticket"]})
    trail.hear("MESSAGE", body=json.dumps({"type": "subscribe"}))
    trail.post.close("c1")  # and nobody was told
    trail.append("orders/1", event("not heard"))
    trail.index("orders/1")


def erase(trail: Trail) -> None:
    place, reason = {"subject": "customers~7"}, {"reason": "r"}
    trail.ask("PUT", "/v1/subjects/{subject}/hold", reason, **place)
    trail.ask("DELETE", "/v1/subjects/{subject}/hold", reason, **place)
    trail.ask("POST", "/v1/subjects/{subject}/erasure", reason, **place)
    trail.settle()


def archive(trail: Trail) -> None:
    trail.pass_by(AGED)
    for _ in range(3):
        trail.wake("Archiver")
    assert list(trail.audit.objects.keys(""))


def go_on_with_the_archive(trail: Trail) -> None:
    read(trail)
    trail.append("orders/1", event(1, data={"a": 1}), expected=None)  # a repeat of what is archived
    trail.ask("POST", "/v1/rebuilds", {"view": "streams", "reason": "all of it"}, key="archived")
    trail.work()
    trail.listen_from_the_beginning()
    trail.ask("PUT", "/v1/subscriptions/{name}", {"target": QUEUE, "from": "start"}, name="all")
    trail.wake("Subscriber")
    assert trail.audit.outbox.sent[QUEUE]


def meet_damage(trail: Trail) -> None:
    """Let whoever tells of damage meet some: a commit that was changed, one that is gone, a key that is another."""
    trail.append("lost/1", event(1), event(2))
    trail.append("lost/1", event(3))
    trail.append("broken/1", event(1))
    (broken,) = trail.commits("broken/1")
    trail.memory.call("PutItem", {"TableName": "commits", "Item": {**broken, "actor": {"S": "mallory"}}})
    trail.index("lost/1", "broken/1")
    trail.wake("Repair")
    for row in trail.commits("lost/1"):
        trail.memory.call("DeleteItem", {"TableName": "commits", "Key": {"pk": row["pk"], "sk": row["sk"]}})
    trail.listen_from_the_beginning(status=500)
    trail.audit.ring = MemoryKeyRing()
    assert trail.wake("Intake", about_somebody(3))["batchItemFailures"]
    trail.pass_by(AGED)
    trail.wake("Archiver")


LIFE = (
    write,
    rebuild,
    redrive,
    subscribe,
    end_the_subscription,
    write_much,
    read,
    read_while_it_is_recorded,
    listen,
    archive,
    go_on_with_the_archive,
    erase,
    prove,
    meet_damage,
)


def test_every_function_may_do_what_it_does_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    trail = Trail(monkeypatch)
    for chapter in LIFE:
        chapter(trail)

    served = {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}
    assert trail.asked == served
    assert set(trail.watch.uses) == FUNCTIONS
    assert trail.watch.refused("audit") == []
    assert trail.watch.idle("audit") == []
