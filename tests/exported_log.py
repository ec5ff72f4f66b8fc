"""A log made without tables: commits of the real memory store, anchors of the real code, lines for the verifier."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from holdfast.anchors import Anchor, MemorySigner, Statement
from holdfast.anchors.signing import Signer, key_id_of
from holdfast.anchors.statements import leaves_of, super_root_of, view_of
from holdfast.clock import ManualClock, to_micros
from holdfast.exporting import CommitLine, FrontierLine
from holdfast.log.values import PARTITIONS, Head, log_id, partition_of
from holdfast.proofs import leaf_hash, node_hash, root
from holdfast.streams import MemoryEventStores, RawCodec
from holdfast.streams.packing import header_of, root_of
from holdfast_client import export_lines
from holdfast_client.export import closed

SERVICE = "audit"
TENANT = "local"
OTHER_TENANTS = 5
STREAMS = ("orders/1", "orders/2", "orders/3", "orders/8", "orders/9")
"""They lie in all four partitions; the first and the last share one."""


def event(number: int) -> bytes:
    return msgspec.json.encode({"type": "test.happened", "id": str(number)}, order="sorted")


def pem(signer: Signer) -> bytes:
    return load_der_public_key(signer.public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class ExportedLog:
    """One tenant's log; with its signer, whoever makes it can sign whatever it likes."""

    signer: MemorySigner = field(default_factory=MemorySigner)
    clock: ManualClock = field(default_factory=ManualClock)
    commits: dict[int, list[CommitLine]] = field(default_factory=lambda: {p: [] for p in range(PARTITIONS)})
    anchors: list[Anchor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stores = MemoryEventStores(RawCodec(), self.clock)
        self._ends: dict[str, int] = {}

    def append(self, stream: str, *events: bytes) -> None:
        store = self._stores.of(TENANT, "ann")
        end = self._ends.get(stream, 0)
        store.append(stream, end, events, commit_id=f"{stream}@{end}")
        self._ends[stream] = end + len(events)
        commit = store.last(stream)
        assert commit
        header = header_of(
            tenant=TENANT,
            stream=stream,
            first_version=commit.first_version,
            count=len(commit.events),
            events_root=root_of(commit.events),
            commit_id=commit.commit_id,
            actor=commit.actor,
            recorded_at=commit.recorded_at,
            previous_hash=commit.previous_hash,
        )
        self.clock.advance(timedelta(milliseconds=1))
        self.add(partition_of(stream), header, tuple(commit.events))

    def add(self, partition: int, header: bytes, events: tuple[bytes, ...]) -> None:
        lines = self.commits[partition]
        position = lines[-1].position + len(lines[-1].events) if lines else 1
        lines.append(CommitLine(partition, len(lines), position, header, events))

    def fill(self, commits: int, *, first: int = 0, streams: Sequence[str] = STREAMS) -> "ExportedLog":
        for number in range(first, first + commits):
            events = [event(number * 10 + each) for each in range(1 + number % 3)]
            self.append(streams[number % len(streams)], *events)
        return self

    def heads(self) -> Iterator[Head]:
        for partition, lines in self.commits.items():
            leaves = root(leaf_hash(line.header) for line in lines)
            yield Head(TENANT, partition, len(lines), 0, leaves, (), None)
        for number in range(OTHER_TENANTS):
            yield Head(f"t{number}" if number % 2 else f"a{number}", 0, 1, 1, bytes([number]) * 32, (), None)

    def anchor(self, *, signer: MemorySigner | None = None, **changes: Any) -> Anchor:
        """Sign what the log comes to now; *changes* make the statement say something else."""
        signer = signer or self.signer
        leaves = leaves_of(SERVICE, self.heads())
        before = self.anchors[-1] if self.anchors else None
        statement = Statement(
            seq=len(self.anchors) + 1,
            time=to_micros(self.clock.now()),
            service=SERVICE,
            leaves=len(leaves),
            super_root=super_root_of(leaves),
            previous=before.digest if before else "",
        )
        self.clock.advance(timedelta(seconds=1))
        signed = msgspec.structs.replace(statement, **changes).to_bytes()
        self.anchors.append(Anchor(signed, signer.sign(signed), key_id_of(signer), leaves))
        return self.anchors[-1]

    def manifest(self, from_leaves: Mapping[int, int] | None = None) -> export_lines.Manifest:
        extents = [
            export_lines.Extent(partition, (from_leaves or {}).get(partition, 0), len(lines))
            for partition, lines in self.commits.items()
        ]
        log = log_id(SERVICE, TENANT)
        return export_lines.Manifest(
            v=1, service=SERVICE, tenant=TENANT, log_id=log, exported_at="2026-01-01T00:00:00Z", partitions=extents
        )

    def parts(
        self, anchors: Iterable[Anchor] | None = None, from_leaves: Mapping[int, int] | None = None
    ) -> list[dict[str, Any]]:
        """Give the lines as JSON values, for a test to change."""
        return [msgspec.json.decode(line) for line in self.unclosed(anchors, from_leaves)]

    def unclosed(
        self, anchors: Iterable[Anchor] | None = None, from_leaves: Mapping[int, int] | None = None
    ) -> Iterator[bytes]:
        yield msgspec.json.encode(self.manifest(from_leaves))
        for partition, lines in self.commits.items():
            first = (from_leaves or {}).get(partition, 0)
            if first:
                hashes = frontier([leaf_hash(line.header) for line in lines[:first]])
                yield msgspec.json.encode(FrontierLine(partition, first, hashes))
            yield from map(msgspec.json.encode, lines[first:])
        for anchor in self.anchors if anchors is None else anchors:
            view = msgspec.to_builtins(view_of(anchor, TENANT))
            yield msgspec.json.encode({"type": "anchor", **view})

    def lines(
        self, anchors: Iterable[Anchor] | None = None, from_leaves: Mapping[int, int] | None = None
    ) -> list[bytes]:
        return list(closed(self.unclosed(anchors, from_leaves)))


def closed_parts(parts: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """Close lines with a digest of their own: whoever changes an export can do that too."""
    return list(closed(map(msgspec.json.encode, parts)))


def frontier(hashes: Sequence[bytes]) -> tuple[bytes, ...]:
    """Hash each perfect subtree by itself, largest first."""
    roots = list[bytes]()
    while hashes:
        width = 1 << (len(hashes).bit_length() - 1)
        roots.append(perfect(hashes[:width]))
        hashes = hashes[width:]
    return tuple(roots)


def perfect(hashes: Sequence[bytes]) -> bytes:
    half = len(hashes) // 2
    return node_hash(perfect(hashes[:half]), perfect(hashes[half:])) if half else hashes[0]
