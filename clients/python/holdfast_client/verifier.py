"""
Check an exported history without trusting whoever exported it.

A verifier brings two things of its own: the public key it has pinned, and what it has seen proven before. Everything
else it computes. Events hash to a root, the root stands in a header, headers hash to the leaves of a log, the log's
root stands in a head, heads hash to one root, and that root is signed (trees as in RFC 6962, section 2.1). A signature
alone proves little: whoever holds the key may sign another history. So the log must also begin with what was seen.

It shares no code with what it checks: the kernel could change, and this must still say what it said.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from typing import Any, Final, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from holdfast_client.errors import Invalid
from holdfast_client.verifier_lines import (
    HASH_BYTES,
    PARTITIONS,
    Anchor,
    Commit,
    Count,
    End,
    Extent,
    Frontier,
    Hash,
    Header,
    HeadLeaf,
    Line,
    Lost,
    Manifest,
    Number,
    Partition,
    Statement,
)

T = TypeVar("T")

SPOOLED_BYTES_MAX: Final = 16_000_000
"""Leaf hashes of one partition that are kept in memory; beyond, they lie in a temporary file."""
EMPTY_ROOT: Final = sha256(b"").digest()

_RECORD_BYTES: Final = HASH_BYTES + 8
_MALFORMED: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


class Seen(Struct, frozen=True, forbid_unknown_fields=True):
    """How far one partition had come."""

    size: Count
    root: Hash


class State(Struct, frozen=True, forbid_unknown_fields=True):
    """What has been seen proven, up to one anchor; keep it where the exporter cannot write."""

    service: str
    tenant: str
    log_id: str
    seq: Number
    statement: Hash
    """The SHA-256 of the anchor's statement."""
    time: Count
    """When the anchor was signed, in microseconds since 1970, as its signer says."""
    heads: dict[Partition, Seen]


class Proven(Struct, frozen=True):
    """Everything up to the newest anchor is as it was signed, and begins with what was seen before."""

    state: State
    """What to bring the next time."""
    commits: int
    events: int
    """How much was there to check, up to that anchor."""
    from_leaves: Mapping[int, int]
    """Per partition, the leaf at which the export begins; what lies before is known by its hashes only."""
    not_yet_anchored: int
    """Commits beyond the anchor: in order, and signed by nobody."""


class Broken(Struct, frozen=True):
    """The first place that does not hold; None is what nobody could tell."""

    reason: str
    partition: int | None = None
    leaf: int | None = None
    stream: str | None = None
    version: int | None = None


class Unreadable(Exception):
    """Lines cannot be read any further: what holds them is damaged or cut short."""


_decode_line = msgspec.json.Decoder(Line).decode
_decode_header = msgspec.json.Decoder(Header).decode
_encode = msgspec.json.Encoder().encode


def verify(lines: Iterable[bytes], public_keys: bytes, state: State | None = None) -> Proven | Broken:
    """
    Check the lines of an export against *public_keys* (PEM, pinned) and *state* (None: the first time).

    Nothing in the lines makes this raise: what they break is told.

    Raises:
        Invalid: *public_keys* holds something else than public keys on P-256.
    """
    is_signed = _signature_check(public_keys)
    with ExitStack() as files:
        checks = _Checks(is_signed, state, files)
        try:
            for line in lines:
                checks.take(line)
            return checks.proven()
        except _Found as found:
            return found.broken
        except Unreadable as error:
            return Broken(f"The export ends in the middle: {error}")


class _Found(Exception):
    def __init__(self, broken: Broken) -> None:
        super().__init__(broken.reason)
        self.broken = broken


def _stop(reason: str, **place: Any) -> NoReturn:
    raise _Found(Broken(reason, **place))


class _Tree:
    """The leaves of one partition, kept as they come, and the root that follows the anchors through them."""

    def __init__(self, extent: Extent, file: Any) -> None:
        self.extent = extent
        self.leaves = extent.from_leaf
        """How many there are, with those before the export."""
        self.size = extent.from_leaf
        """How many of them the root is of."""
        self.events = 0
        """How many events these hold, without those before the export."""
        self._pending: list[bytes] = []
        """The roots of the perfect subtrees of *size* leaves, largest first."""
        self._position = 0 if extent.from_leaf == 0 else None
        self._counted = 0
        self._file = file

    def begin(self, frontier: Frontier) -> None:
        """Take the hashes that stand for what lies before the export. That they are true, only a root will tell."""
        if self._pending or self.leaves != frontier.size or len(frontier.hashes) != frontier.size.bit_count():
            _stop("The hashes before the export do not fit it.", partition=self.extent.partition)
        self._pending = list(frontier.hashes)

    def fault_of(self, commit: Commit) -> str | None:
        """Say why *commit* is not the next one."""
        if len(self._pending) != self.extent.from_leaf.bit_count():
            return "The hashes of what lies before the export are missing."
        if commit.leaf != self.leaves:
            return f"Leaf {self.leaves} is missing, or stands elsewhere: here is leaf {commit.leaf}."
        if self._position is not None and commit.position != self._position + 1:
            return f"The commit begins at position {commit.position}; the one before it ends at {self._position}."
        return None

    def add(self, commit: Commit) -> None:
        self.leaves += 1
        self._counted += len(commit.events)
        self._position = commit.position + len(commit.events) - 1
        leaf_hash = sha256(b"\x00" + commit.header).digest()
        self._file.write(leaf_hash + self._counted.to_bytes(_RECORD_BYTES - HASH_BYTES, "big"))

    def follow(self, head: Seen, name: str) -> None:
        """Go on to as many leaves as *head* has: the root there must be its root."""
        place = {"partition": self.extent.partition, "leaf": min(head.size, self.size)}
        if head.size < self.size:
            _stop(f"{name} ends there, before {self.size}: the log shrank, or the export begins too late.", **place)
        if head.size > self.leaves:
            place["leaf"] = self.leaves
            _stop(f"{name} has {head.size} commits, and here are {self.leaves}: the rest was cut off.", **place)
        self._file.seek((self.size - self.extent.from_leaf) * _RECORD_BYTES)
        for size in range(self.size + 1, head.size + 1):
            record = self._file.read(_RECORD_BYTES)
            node = record[:HASH_BYTES]
            for _ in range((size & -size).bit_length() - 1):  # the trailing zeros: that many subtrees are full
                node = sha256(b"\x01" + self._pending.pop() + node).digest()
            self._pending.append(node)
            self.events = int.from_bytes(record[HASH_BYTES:], "big")
        self.size = head.size
        *rest, root = self._pending or [EMPTY_ROOT]
        for left in reversed(rest):
            root = sha256(b"\x01" + left + root).digest()
        if root != head.root:
            _stop(f"{name} has another root for {head.size} commits: one from this leaf on was changed.", **place)


class _Checks:
    """One export, line by line. Of each stream its end is remembered, of each partition its leaf hashes."""

    def __init__(self, is_signed: Callable[[bytes, bytes], bool], state: State | None, files: ExitStack) -> None:
        self._is_signed = is_signed
        self._state = state
        self._files = files
        self._digest = sha256()
        self._lines = 0
        self._is_over = False
        self._log = ("", "", "")
        """Service, tenant and id."""
        self._trees: dict[int, _Tree] = {}
        self._streams: dict[str, tuple[int, bytes, int]] = {}
        """The last version, its commit's hash and time."""
        self._newest: State | None = None
        """The last anchor that was followed."""
        self._takers: dict[type, Callable[[Any], None]] = {
            Commit: self._take_commit,
            Anchor: self._take_anchor,
            Manifest: self._take_manifest,
            Frontier: lambda line: self._tree(line.partition).begin(line),
            Lost: self._take_lost,
            End: self._take_end,
        }

    def take(self, line: bytes) -> None:
        try:
            told = _decode_line(line)
        except _MALFORMED as error:
            _stop(f"Line {self._lines + 1} is no line of an export: {error}")
        if self._is_over or (self._lines == 0) is not isinstance(told, Manifest):
            _stop(f"Line {self._lines + 1} stands where it must not.")
        self._takers[type(told)](told)
        self._lines += 1
        self._digest.update(line)

    def proven(self) -> Proven:
        if not self._is_over:
            _stop("The export is cut short: its last line is missing.")
        if not self._newest or not self._newest.heads or (self._state and self._newest.seq < self._state.seq):
            _stop("The export holds no anchor of this log, or none as new as what was seen before.")
        trees = self._trees.values()
        for tree in trees:
            if tree.leaves != tree.extent.size:
                _stop("The manifest counts other commits.", partition=tree.extent.partition, leaf=tree.leaves)
        return Proven(
            state=self._newest,
            commits=sum(tree.size - tree.extent.from_leaf for tree in trees),
            events=sum(tree.events for tree in trees),
            from_leaves={tree.extent.partition: tree.extent.from_leaf for tree in trees},
            not_yet_anchored=sum(tree.leaves - tree.size for tree in trees),
        )

    def _take_manifest(self, manifest: Manifest) -> None:
        self._log = (manifest.service, manifest.tenant, manifest.log_id)
        state = self._state
        if state and (state.service, state.tenant, state.log_id) != self._log:
            _stop("This is the export of another log than the one seen before.")
        for extent in manifest.partitions:
            if extent.partition in self._trees or extent.size < extent.from_leaf:
                _stop("The manifest contradicts itself.", partition=extent.partition)
            file = tempfile.SpooledTemporaryFile(SPOOLED_BYTES_MAX)  # noqa: SIM115 - closed with all others
            self._trees[extent.partition] = _Tree(extent, self._files.enter_context(file))

    def _tree(self, partition: int) -> _Tree:
        if self._newest or partition not in self._trees:
            _stop("A commit follows an anchor, or lies in no partition of the manifest.", partition=partition)
        return self._trees[partition]

    def _take_commit(self, commit: Commit) -> None:
        tree = self._tree(commit.partition)
        place: dict[str, Any] = {"partition": commit.partition, "leaf": tree.leaves}
        try:
            header = _decode_header(commit.header)
        except _MALFORMED as error:
            _stop(f"This is no commit's header: {error}", **place)
        fault = (
            tree.fault_of(commit)
            or (_encode(header) != commit.header and "The header is not written as headers are.")
            or (header.tenant != self._log[1] and "The commit is another tenant's.")
            or (header.n != len(commit.events) and "Events of this commit are missing, or there are more.")
            or (_events_root(commit.events) != header.events_root and "An event of this commit was changed.")
            or self._fault_in_stream(tree.extent, header)
        )
        if fault:
            _stop(fault, **place, stream=header.stream, version=header.first)
        self._streams[header.stream] = (header.first + header.n - 1, sha256(commit.header).digest(), header.rt)
        tree.add(commit)

    def _fault_in_stream(self, extent: Extent, header: Header) -> str | None:
        end = self._streams.get(header.stream)
        if end is None:
            if int.from_bytes(sha256(header.stream.encode()).digest()[:4], "big") % PARTITIONS != extent.partition:
                return "The stream belongs into another partition."
            # Where the export does not begin at leaf 0, a stream may have begun before it.
            is_begun = (header.first == 1) is (not header.prev) and (header.first == 1 or extent.from_leaf > 0)
            return None if is_begun else "Commits of this stream are missing before this one."
        version, digest, recorded_at = end
        if header.first != version + 1:
            return f"The stream was at version {version}, and goes on at {header.first}."
        if header.prev != digest.hex():
            return "The commit does not follow the one before it: one of the two was changed."
        return None if header.rt > recorded_at else "The commit is not later than the one before it."

    def _take_lost(self, lost: Lost) -> None:
        _stop("The log names a commit that is gone.", **{name: getattr(lost, name) for name in lost.__struct_fields__})

    def _take_end(self, end: End) -> None:
        if (end.lines, end.sha256) != (self._lines, self._digest.hexdigest()):
            _stop("The export is not what was written: its digest is another.")
        self._is_over = True

    def _take_anchor(self, anchor: Anchor) -> None:
        name = f"Anchor {anchor.seq}"
        if not self._is_signed(anchor.signature, anchor.statement):
            _stop(f"{name} was not signed by a pinned key.")
        statement = _read(anchor.statement, Statement, name)
        if (statement.seq, statement.service) != (anchor.seq, self._log[0]):
            _stop(f"{name} is another one: {statement.seq} of {statement.service!r}.")
        heads: dict[int, Seen] = {}
        for head in anchor.heads:
            leaf = _read(head.leaf, HeadLeaf, f"A head of {name}")
            signed = (leaf.tenant, leaf.log_id, leaf.partition, leaf.size, leaf.root)
            told = (*self._log[1:], head.partition, head.size, head.root.hex())
            root = _root_by_path(sha256(b"\x00" + head.leaf).digest(), head.index, statement.leaves, head.path)
            if signed != told or root.hex() != statement.super_root or head.partition in heads:
                _stop(f"{name} does not sign this head.", partition=head.partition)
            heads[head.partition] = Seen(head.size, head.root)
        now = State(*self._log, anchor.seq, sha256(anchor.statement).digest(), statement.time, heads)
        self._meet_state(now)
        before = self._newest
        is_next = before is not None and before.seq + 1 == now.seq
        if (now.seq == 1) is not (not statement.previous) or (
            before and is_next and statement.previous != before.statement.hex()
        ):
            _stop(f"{name} does not follow the one before it: the history was forked.")
        self._follow(now, name)

    def _meet_state(self, now: State) -> None:
        """Follow what was seen before, once the anchors have come that far."""
        state = self._state
        if state is None or now.seq < state.seq or (self._newest and self._newest.seq >= state.seq):
            return
        if now.seq == state.seq and now.statement != state.statement:
            _stop(f"Anchor {now.seq} is another one than was seen before: the history was forked.")
        self._follow(state, "What was seen before")
        if now.seq == state.seq:
            self._newest = None  # the same anchor, and now by what it says itself

    def _follow(self, now: State, name: str) -> None:
        if self._newest and (now.seq <= self._newest.seq or now.time <= self._newest.time):
            _stop(f"{name} comes out of order.")
        for partition in sorted({*now.heads, *self._trees}):
            if partition not in self._trees:
                _stop(f"{name} has a partition that is missing here.", partition=partition)
            self._trees[partition].follow(now.heads.get(partition, Seen(0, EMPTY_ROOT)), name)
        self._newest = now


def _read(signed: bytes, kind: type[T], name: str) -> T:
    """Read what is hashed or signed, and has one way to be written."""
    try:
        value = msgspec.json.decode(signed, type=kind)
    except _MALFORMED as error:
        _stop(f"{name} cannot be read: {error}")
    if _encode(value) != signed:
        _stop(f"{name} is not written as it should be.")
    return value


def _events_root(events: Sequence[bytes]) -> str:
    """Hash events into the root of their tree, in hexadecimal."""
    nodes = [sha256(b"\x00" + event).digest() for event in events] or [EMPTY_ROOT]
    while len(nodes) > 1:
        pairs = zip(nodes[::2], nodes[1::2], strict=False)
        # An odd one out goes up as it is: the left subtrees are the full ones.
        nodes = [sha256(b"\x01" + left + right).digest() for left, right in pairs] + nodes[len(nodes) & ~1 :]
    return nodes[0].hex()


def _root_by_path(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Compute the root to which *path* leads (RFC 9162, section 2.1.3.2); an impossible path leads to none."""
    node, at, last, rest = leaf_hash, index, size - 1, list(reversed(path))
    while last > 0 and at <= last:
        if at % 2 or at < last:
            if not rest:
                return b""
            sibling = rest.pop()
            node = sha256(b"\x01" + (sibling + node if at % 2 else node + sibling)).digest()
        at, last = at // 2, last // 2
    return b"" if rest or at > last else node


def _signature_check(public_keys: bytes) -> Callable[[bytes, bytes], bool]:
    """Make the check that one of the pinned keys has signed (ECDSA on P-256 with SHA-256, DER)."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only those who verify need cryptography
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    end = b"-----END PUBLIC KEY-----"
    keys = list[EllipticCurvePublicKey]()
    try:
        for part in public_keys.split(end)[:-1]:
            key = load_pem_public_key(part + end)
            if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
                raise ValueError("one is not on the curve P-256")  # noqa: TRY004,TRY301 - told like every other fault
            keys.append(key)
    except ValueError as error:
        raise Invalid("invalid_key", f"Pin public keys on the curve P-256, in PEM: {error}") from error
    if not keys:
        raise Invalid("invalid_key", "Pin at least one public key, in PEM.")

    def is_signed(signature: bytes, message: bytes) -> bool:
        for key in keys:
            try:
                key.verify(signature, message, ECDSA(SHA256()))
            except InvalidSignature:
                continue
            return True
        return False

    return is_signed
