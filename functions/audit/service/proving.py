"""Proofs: that an event is in the log, shown without its neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from functions.audit import domain
from holdfast import proofs
from holdfast.errors import NotFound
from holdfast.log.blocks import Place
from holdfast.log.values import partition_of
from holdfast.streams import Commit, EventStore
from holdfast.streams.packing import header_of, root_of


class InTree(Protocol):
    """That a leaf is in a partition's tree of *size* leaves."""

    @property
    def leaf(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def path(self) -> Sequence[bytes]: ...
    @property
    def root(self) -> bytes: ...


class Log(Protocol):
    """One tenant's log, as proofs need it (`holdfast.log.LogReader`)."""

    def place_of(self, stream: str, version: int) -> Place: ...
    def inclusion(self, partition: int, leaf: int, size: int | None = None) -> InTree: ...


class EventProof(msgspec.Struct, frozen=True):
    """From an event's bytes up: its commit's own tree, the commit's header, and the log's tree."""

    event_bytes: bytes
    event_index: int
    event_path: list[bytes]
    header: bytes
    leaf: int
    size: int
    path: list[bytes]
    root: bytes


@dataclass(frozen=True)
class Prover:
    """Proofs of one tenant's events."""

    store: EventStore[bytes]
    log: Log

    def prove(self, partition: int, stream: str, version: int, size: int | None) -> EventProof:
        """
        Prove that an event is in *partition* as it was at *size* leaves, by default all of them.

        Raises:
            NotFound: `stream_not_found`, `version_not_found`; the stream may lie in another partition.
            Invalid: `invalid_range`, the partition had not that size yet, or held less than this event.
            Unavailable: `not_in_log_yet`.
        """
        commit = self._commit(stream, version)
        if partition_of(stream) != partition:
            raise NotFound(
                "stream_not_found",
                f"The stream {stream!r} lies in partition {partition_of(stream)}.",
                partition=partition_of(stream),
            )
        in_log = self.log.inclusion(partition, self.log.place_of(stream, version).leaf, size)
        index = version - commit.first_version
        leaves = [proofs.leaf_hash(event) for event in commit.events]
        return EventProof(
            event_bytes=commit.events[index],
            event_index=index,
            event_path=_path_among(leaves, index),
            header=_header(commit),
            leaf=in_log.leaf,
            size=in_log.size,
            path=list(in_log.path),
            root=in_log.root,
        )

    def _commit(self, stream: str, version: int) -> Commit[bytes]:
        commit = next(self.store.read(stream, version - 1, until=version), None)
        if commit is None or not commit.first_version <= version <= commit.version:
            newest = self.store.last(stream)
            if newest is None:
                raise domain.stream_not_found(stream)
            domain.check_version(version, newest.version)
            raise LookupError(f"{stream!r} has no commit with version {version}, and ends at {newest.version}")
        return commit


def _path_among(leaves: Sequence[bytes], index: int) -> list[bytes]:
    def node(level: int, at: int) -> bytes:
        return proofs.root(leaves[at << level : (at + 1) << level])

    return proofs.inclusion_path(index, len(leaves), node)


def _header(commit: Commit[bytes]) -> bytes:
    """Write the header from the events themselves: if they were changed, it is not the one that the log has."""
    return header_of(
        tenant=commit.tenant,
        stream=commit.stream,
        first_version=commit.first_version,
        count=len(commit.events),
        events_root=root_of(commit.events),
        commit_id=commit.commit_id,
        actor=commit.actor,
        recorded_at=commit.recorded_at,
        previous_hash=commit.previous_hash,
    )
