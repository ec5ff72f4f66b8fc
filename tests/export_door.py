"""The doors that an export is fetched through, without a network: real pages and anchors of a made log."""

from collections.abc import Callable
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from holdfast.anchors import Anchors, MemorySigner, public_keys
from holdfast.clock import from_micros
from holdfast.errors import NotFound, ServiceError
from holdfast.exporting import Bookmark, Exporter
from holdfast.log.bodies import Bodies
from holdfast.log.missing import Missing
from holdfast.objects import MemoryObjects
from holdfast_client.conversation import Answer, Call, Request
from holdfast_client.errors import read_failure
from holdfast_client.export import Export, ExportCalls
from tests.log_lab import LogLab

SERVICE = "audit"


class ExportDoor:
    """Answers what `Export` asks about one lab's log."""

    def __init__(self, lab: LogLab, signer: MemorySigner | None = None) -> None:
        self.lab = lab
        self.signer = signer or MemorySigner()
        self.objects = MemoryObjects()
        self.asked: list[str] = []
        self.before_answer: Callable[[str], None] = lambda _path: None

    @property
    def anchors(self) -> Anchors:
        return Anchors(self.lab.database(), self.lab.tables, SERVICE, self.objects, self.signer)

    @property
    def exporter(self) -> Exporter:
        return Exporter(self.lab.log(), Bodies(self.lab.database(), self.lab.tables))

    def export(self) -> Export:
        transport: Any = self
        return Export(ExportCalls("http://holdfast/audit", {}), transport)

    def run(self, call: Call[Any]) -> Any:
        status, body = self.respond(call.request)
        if status != 200:
            raise read_failure(status, None, body).error
        return call.read(Answer(status, {}, body))

    def respond(self, request: Request) -> tuple[int, bytes]:
        url = urlsplit(request.url)
        path = url.path.removeprefix("/audit")
        self.asked.append(path)
        self.before_answer(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            return 200, msgspec.json.encode(self.answer(path, query))
        except ServiceError as error:
            problem = {"code": error.code, "detail": error.detail, "retryable": error.retryable}
            return error.http_status, msgspec.json.encode(problem)

    def answer(self, path: str, query: dict[str, str]) -> Any:
        match path.removeprefix("/v1/").split("/"):
            case ["export"]:
                place = msgspec.json.decode(query["cursor"], type=Bookmark) if "cursor" in query else None
                page = self.exporter.page(int(query["partition"]), int(query["from_leaf"]), place)
                following = msgspec.json.encode(page.following).decode() if page.following else None
                return {"lines": page.lines, "cursor": following}
            case ["log", "missing"]:
                start = msgspec.json.decode(query["cursor"]) if "cursor" in query else None
                found = Missing(self.lab.database(), self.lab.tables, self.lab.tenant).slice(start, pages_max=1)
                cursor = msgspec.json.encode(found.following).decode() if found.following else None
                return {"items": found.behind, "commits": found.commits, "cursor": cursor}
            case ["log", partition]:
                return self.entries(int(partition), int(query["after"]), int(query["limit"]))
            case ["log", partition, "head"]:
                head = self.lab.log().head(int(partition))
                recorded_at = None
                return {
                    "partition": head.partition,
                    "size": head.size,
                    "position": head.position,
                    "root": head.root,
                    "recorded_at": recorded_at,
                }
            case ["anchors", "latest"]:
                latest = self.anchors.latest()
                if latest is None:
                    raise NotFound("anchor_not_found", "There is none yet.")
                return self.anchors.for_tenant(latest, self.lab.tenant)
            case ["anchors", seq]:
                return self.anchors.for_tenant(self.anchors.get(int(seq)), self.lab.tenant)
            case ["keys"]:
                return public_keys([self.signer.public_key])
            case _:
                raise AssertionError(path)

    def entries(self, partition: int, after: int, limit: int) -> Any:
        head = self.lab.log().head(partition)
        entries = list(islice(self.lab.log().entries(partition, after, until=head.position), limit))
        follows = bool(entries) and entries[-1].last_position < head.position
        items = [
            {
                "position": entry.position,
                "leaf": entry.leaf,
                "recorded_at": from_micros(entry.reference.recorded_at),
                **{
                    name: getattr(entry.reference, name)
                    for name in ("events", "stream", "first_version", "commit_id", "leaf_hash")
                },
            }
            for entry in entries
        ]
        return {
            "partition": partition,
            "entries": items,
            "next_after": entries[-1].last_position if follows else None,
        }
