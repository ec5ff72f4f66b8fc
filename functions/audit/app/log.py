"""Routes of the log: its commits in their order, its heads, and proofs of what they say. Hashes are base64."""

from typing import Annotated, Final

import msgspec

from functions.audit import adapters, domain
from functions.audit.app.door import STORE_ERRORS, STORE_UNAVAILABLE, Limit, Version, app, prover, stream_named
from functions.audit.app.recording import recorded
from functions.audit.service import EventProof, Looking
from functions.audit.service.looking import Behind
from holdfast.clock import from_micros, to_text
from holdfast.http import Caller
from holdfast.http.faults import WHOLE_NUMBER
from holdfast.log import PARTITIONS, Entry, Head, log_id
from holdfast.log.reader import check_partition

Size = Version


class LogAnswer(msgspec.Struct, frozen=True):
    log_id: str
    partitions: int


class PartitionQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    after: Version = 0
    """A position; commits that hold later ones follow."""
    limit: Limit = 100


class HeadAnswer(msgspec.Struct, frozen=True):
    partition: int
    size: int
    """Commits, which are the leaves of the tree."""
    position: int
    """Events in them."""
    root: bytes
    recorded_at: str | None
    """When the latest of them was recorded; null where there is none."""

    @classmethod
    def of(cls, head: Head) -> "HeadAnswer":
        recorded_at = to_text(head.recorded_at) if head.recorded_at else None
        return cls(head.partition, head.size, head.position, head.root, recorded_at)


class EntryItem(msgspec.Struct, frozen=True):
    position: int
    events: int
    leaf: int
    stream: str
    first_version: int
    commit_id: str
    leaf_hash: bytes
    recorded_at: str

    @classmethod
    def of(cls, entry: Entry) -> "EntryItem":
        reference = entry.reference
        return cls(
            position=entry.position,
            events=reference.events,
            leaf=entry.leaf,
            stream=reference.stream,
            first_version=reference.first_version,
            commit_id=reference.commit_id,
            leaf_hash=reference.leaf_hash,
            recorded_at=to_text(from_micros(reference.recorded_at)),
        )


class PartitionAnswer(msgspec.Struct, frozen=True):
    partition: int
    entries: list[EntryItem]
    next_after: int | None
    head: HeadAnswer


class InclusionQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stream: str
    version: Annotated[int, msgspec.Meta(ge=1, le=domain.VERSION_MAX)]
    size: Size | None = None
    """Of the tree, in commits; all of them if not said."""


class ConsistencyQuery(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from", "second": "to"}
):
    first: Size
    second: Size


class ConsistencyAnswer(msgspec.Struct, frozen=True, rename={"first": "from", "second": "to"}):
    first: int
    second: int
    path: list[bytes]
    root_from: bytes
    root_to: bytes


class MissingQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cursor: str | None = None


class BehindItem(msgspec.Struct, frozen=True):
    """A stream that goes on beyond what the log holds of it."""

    stream: str
    logged: int
    """The version up to which the log holds it."""
    version: int
    """The version at which the newest commit begins that this slice shows of it."""
    commits: int
    """How many this slice shows that the log does not hold."""

    @classmethod
    def of(cls, behind: Behind) -> "BehindItem":
        return cls(behind.stream, behind.logged, behind.version, behind.commits)


class MissingAnswer(msgspec.Struct, frozen=True):
    items: list[BehindItem]
    commits: int
    """How many of the caller's commits this slice has looked at."""
    cursor: str | None


MISSING_ERRORS = {
    **STORE_ERRORS,
    400: ["invalid_cursor"],
    503: [*STORE_UNAVAILABLE, "cursor_key_unknown"],
}
FOLLOWING: Final = ("audit:read", "audit:verify")
"""Whoever follows the tail reads here what was lost on the way."""

LOG_ERRORS = {**STORE_ERRORS, 404: ["partition_not_found"]}
PARTITION_ERRORS = {**LOG_ERRORS, 503: [*STORE_UNAVAILABLE, "not_recorded"]}
CONSISTENCY_ERRORS = {**LOG_ERRORS, 400: ["invalid_range"], 503: [*STORE_UNAVAILABLE, "not_in_log_yet"]}
INCLUSION_ERRORS = {
    **STORE_ERRORS,
    400: ["invalid_stream", "invalid_range"],
    404: ["partition_not_found", "stream_not_found", "version_not_found"],
    503: [*STORE_UNAVAILABLE, "not_in_log_yet", "not_recorded"],
}


@app.get("/v1/log", scope="audit:verify")
def get_log(caller: Caller) -> LogAnswer:
    """Name the caller's log, and say how many partitions it has."""
    return LogAnswer(log_id("audit", caller.tenant), PARTITIONS)


@app.get("/v1/log/missing", scope="audit:verify", raises=MISSING_ERRORS)
def get_missing(caller: Caller, query: MissingQuery) -> MissingAnswer:
    """
    Name the streams of which commits are stored that the log does not hold, a slice of what is stored at a time.

    A slice may name none, and the end is where there is no cursor. A stream may be named by two slices that follow.
    """
    missing = looking(caller).missing(query.cursor)
    return MissingAnswer([*map(BehindItem.of, missing.behind)], missing.commits, missing.cursor)


@app.get("/v1/log/{partition}", scope=FOLLOWING, raises=PARTITION_ERRORS)
@recorded("log")
def get_partition(caller: Caller, partition: str, query: PartitionQuery) -> PartitionAnswer:
    """Read the commits of a partition in their order, a page at a time."""
    number = partition_named(partition)
    page = looking(caller).page(number, after=query.after, limit=query.limit)
    return PartitionAnswer(
        partition=number,
        entries=[*map(EntryItem.of, page.entries)],
        next_after=page.next_after,
        head=HeadAnswer.of(page.head),
    )


@app.get("/v1/log/{partition}/head", scope=FOLLOWING, raises=LOG_ERRORS)
def get_head(caller: Caller, partition: str) -> HeadAnswer:
    """Say how far a partition has come, and the root of its tree."""
    return HeadAnswer.of(adapters.log_of(caller.tenant).head(partition_named(partition)))


@app.get("/v1/log/{partition}/inclusion", scope="audit:verify", raises=INCLUSION_ERRORS)
@recorded("inclusion")
def get_inclusion(caller: Caller, partition: str, query: InclusionQuery) -> EventProof:
    """Prove that an event is in a partition (RFC 9162, section 2.1.3), without showing its neighbours."""
    number = partition_named(partition)
    return prover(caller).prove(number, stream_named(query.stream), query.version, query.size)


@app.get("/v1/log/{partition}/consistency", scope="audit:verify", raises=CONSISTENCY_ERRORS)
def get_consistency(caller: Caller, partition: str, query: ConsistencyQuery) -> ConsistencyAnswer:
    """Prove that a partition only grew between two sizes (RFC 9162, section 2.1.4)."""
    log = adapters.log_of(caller.tenant)
    proof = log.consistency(partition_named(partition), query.first, query.second)
    return ConsistencyAnswer(proof.first, proof.second, list(proof.path), proof.root_first, proof.root_second)


def looking(caller: Caller) -> Looking:
    log, walk = adapters.log_of(caller.tenant), adapters.missing_of(caller.tenant)
    return Looking(caller.tenant, log, walk, adapters.cursors)


def partition_named(segment: str) -> int:
    """
    Read a partition's number.

    Raises:
        NotFound: `partition_not_found`; it is no number, or there is no such partition.
    """
    is_number = WHOLE_NUMBER.fullmatch(segment) and len(segment) == 1
    return check_partition(int(segment) if is_number else -1)
