"""
The indexer: streams' commits into log partitions whose places have no gaps.

What tells it that a stream has grown is only a *hint*: it may be lost, come twice, or come before an earlier one. So a
hint names a stream, and what the stream holds beyond its watermark is read from the table itself. One transaction then
moves everything at once, or nothing: the segment, the partition's head, the watermark of each stream in it, and the
blocks that this closes. Two indexers on one partition meet at the head; the loser reads again, and drops what is
indexed by then.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import msgspec

from holdfast.clock import from_micros
from holdfast.dynamodb.attributes import ordered, to_item
from holdfast.dynamodb.reads import Row, RowKey, get_many, query
from holdfast.dynamodb.tables import Tables, stream_key
from holdfast.dynamodb.writes import Database, carry_out, put_action, update_action
from holdfast.errors import Unavailable
from holdfast.log.blocks import Block, Summary, Watermark, advanced, block_row, watermark_of, watermark_row
from holdfast.log.heads import head_of, head_row
from holdfast.log.tiles import Tiles
from holdfast.log.values import (
    REFERENCES_MAX,
    SOLE,
    Head,
    Reference,
    block_key,
    directory_key,
    head_key,
    pack_references,
    partition_of,
    segment_key,
    watermark_key,
)
from holdfast.proofs import TILE_HASHES, Frontier, leaf_hash
from holdfast.retry import seconds_left
from holdfast.streams.companions import Change, Is
from holdfast.streams.packing import header_of

ACTIONS_MAX: Final = 96
"""Rows of one transaction (DynamoDB takes 100): the segment, the head, its directory row, watermarks and blocks."""
STANDING_ACTIONS: Final = 3
"""Of these, the rows that do not depend on the streams."""
STREAMS_MAX: Final = 90
"""Streams looked at for one segment: with the head, one batch read holds their watermarks."""
ROUNDS_MAX: Final = 400
"""Transactions for one partition in one call; a call that has more to do is repeated by whoever made it."""


class Hint(msgspec.Struct, frozen=True):
    """Somebody says that a commit at *first_version* was written."""

    tenant: str
    stream: str
    first_version: int


class Broken(msgspec.Struct, frozen=True):
    """A commit that does not follow from the one before it: it was changed, or others were removed."""

    tenant: str
    stream: str
    version: int
    reason: str


OnBroken = Callable[[Broken], None]
"""Told of a broken stream. Its further commits stay out of the log until somebody has looked; all others go on."""


OnGrowth = Callable[[Head], None]
"""Told of a head after it has moved."""


@dataclass
class _Growth:
    """What one stream will add to a segment."""

    stream: str
    before: Watermark
    after: Watermark
    references: list[Reference] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    fault: Broken | None = None
    """Why its very next commit may not be taken."""


@dataclass(frozen=True)
class Indexer:
    """Move commits into the log, each once and in its stream's order."""

    database: Database
    tables: Tables
    on_broken: OnBroken
    on_growth: OnGrowth = lambda _head: None

    def index(self, hints: Iterable[Hint]) -> int:
        """
        Index every stream that *hints* name, at least as far as they say; return how many commits that moved.

        May be repeated, run beside itself, and be given hints late, twice, or in any order.

        Raises:
            Unavailable: `unfinished`, there was more to do than time for it; repeat with the same hints.
        """
        groups: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
        for hint in hints:
            streams = groups[hint.tenant, partition_of(hint.stream)]
            streams[hint.stream] = max(hint.first_version, streams.get(hint.stream, 0))
        moved, failed = 0, list[Exception]()
        for (tenant, partition), streams in groups.items():
            try:
                moved += self._index(tenant, partition, streams)
            except Exception as error:  # noqa: BLE001 - told below; one tenant's trouble is not another's
                failed.append(error)
        if failed:
            raise failed[0]
        return moved

    def _index(self, tenant: str, partition: int, streams: Mapping[str, int]) -> int:
        pending, moved = dict(streams), 0
        for _ in range(ROUNDS_MAX):
            if not pending:
                return moved
            if seconds_left() <= 0:
                break
            chosen = list(pending)[:STREAMS_MAX]
            head, watermarks = self._standing(tenant, partition, chosen)
            behind = {name: watermarks[name] for name in chosen if watermarks[name].version < pending[name]}
            growths = list(self._growths(head, behind, pending))
            faults = [growth.fault for growth in growths if growth.fault]
            for fault in faults:
                self.on_broken(fault)
            grown = [growth for growth in growths if growth.references]
            after = self._write(head, grown) if grown else None
            if after:
                moved += after.size - head.size
                self.on_growth(after)
            done = {growth.stream for growth in grown if after and growth.after.version >= pending[growth.stream]}
            done |= {fault.stream for fault in faults} | (set(chosen) - set(behind))
            pending = {name: first_version for name, first_version in pending.items() if name not in done}
        raise Unavailable("unfinished", "There is more to index than there was time for; repeat.")

    def _standing(self, tenant: str, partition: int, streams: Sequence[str]) -> tuple[Head, dict[str, Watermark]]:
        log = self.tables.log
        keys: list[RowKey] = [(log, head_key(tenant, partition), SOLE)]
        keys += [(log, watermark_key(tenant, stream), SOLE) for stream in streams]
        rows = get_many(self.database, keys)
        watermarks = {stream: watermark_of(rows.get((log, watermark_key(tenant, stream), SOLE))) for stream in streams}
        return head_of(tenant, partition, rows.get(keys[0])), watermarks

    def _growths(self, head: Head, behind: Mapping[str, Watermark], hinted: Mapping[str, int]) -> Iterator[_Growth]:
        """Read what the streams hold beyond their watermarks, as far as one segment takes it."""
        size, position, actions = head.size, head.position, ACTIONS_MAX - STANDING_ACTIONS
        for stream, watermark in behind.items():
            room = head.size + REFERENCES_MAX - size
            if room <= 0 or actions <= 0:
                return
            growth = _Growth(stream, watermark, watermark)
            for row in self._commits(head.tenant, stream, watermark.version, room):
                reason = _fault(head.tenant, stream, growth.after, row)
                if reason:
                    if not growth.references:
                        growth.fault = Broken(head.tenant, stream, row["sk"], reason)
                    break
                moved, closed = advanced(growth.after, _summary(row, size, position + row["n"]))
                if len(growth.blocks) + len(closed) + 1 > actions:
                    break
                growth.after = moved
                growth.blocks += closed
                growth.references.append(_reference(head.tenant, stream, row))
                size, position = size + 1, position + row["n"]
            else:
                if not growth.references:
                    growth.fault = Broken(head.tenant, stream, hinted[stream], "it was announced and is not there")
            if growth.references:
                actions -= 1 + len(growth.blocks)
            yield growth

    def _commits(self, tenant: str, stream: str, after: int, limit: int) -> Iterator[Row]:
        return query(self.database, self.tables.commits, stream_key(tenant, stream), after=after, limit=limit)

    def _write(self, head: Head, growths: Sequence[_Growth]) -> Head | None:
        """Move head, segment, watermarks and blocks together; None if somebody else has moved one of them."""
        references = [reference for growth in growths for reference in growth.references]
        frontier = Frontier(head.size, head.frontier).extend(reference.leaf_hash for reference in references)
        newest = from_micros(max(reference.recorded_at for reference in references))
        after = Head(
            tenant=head.tenant,
            partition=head.partition,
            size=frontier.size,
            position=head.position + sum(reference.events for reference in references),
            root=frontier.root,
            frontier=frontier.hashes,
            recorded_at=max(newest, head.recorded_at) if head.recorded_at else newest,
        )
        if not carry_out(self.database, list(self._actions(head, after, references, growths))):
            return None
        if after.size // TILE_HASHES > head.size // TILE_HASHES:
            Tiles(self.database, self.tables, head.tenant, head.partition).extend(after)
        return after

    def _actions(
        self, before: Head, after: Head, references: Sequence[Reference], growths: Sequence[_Growth]
    ) -> Iterator[Mapping[str, Any]]:
        log, tenant = self.tables.log, after.tenant
        segment = {
            "pk": segment_key(tenant, after.partition),
            "sk": ordered(after.position),
            "first": before.position + 1,
            "leaf": before.size,
            "refs": pack_references(list(references)),
        }
        yield {"Put": put_action(log, to_item(segment))}
        yield self._moved(head_key(tenant, after.partition), "size", before.size, head_row(after))
        if before.size == 0:
            shard, name = directory_key(tenant, after.partition)
            yield {"Put": put_action(log, to_item({"pk": shard, "sk": name}))}
        for growth in growths:
            key = watermark_key(tenant, growth.stream)
            yield self._moved(key, "v", growth.before.version, watermark_row(growth.after))
            for block in growth.blocks:
                place = {
                    "pk": block_key(tenant, growth.stream, block.level),
                    "sk": ordered(block.first_version),
                }
                yield {"Put": put_action(log, to_item(place | block_row(block)))}

    def _moved(self, pk: str, counter: str, before: int, row: Row) -> Mapping[str, Any]:
        """Write a row that must not exist yet, or must still stand where it was read."""
        key = {"pk": pk, "sk": SOLE}
        if before == 0:
            return {"Put": put_action(self.tables.log, to_item(key | row))}
        return {"Update": update_action(self.tables.log, Change(key, (Is(counter, before),), set=row))}


def _fault(tenant: str, stream: str, before: Watermark, row: Row) -> str | None:
    """Say why a commit does not follow from the one before it."""
    try:
        return _mismatch(tenant, stream, before, row)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return f"it is no whole commit: {type(error).__name__}: {error}"


def _mismatch(tenant: str, stream: str, before: Watermark, row: Row) -> str | None:
    if row["sk"] != before.version + 1:
        return f"versions {before.version + 1} to {row['sk'] - 1} are missing"
    if row["prev"] != before.hash:
        return "it does not name the hash of the commit before it"
    if row["rt"] <= before.recorded_at:
        return "it was recorded no later than the commit before it"
    if sha256(_header(tenant, stream, row)).digest() != row["hash"]:
        return "its header does not have its hash"
    _summary(row, 0, 0)  # what is read beside the header must be there as well
    return None


def _header(tenant: str, stream: str, row: Row) -> bytes:
    return header_of(
        tenant=tenant,
        stream=stream,
        first_version=row["sk"],
        count=row["n"],
        events_root=row["root"],
        commit_id=row["commit_id"],
        actor=row["actor"],
        recorded_at=from_micros(row["rt"]),
        previous_hash=row["prev"],
    )


def _reference(tenant: str, stream: str, row: Row) -> Reference:
    return Reference(stream, row["sk"], row["n"], row["commit_id"], leaf_hash(_header(tenant, stream, row)), row["rt"])


def _summary(row: Row, leaf: int, last_position: int) -> Summary:
    return Summary(
        first_version=row["sk"],
        events=row["n"],
        stored_bytes=len(row["ev"]),
        earliest=row["tlo"],
        latest=row["thi"],
        recorded_at=row["rt"],
        hash=row["hash"],
        leaf=leaf,
        last_position=last_position,
    )
