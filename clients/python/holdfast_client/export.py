"""
A whole log in one file: fetched page by page, closed with a digest, and checked by `holdfast_client.verifier`.

What is exported is decided before it is fetched: an anchor, and how far each partition has come since. So it ends
although the log goes on.
"""

import gzip
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast_client.audit import Audit
from holdfast_client.audit_operations import reader_of
from holdfast_client.audit_queries import PARTITIONS, LogHead, QueryCalls, partition_of
from holdfast_client.conversation import Call
from holdfast_client.errors import NotFound, Unavailable
from holdfast_client.events import time_text
from holdfast_client.export_lines import Anchor, End, Extent, Manifest, log_of
from holdfast_client.transport import Transport

COVER_SECONDS_MAX: Final = 60.0
"""How long to wait until the log holds, and an anchor covers, what was stored when one began to wait."""
POLL_SECONDS: Final = 1.0
ANCHORS_MAX: Final = 500
"""Anchors fetched for one export; of a longer chain the newest."""
LOG_PAGE_ENTRIES: Final = 1_000
"""Commits asked for with one page of the log."""
PAGES_MAX: Final = 1_000_000
"""Pages asked for in a row: of what is stored, 4 MB each. Whoever is not trusted could go on for ever."""
NAMED_MAX: Final = 5
"""Streams that an error names, of however many."""

_encode = msgspec.json.Encoder().encode


class Behind(msgspec.Struct, frozen=True):
    """A stream of which commits are stored that the log does not hold."""

    stream: str
    logged: int
    """The version up to which the log holds it."""
    version: int
    """The version at which the newest of these commits begins."""
    commits: int


class _BehindPage(msgspec.Struct, frozen=True):
    items: list[Behind]
    commits: int
    cursor: str | None = None


class ExportPage(msgspec.Struct, frozen=True):
    lines: list[msgspec.Raw]
    cursor: str | None = None


class _KeySet(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class ExportCalls(QueryCalls):
    """What is asked for an export, as calls that are yet to be made."""

    def page(self, partition: int, from_leaf: int, cursor: str | None) -> Call[ExportPage]:
        query = {"partition": str(partition), "from_leaf": str(from_leaf)} | ({"cursor": cursor} if cursor else {})
        return self._read("/v1/export", query, reader_of(ExportPage))

    def behind(self, cursor: str | None) -> Call[_BehindPage]:
        return self._read("/v1/log/missing", {"cursor": cursor} if cursor else {}, reader_of(_BehindPage))

    def anchor(self, seq: int | None) -> Call[Anchor]:
        return self._read(f"/v1/anchors/{'latest' if seq is None else seq}", {}, reader_of(Anchor))

    def keys(self) -> Call[_KeySet]:
        return self._read("/v1/keys", {}, reader_of(_KeySet))


class Export:
    """The log of one tenant, for somebody who wants to check it."""

    def __init__(self, calls: ExportCalls, transport: Transport) -> None:
        self._calls = calls
        self._transport = transport

    @classmethod
    def of(cls, audit: Audit) -> "Export":
        """Export what *audit* speaks to."""
        return cls(ExportCalls(audit.calls.url, audit.calls.headers), audit.transport)

    def heads(self) -> dict[int, int]:
        """Ask how many commits each partition has."""
        return {partition: self._head(partition).size for partition in range(PARTITIONS)}

    def _head(self, partition: int) -> LogHead:
        return self._transport.run(self._calls.head(partition))

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
        show: Callable[[int], None] = lambda _commits: None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Anchor | None:
        """
        Wait until the log holds what is stored now, and an anchor covers it; None if nothing is stored.

        What the log lacks is looked for first, in what is stored and not in the log; *show* is told how many commits
        have been looked at.

        Raises:
            Unavailable: `not_in_log`, the log still lacks commits; or `not_anchored_yet`.
        """
        positions = {partition: self._head(partition).position for partition in range(PARTITIONS)}
        behind = self._behind(show)
        ends_at = monotonic() + seconds_max
        while True:
            for partition in {partition_of(stream) for stream in behind}:
                positions[partition] = self._logged(partition, positions[partition], behind)
            if not behind:
                return self.anchored(self.heads(), ends_at=ends_at, monotonic=monotonic, sleep=sleep)
            if monotonic() >= ends_at:
                raise _not_in_log(behind, seconds_max)
            sleep(POLL_SECONDS)

    def anchored(
        self,
        sizes: Mapping[int, int],
        *,
        ends_at: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Anchor | None:
        """
        Wait for an anchor that covers *sizes*; None if they are nothing.

        Raises:
            Unavailable: `not_anchored_yet`.
        """
        if not any(sizes.values()):
            return None
        ends_at = monotonic() + COVER_SECONDS_MAX if ends_at is None else ends_at
        while True:
            anchor = self.anchor()
            anchored = {head.partition: head.size for head in anchor.heads} if anchor else {}
            if anchor and all(anchored.get(partition, 0) >= size for partition, size in sizes.items()):
                return anchor
            if monotonic() >= ends_at:
                raise Unavailable(
                    "not_anchored_yet",
                    f"In time no anchor covers what is stored: it has {anchored}, the log {dict(sizes)}. "
                    "Anchors are made every minute; if none comes, look at the anchor function.",
                    facts={"anchored": anchored, "stored": sizes},
                )
            sleep(POLL_SECONDS)

    def _behind(self, show: Callable[[int], None]) -> dict[str, Behind]:
        """Look for what is stored and not in the log, slice by slice."""
        found: dict[str, Behind] = {}
        looked_at, cursor = 0, None
        for _ in range(PAGES_MAX):
            page = self._transport.run(self._calls.behind(cursor))
            for item in page.items:
                known = found.get(item.stream)
                commits = item.commits + (known.commits if known else 0)  # a stream may lie across two slices
                found[item.stream] = msgspec.structs.replace(item, commits=commits)
            looked_at += page.commits
            show(looked_at)
            if page.cursor is None:
                return found
            if page.cursor == cursor:
                break
            cursor = page.cursor
        raise _endless("what is stored and not in the log")

    def _logged(self, partition: int, position: int, behind: dict[str, Behind]) -> int:
        """Read what has come to a partition since *position*, and strike from *behind* what it has made up for."""
        after = position
        for _ in range(PAGES_MAX):
            page = self._transport.run(self._calls.log(partition, after, LOG_PAGE_ENTRIES))
            for entry in page.entries:
                position = entry.position + entry.events - 1
                if entry.stream in behind and entry.first_version >= behind[entry.stream].version:
                    del behind[entry.stream]
            if page.next_after is None:
                return position
            if page.next_after <= after:
                break
            after = page.next_after
        raise _endless(f"partition {partition} of the log")

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
        service, tenant, log_id = log_of(anchor)
        extents = [Extent(partition, from_leaves.get(partition, 0), size) for partition, size in sorted(sizes.items())]
        now = time_text(datetime.now(UTC))
        yield Manifest(v=1, service=service, tenant=tenant, log_id=log_id, exported_at=now, partitions=extents)
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


def _not_in_log(behind: Mapping[str, Behind], seconds: float) -> Unavailable:
    streams = sorted(behind.values(), key=lambda each: each.stream)
    told = [
        f"{each.commits:,} commits of stream {each.stream}, from version {each.logged + 1} on"
        for each in streams[:NAMED_MAX]
    ]
    rest = [f"those of {len(streams) - NAMED_MAX:,} other streams"] if len(streams) > NAMED_MAX else []
    return Unavailable(
        "not_in_log",
        f"Not covered: {'; '.join(told + rest)} are stored and not in the log after {seconds:.0f} s.",
        facts={"streams": [msgspec.to_builtins(each) for each in streams]},
    )


def _endless(what: str) -> Unavailable:
    return Unavailable("endless_answer", f"The service's pages of {what} do not move on, or never end.")


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
