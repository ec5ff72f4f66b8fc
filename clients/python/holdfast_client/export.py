"""
A whole log in one file: fetched page by page, closed with a digest, and checked by `holdfast_client.verifier`.

What is exported is decided before it is fetched: an anchor, and how far each partition has come since. So it ends
although the log goes on.
"""

import gzip
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from holdfast_client.audit import Audit
from holdfast_client.conversation import Call, Request
from holdfast_client.errors import NotFound, Unavailable
from holdfast_client.events import time_text
from holdfast_client.transport import Transport
from holdfast_client.verifier import Unreadable
from holdfast_client.verifier_lines import PARTITIONS, Anchor, End, Extent, HeadLeaf, Manifest, Statement

COVER_SECONDS_MAX: Final = 60.0
"""How long to wait until an anchor covers what was stored when one began to wait."""
SETTLE_SECONDS_MAX: Final = 10.0
"""How long of that to wait for the log to take in what has just been appended."""
POLL_SECONDS: Final = 1.0
ANCHORS_MAX: Final = 500
"""Anchors fetched for one export; of a longer chain the newest."""
LINE_BYTES_MAX: Final = 64_000_000
"""One line of a file: more than the largest commit takes."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_encode = msgspec.json.Encoder().encode


class LogHead(msgspec.Struct, frozen=True):
    """How far one partition has come."""

    partition: int
    size: int
    root: bytes = b""


class ExportPage(msgspec.Struct, frozen=True):
    lines: list[msgspec.Raw]
    cursor: str | None = None


class _KeySet(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class ExportCalls:
    """What is asked for an export, as calls that are yet to be made."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url.rstrip("/")
        self._headers = headers

    def page(self, partition: int, from_leaf: int, cursor: str | None) -> Call[ExportPage]:
        query = {"partition": str(partition), "from_leaf": str(from_leaf)} | ({"cursor": cursor} if cursor else {})
        return self._get(f"/v1/export?{urlencode(query)}", ExportPage)

    def head(self, partition: int) -> Call[LogHead]:
        return self._get(f"/v1/log/{partition}/head", LogHead)

    def anchor(self, seq: int | None) -> Call[Anchor]:
        return self._get(f"/v1/anchors/{'latest' if seq is None else seq}", Anchor)

    def keys(self) -> Call[_KeySet]:
        return self._get("/v1/keys", _KeySet)

    def _get(self, path: str, kind: type[Any]) -> Call[Any]:
        request = Request("GET", self._url + path, self._headers)
        return Call(request, lambda answer: msgspec.json.decode(answer.body, type=kind))


class Export:
    """The log of one tenant, for somebody who wants to check it."""

    def __init__(self, calls: ExportCalls, transport: Transport) -> None:
        self._calls = calls
        self._transport = transport

    @classmethod
    def of(cls, audit: Audit) -> "Export":
        """Export what *audit* speaks to."""
        calls = audit._calls  # noqa: SLF001 - two parts of one client
        return cls(ExportCalls(calls._url, calls._headers), audit._transport)  # noqa: SLF001

    def heads(self) -> dict[int, int]:
        """Ask how many commits each partition has."""
        heads = (self._transport.run(self._calls.head(partition)) for partition in range(PARTITIONS))
        return {head.partition: head.size for head in heads}

    def anchor(self, seq: int | None = None) -> Anchor | None:
        """Fetch an anchor, by default the newest; None if there is none yet."""
        try:
            return self._transport.run(self._calls.anchor(seq))
        except NotFound:
            return None

    def named_keys(self) -> list[dict[str, Any]]:
        """Fetch the public keys that the service names (JWK). A verifier does not ask: it pins."""
        return self._transport.run(self._calls.keys()).keys

    def covering(
        self,
        *,
        seconds_max: float = COVER_SECONDS_MAX,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Anchor | None:
        """
        Wait for an anchor that covers what is stored now; None if nothing is.

        What was appended a moment ago is in the log a moment later, so the log is first given time to settle.

        Raises:
            Unavailable: `not_anchored_yet`.
        """
        began = monotonic()
        sizes = self.heads()
        while monotonic() - began < min(SETTLE_SECONDS_MAX, seconds_max):
            sleep(POLL_SECONDS)
            before, sizes = sizes, self.heads()
            if sizes == before:
                break
        if not any(sizes.values()):
            return None
        while True:
            anchor = self.anchor()
            anchored = {head.partition: head.size for head in anchor.heads} if anchor else {}
            if anchor and all(anchored.get(partition, 0) >= size for partition, size in sizes.items()):
                return anchor
            if monotonic() - began >= seconds_max:
                raise Unavailable(
                    "not_anchored_yet",
                    f"After {seconds_max:.0f} s no anchor covers what is stored: it has {anchored}, the log {sizes}. "
                    "Anchors are made every minute; if none comes, look at the anchor function.",
                    facts={"anchored": anchored, "stored": sizes},
                )
            sleep(POLL_SECONDS)

    def lines(
        self, anchor: Anchor, *, seen_seq: int | None = None, from_leaves: Mapping[int, int] | None = None
    ) -> Iterator[bytes]:
        """
        Fetch the log as the lines of an export: up to where it is now, and at least up to *anchor*.

        The anchors after *seen_seq* come with it, so that their chain can be checked. *from_leaves* leaves out what
        lies before, per partition.
        """
        sizes = self.heads()
        return closed(map(_line, self._told(anchor, sizes, seen_seq, from_leaves or {})))

    def _told(
        self, anchor: Anchor, sizes: Mapping[int, int], seen_seq: int | None, from_leaves: Mapping[int, int]
    ) -> Iterator[Any]:
        try:
            statement = msgspec.json.decode(anchor.statement, type=Statement)
            leaf = msgspec.json.decode(anchor.heads[0].leaf, type=HeadLeaf)
        except (msgspec.MsgspecError, IndexError) as error:
            raise Unavailable("unreadable_answer", f"The service's anchor is none of this log: {error}") from error
        extents = [Extent(partition, from_leaves.get(partition, 0), size) for partition, size in sorted(sizes.items())]
        now = time_text(datetime.now(UTC))
        yield Manifest(
            v=1,
            service=statement.service,
            tenant=leaf.tenant,
            log_id=leaf.log_id,
            exported_at=now,
            partitions=extents,
        )
        for extent in extents:
            yield from self._commits(extent)
        first = anchor.seq if seen_seq is None else max(seen_seq + 1, anchor.seq - ANCHORS_MAX)
        for seq in range(first, anchor.seq):
            between = self.anchor(seq)
            if between:
                yield between
        yield anchor

    def _commits(self, extent: Extent) -> Iterator[bytes]:
        """Fetch page after page, as many lines as the extent has commits (and one for those before it)."""
        left = extent.size - extent.from_leaf + (1 if extent.from_leaf else 0)
        cursor = None
        while left > 0:
            page = self._transport.run(self._calls.page(extent.partition, extent.from_leaf, cursor))
            yield from map(bytes, page.lines[:left])
            left -= len(page.lines)
            cursor = page.cursor
            if cursor is None:
                return  # too early, and the verifier will say so
            if not page.lines:
                raise Unavailable("empty_page", "The service answered with a page without a line.")


def _line(told: Any) -> bytes:
    return told if isinstance(told, bytes) else _encode(told)


def closed(lines: Iterable[bytes]) -> Iterator[bytes]:
    """End each line, and all of them with how many they were and their digest."""
    digest, count = sha256(), 0
    for line in lines:
        ended = line + b"\n"
        digest.update(ended)
        count += 1
        yield ended
    yield _encode(End(count, digest.hexdigest())) + b"\n"


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write a gzip file, which appears under its name when it is whole."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
            for line in lines:
                file.write(line)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_lines(path: Path) -> Iterator[bytes]:
    """
    Read the lines of an export, gzip or plain.

    Raises:
        Unreadable: the file is damaged, or cut short.
    """
    with path.open("rb") as raw:
        is_gzip = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        raw.seek(0)
        file = gzip.GzipFile(fileobj=raw) if is_gzip else raw
        while True:
            try:
                line = file.readline(LINE_BYTES_MAX)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise Unreadable(str(error)) from error
            if not line:
                return
            if len(line) == LINE_BYTES_MAX:
                raise Unreadable(f"it has a line of over {LINE_BYTES_MAX:,} bytes")
            yield line
