"""
Check an exported history without trusting whoever exported it.

A verifier brings two things of its own: the public key it has pinned, and what it has seen proven before. Everything
else it computes. Events hash to a root, the root stands in a header, headers hash to the leaves of a log, the log's
root stands in a head, heads hash to one root, and that root is signed (trees as in RFC 6962, section 2.1). A signature
alone proves little: whoever holds the key may sign another history. So the log must also begin with what was seen.

This file stands alone: it shares no code with what it checks, and needs Python 3.11 and the package `cryptography`.
Copy it, and run: python verifier.py EXPORT KEY.pem [STATE.json]
"""

import gzip
import json
import re
import sys
import zlib
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

PARTITIONS: Final = 4
"""Of one tenant's log; a stream lies in one of them."""
LINE_BYTES_MAX: Final = 64_000_000
"""Read at once, whatever a file holds: more than the largest commit takes."""
NOTHING: Final = (0, sha256(b"").hexdigest())
Keys = Sequence[EllipticCurvePublicKey]


@dataclass(frozen=True)
class State:
    """What has been seen proven, up to one anchor; keep it where the exporter cannot write."""

    service: str
    tenant: str
    log_id: str
    seq: int
    digest: str
    """The SHA-256 of the anchor's statement."""
    time: int
    """When the anchor was signed, in microseconds since 1970, as its signer says."""
    heads: Mapping[int, tuple[int, str]]
    """How far each partition had come: how many commits, and their root in hexadecimal."""

    def to_bytes(self) -> bytes:
        return json.dumps(vars(self)).encode()

    @classmethod
    def from_bytes(cls, body: bytes) -> "State":
        kept = json.loads(body)
        heads = {int(partition): (int(size), str(root)) for partition, (size, root) in kept["heads"].items()}
        return cls(**kept | {"heads": heads})


@dataclass(frozen=True)
class Proven:
    """Everything up to the newest anchor is as it was signed, and begins with what was seen before."""

    state: State
    commits: int
    events: int
    """How much was there to check, up to that anchor."""
    from_leaves: Mapping[int, int]
    """Per partition, the leaf at which the export begins; what lies before is known by its hashes only."""
    not_yet_anchored: int
    """Commits beyond the anchor: in order, and signed by nobody."""


@dataclass(eq=False)
class Broken(Exception):
    """The first place that does not hold, raised in here and answered; None is what nobody could tell."""

    reason: str
    partition: int | None = None
    leaf: int | None = None
    stream: str | None = None
    version: int | None = None


def verify(lines: Iterable[bytes], public_keys: bytes, state: State | None = None) -> Proven | Broken:
    """
    Check the lines of an export against *public_keys* (PEM, pinned) and *state* (None: the first time). Whatever
    the lines hold is answered; ValueError: *public_keys* holds something else than public keys on P-256.
    """
    checks = _Checks(keys_of(public_keys), state)
    try:
        for line in lines:
            checks.take(line)
        return checks.proven()
    except Broken as broken:
        return broken
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return Broken(f"The export is damaged, or cut short: {error}")


# --- How everything is written, to the byte: JSON with these members in this order, and nothing in between.

Kind = tuple[str, Callable[[str], Any] | None]
"""How a value is written, as a regular expression without groups; and how it is read, if that is of use."""


def _text(written: str) -> str:
    return str(json.loads(written)) if "\\" in written else written[1:-1]


def _list(pattern: str, read: Callable[[str], Any]) -> Kind:
    each = re.compile(pattern).findall
    return rf"\[(?:{pattern}(?:,{pattern})*+)?\]", lambda written: [read(item) for item in each(written)]


def _record(**kinds: Kind) -> Callable[[str], list[Any]]:
    members = (f'"{name}":{"(" if read else "(?:"}{pattern})' for name, (pattern, read) in kinds.items())
    match = re.compile("{" + ",".join(members) + "}").fullmatch
    readers = [read for _, read in kinds.values() if read]

    def read_all(written: str) -> list[Any]:
        found = match(written)
        if not found:
            raise ValueError(f"it is not written as {', '.join(kinds)}")
        return [read(part) for read, part in zip(readers, found.groups(), strict=True)]

    return read_all


_ONE: Kind = ("1", None)
_WHOLE: Kind = ("(?:0|[1-9][0-9]{0,15})", int)
_NUMBER: Kind = ("[1-9][0-9]{0,15}", int)
_PARTITION: Kind = (f"[0-{PARTITIONS - 1}]", int)
_TEXT: Kind = (r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\bfnrt]|u00[01][0-9a-f])[^"\\\x00-\x1f]*+)*+"', _text)
_SAID: Kind = (_TEXT[0], None)
_HEX: Kind = ('"[0-9a-f]{64}"', _text)
_PREV: Kind = ('"(?:[0-9a-f]{64})?"', _text)
_BYTES = ('"[^"]*+"', lambda written: a2b_base64(written[1:-1], strict_mode=True))
_HASH = ('"[^"]{43}="', _BYTES[1])
_OBJECT: Final = r"\{[^{}]*+\}"

# What is hashed and signed.
read_header = _record(
    actor=_SAID, commit_id=_SAID, events_root=_HEX, first=_NUMBER, n=_NUMBER, prev=_PREV, rt=_WHOLE,
    stream=_TEXT, tenant=_TEXT, v=_ONE,
)  # fmt: skip
read_leaf = _record(log_id=_TEXT, partition=_PARTITION, root=_HEX, size=_WHOLE, tenant=_TEXT, v=_ONE)
read_statement = _record(
    leaves=_NUMBER, previous=_PREV, seq=_NUMBER, service=_TEXT, super_root=_HEX, time=_WHOLE, v=_ONE
)
# The lines of an export, behind their type; and what may come after them.
_EXTENTS = _list(_OBJECT, _record(partition=_PARTITION, from_leaf=_WHOLE, size=_WHOLE))
_HEAD = _record(partition=_PARTITION, size=_WHOLE, root=_HASH, leaf=_BYTES, index=_WHOLE, path=_list(*_HASH))
_LINES: Mapping[str, Callable[[str], list[Any]]] = {
    "manifest": _record(v=_ONE, service=_TEXT, tenant=_TEXT, log_id=_TEXT, exported_at=_SAID, partitions=_EXTENTS),
    "frontier": _record(partition=_PARTITION, size=_NUMBER, hashes=_list(*_HASH)),
    "commit": _record(partition=_PARTITION, leaf=_WHOLE, position=_NUMBER, header=_BYTES, events=_list(*_BYTES)),
    "damaged": _record(partition=_PARTITION, leaf=_WHOLE, stream=_TEXT, version=_WHOLE, reason=_TEXT),
    "anchor": _record(seq=_NUMBER, statement=_BYTES, signature=_BYTES, key_id=_SAID, heads=_list(_OBJECT, _HEAD)),
    "end": _record(lines=_WHOLE, sha256=_HEX),
}
_BODY: Final = frozenset(_LINES) - {"manifest"}
_FOLLOWING: Mapping[str, frozenset[str]] = {"anchor": frozenset({"anchor", "end"}), "end": frozenset()}


class _Tree:
    """The leaves of one partition as they come, and the root that follows the anchors through them."""

    def __init__(self, from_leaf: int, told_size: int) -> None:
        self.from_leaf, self.told_size = from_leaf, told_size
        self.leaves = self.size = from_leaf
        """How many there are, with those before the export; and how many of them the root is of."""
        self.pending: list[bytes] = []
        """The roots of the perfect subtrees of *size* leaves, largest first."""
        self.hashes: list[bytes] = []
        self.ends = [] if from_leaf else [0]
        """The position before the first commit of the export, as far as that is known, and the last one of each."""
        self.streams: dict[str, tuple[int, str, int]] = {}
        """Of each stream the last version, its commit's hash and time."""

    def fault_at(self, size: int, root: str) -> str | None:
        """Go on to *size* leaves, and say why *root* is not theirs."""
        if size < self.size:
            return f"ends at {size} commits: the log shrank, or the export begins too late."
        if size > self.leaves:
            return f"has {size} commits, and here are {self.leaves}: the rest was cut off."
        for at in range(self.size, size):
            node = self.hashes[at - self.from_leaf]
            for _ in range((~at & (at + 1)).bit_length() - 1):  # as many subtrees are full now as *at* ends in ones
                node = sha256(b"\x01" + self.pending.pop() + node).digest()
            self.pending.append(node)
        self.size = size
        *rest, node = self.pending or [sha256(b"").digest()]
        for left in reversed(rest):
            node = sha256(b"\x01" + left + node).digest()
        return None if node.hex() == root else f"has another root for {size} commits: one from here on was changed."


class _Checks:
    """One export, line by line. Of each stream its end is remembered, of each partition its leaf hashes."""

    def __init__(self, keys: Keys, state: State | None) -> None:
        self._keys, self._seen = keys, state
        self._digest, self._lines, self._next = sha256(), 0, frozenset({"manifest"})
        self._log = ("", "", "")
        """Service, tenant and id."""
        self._trees: dict[int, _Tree] = {}
        self._anchors: list[tuple[State, str]] = []
        """What each says, and the digest of the one before it."""

    def take(self, line: bytes) -> None:
        try:
            begin, _, rest = line.decode().removesuffix("\n").partition('",')
            kind = begin.removeprefix('{"type":"')
            if kind == begin or kind not in self._next:
                raise ValueError(f"{kind!r} is no type that may stand here")  # noqa: TRY301 - told with all others
            getattr(self, f"_take_{kind}")(*_LINES[kind]("{" + rest))
        except ValueError as error:
            raise Broken(f"Line {self._lines + 1} is no line of an export: {error}") from error
        self._next = _FOLLOWING.get(kind, _BODY)
        self._lines += 1
        self._digest.update(line)

    def proven(self) -> Proven:
        if self._next:
            raise Broken("The export is cut short: its last line is missing.")
        newest, trees = self._followed(), self._trees
        for partition, tree in trees.items():
            if tree.leaves != tree.told_size:
                raise Broken("The manifest counts other commits.", partition, tree.leaves)
        return Proven(
            state=newest,
            commits=sum(tree.size - tree.from_leaf for tree in trees.values()),
            events=sum(tree.ends[tree.size - tree.from_leaf] - tree.ends[0] for tree in trees.values() if tree.ends),
            from_leaves={partition: tree.from_leaf for partition, tree in trees.items()},
            not_yet_anchored=sum(tree.leaves - tree.size for tree in trees.values()),
        )

    def _take_manifest(self, service: str, tenant: str, log_id: str, extents: list[list[int]]) -> None:
        self._log, seen = (service, tenant, log_id), self._seen
        if seen and (seen.service, seen.tenant, seen.log_id) != self._log:
            raise Broken("This is the export of another log than the one seen before.")
        self._trees = {partition: _Tree(from_leaf, size) for partition, from_leaf, size in extents}
        if [partition for partition, _, _ in extents] != list(range(PARTITIONS)):
            raise Broken("The manifest does not list each partition once, in order.")

    def _take_frontier(self, partition: int, size: int, hashes: list[bytes]) -> None:
        """Take what stands for the commits before the export. That it is true, only a root will tell."""
        tree = self._trees[partition]
        if tree.pending or tree.leaves != size or len(hashes) != size.bit_count():
            raise Broken("The hashes before the export do not fit it.", partition)
        tree.pending = hashes

    def _take_commit(self, partition: int, leaf: int, position: int, header: bytes, events: list[bytes]) -> None:
        tree = self._trees[partition]
        try:
            root, first, n, prev, rt, stream, tenant = read_header(header.decode())
        except ValueError as error:
            raise Broken(f"The commit's header cannot be read: {error}", partition, tree.leaves) from error
        home = partition if stream in tree.streams else int(sha256(stream.encode()).hexdigest()[:8], 16) % PARTITIONS
        # Where the export does not begin at leaf 0, a stream may have begun before it.
        begun = (first - 1, prev, -1) if tree.from_leaf and first > 1 and prev else (0, "", -1)
        version, digest, recorded_at = tree.streams.get(stream, begun)
        fault = (
            (len(tree.pending) != tree.from_leaf.bit_count() and "The hashes of what lies before are missing.")
            or (leaf != tree.leaves and f"Leaf {tree.leaves} is missing, or stands elsewhere: here is leaf {leaf}.")
            or (tree.ends and position != tree.ends[-1] + 1 and f"Position {position} comes after {tree.ends[-1]}.")
            or (tenant != self._log[1] and "The commit is another tenant's.")
            or (home != partition and "The stream belongs into another partition.")
            or (n != len(events) and "Events of this commit are missing, or there are more.")
            or (events_root(events) != root and "An event of this commit was changed.")
            or (first != version + 1 and f"Commits of this stream are missing: after version {version} comes {first}.")
            or (prev != digest and "The commit does not follow the one before it: one of the two was changed.")
            or (rt <= recorded_at and "The commit is not later than the one before it.")
        )
        if fault:
            raise Broken(fault, partition, tree.leaves, stream, first)
        tree.streams[stream] = (first + n - 1, sha256(header).hexdigest(), rt)
        tree.leaves += 1
        tree.hashes.append(sha256(b"\x00" + header).digest())
        tree.ends += [position + n - 1] if tree.ends else [position - 1, position + n - 1]

    def _take_damaged(self, partition: int, leaf: int, stream: str, version: int, reason: str) -> None:
        raise Broken(f"Its keeper cannot show this commit: {reason}", partition, leaf, stream or None, version or None)

    def _take_anchor(self, *told: Any) -> None:
        anchor, previous = read_anchor(told, self._log, self._keys)
        if self._seen and anchor.seq == self._seen.seq and anchor != self._seen:
            raise Broken(f"Anchor {anchor.seq} is another one than was seen before: the history was forked.")
        self._anchors.append((anchor, previous))

    def _take_end(self, lines: int, digest: str) -> None:
        if (lines, digest) != (self._lines, self._digest.hexdigest()):
            raise Broken("The export is not what was written: its digest is another.")

    def _followed(self) -> State:
        """Follow the anchors, and what was seen before at its place among them; give the newest."""
        marks, seen = list(self._anchors), self._seen
        if seen and all(anchor.seq != seen.seq for anchor, _ in marks):
            marks.insert(sum(anchor.seq < seen.seq for anchor, _ in marks), (seen, ""))
        if not marks or marks[-1][0] is seen or not marks[-1][0].heads:
            raise Broken("The export holds no anchor of this log, or none as new as what was seen before.")
        before: State | None = None
        for mark, previous in marks:
            name = "What was seen before" if mark is seen else f"Anchor {mark.seq}"
            if before and (mark.seq <= before.seq or mark.time <= before.time):
                raise Broken(f"{name} comes out of order.")
            if before and mark is not seen and mark.seq == before.seq + 1 and previous != before.digest:
                raise Broken(f"{name} does not follow the one before it: the history was forked.")
            for partition, tree in self._trees.items():
                size, root = mark.heads.get(partition, NOTHING)
                leaf = tree.leaves if size > tree.leaves else min(size, tree.size)
                if fault := tree.fault_at(size, root):
                    raise Broken(f"{name} {fault}", partition, leaf)
            before = mark
        return marks[-1][0]


def read_anchor(anchor: Sequence[Any], log: tuple[str, str, str], keys: Keys) -> tuple[State, str]:
    """Give what an anchor says of *log* (service, tenant and id), and the digest of the anchor before it."""
    seq, statement, signature, heads = anchor
    if not is_signed(keys, signature, statement):
        raise Broken(f"Anchor {seq} was not signed by a pinned key.")
    leaves, previous, said_seq, service, super_root, time = read_statement(statement.decode())
    if (said_seq, service) != (seq, log[0]):
        raise Broken(f"Anchor {seq} is another one: {said_seq} of {service!r}.")
    signed: dict[int, tuple[int, str]] = {}
    for partition, size, root, leaf, index, path in heads:
        told = [log[2], partition, root.hex(), size, log[1]]
        reached = root_by_path(leaf, index, leaves, path).hex()
        if read_leaf(leaf.decode()) != told or reached != super_root or partition in signed:
            raise Broken(f"Anchor {seq} does not sign this head.", partition)
        signed[partition] = (size, root.hex())
    return State(*log, seq, sha256(statement).hexdigest(), time, signed), previous


def events_root(events: Sequence[bytes]) -> str:
    """Hash events into the root of their tree, in hexadecimal."""
    nodes = [sha256(b"\x00" + event).digest() for event in events]
    while len(nodes) > 1:
        pairs = zip(nodes[::2], nodes[1::2], strict=False)
        # An odd one out goes up as it is: the left subtrees are the full ones.
        nodes = [sha256(b"\x01" + left + right).digest() for left, right in pairs] + nodes[len(nodes) & ~1 :]
    return b"".join(nodes).hex()


def root_by_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Compute the root to which *path* leads (RFC 9162, section 2.1.3.2); an impossible path leads to none."""
    node, at, last, rest = sha256(b"\x00" + leaf).digest(), index, size - 1, list(reversed(path))
    while last > 0 and at <= last:
        if at % 2 or at < last:
            if not rest:
                return b""
            sibling = rest.pop()
            node = sha256(b"\x01" + (sibling + node if at % 2 else node + sibling)).digest()
        at, last = at // 2, last // 2
    return b"" if rest or at > last else node


def keys_of(public_keys: bytes) -> list[EllipticCurvePublicKey]:
    """Read public keys in PEM; ValueError: there is none, or one that is not on P-256."""
    end = b"-----END PUBLIC KEY-----"
    keys = [load_pem_public_key(part + end) for part in public_keys.split(end)[:-1]]
    fitting = [key for key in keys if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)]
    if not fitting or fitting != keys:
        raise ValueError("Pin at least one public key, and only ones on the curve P-256, in PEM.")
    return fitting


def is_signed(keys: Keys, signature: bytes, message: bytes) -> bool:
    """Say whether one of the keys has signed (ECDSA with SHA-256)."""
    for key in keys:
        with suppress(InvalidSignature):
            key.verify(signature, message, ECDSA(SHA256()))
            return True
    return False


def read_lines(path: Path) -> Iterator[bytes]:
    """Read the lines of an export, gzip or plain; that a file is damaged is told by `verify`."""
    with path.open("rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if raw.peek(2).startswith(b"\x1f\x8b") else raw
        yield from iter(lambda: file.readline(LINE_BYTES_MAX), b"")


def main(exported: Path, key: Path, memory: Path | None = None) -> bool:
    state = State.from_bytes(memory.read_bytes()) if memory and memory.exists() else None
    result = verify(read_lines(exported), key.read_bytes(), state)
    if memory and isinstance(result, Proven):
        memory.write_bytes(result.state.to_bytes())
    sys.stdout.write(f"{result!r}\n")
    return isinstance(result, Proven)


if __name__ == "__main__":
    sys.exit(not main(*map(Path, sys.argv[1:])))
