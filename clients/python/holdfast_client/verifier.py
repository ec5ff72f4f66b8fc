"""
Check an exported history without trusting whoever exported it.

A verifier brings two things of its own: the public key it has pinned, and what it has seen proven before. Everything
else it computes. Events hash to a root, the root stands in a header, headers hash to the leaves of a log, the log's
root stands in a head, heads hash to one root, and that root is signed (trees as in RFC 6962, section 2.1). A signature
alone proves little: whoever holds the key may sign another history. So the log must also begin with what was seen.

What it does not show: how old this is (an old export under its old anchor is proven: compare `State.time` with the
clock); whose it is (the tenant is read from the export: see that `State.tenant` is yours); and, on a first visit, that
others are shown the same history (there is nothing yet to hold it against).

This file stands alone: it shares no code with what it checks, and needs Python 3.11 and the package `cryptography`.
Copy it, and run: python verifier.py EXPORT KEY.pem [STATE.json] (exit code 0: proven; 1: broken; 2: not checked).
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
from io import BufferedReader
from operator import call, itemgetter
from pathlib import Path
from typing import Any, ClassVar, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

PARTITIONS: Final = 4  # of one tenant's log; a stream lies in one of them
LINE_BYTES_MAX: Final = 64_000_000  # read at once, whatever a file holds: more than the largest commit takes
Keys = Sequence[EllipticCurvePublicKey]


@dataclass(frozen=True)
class State:
    """What has been seen proven, up to one anchor; keep it where the exporter cannot write."""

    service: str
    tenant: str
    log_id: str
    seq: int
    digest: str  # the SHA-256 of the anchor's statement
    time: int  # when the anchor was signed, in microseconds since 1970, as its signer says
    heads: Mapping[int, tuple[int, str]]  # of each partition, how many commits it had, and their root in hexadecimal

    def to_bytes(self) -> bytes:
        return json.dumps(vars(self)).encode()

    @classmethod
    def from_bytes(cls, body: bytes) -> "State":
        """Read what `to_bytes` wrote; ValueError: it is something else."""
        try:
            kept = json.loads(body)
            return cls(**kept | {"heads": {at: tuple(kept["heads"][str(at)]) for at in range(PARTITIONS)}})
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is not what a check remembers: {error}") from error


@dataclass(frozen=True)
class Proven:
    """Everything up to the newest anchor is as it was signed, and begins with what was seen before."""

    state: State
    commits: int
    events: int  # how much was there to check, up to that anchor
    from_leaves: Mapping[int, int]  # where the export begins in each partition; before that, only hashes are known
    not_yet_anchored: int  # commits beyond the anchor: in order, and signed by nobody


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

Kind = tuple[str, Callable[[str], Any] | None]  # a regular expression without groups; how to read it, if of use


def _text(written: str) -> str:
    return str(json.loads(written)) if "\\" in written else written[1:-1]


def _list(pattern: str, read: Callable[[str], Any]) -> Kind:
    each = re.compile(pattern).findall
    return rf"\[(?:{pattern}(?:,{pattern})*+)?\]", lambda written: list(map(read, each(written)))


def _record(**kinds: Kind) -> Callable[[str], list[Any]]:
    members = (f'"{name}":{"(" if read else "(?:"}{pattern})' for name, (pattern, read) in kinds.items())
    match = re.compile("{" + ",".join(members) + "}").fullmatch
    readers = [read for _, read in kinds.values() if read]

    def read_all(written: str) -> list[Any]:
        if found := match(written):
            return list(map(call, readers, found.groups()))
        raise ValueError(f"it is not written as {', '.join(kinds)}")

    return read_all


_ONE: Kind = ("1", None)
_WHOLE: Kind = ("(?:0|[1-9][0-9]{0,15})", int)
_PARTITION: Kind = (f"[0-{PARTITIONS - 1}]", int)
_TEXT: Kind = (r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\bfnrt]|u00[01][0-9a-f])[^"\\\x00-\x1f]*+)*+"', _text)
_SAID: Kind = (_TEXT[0], None)
_HEX: Kind = ('"[0-9a-f]{64}"', itemgetter(slice(1, -1)))
_PREV: Kind = ('"(?:[0-9a-f]{64})?"', _HEX[1])
_BYTES = ('"[^"]*+"', lambda written: a2b_base64(written[1:-1], strict_mode=True))
_HASH = ('"[^"]{43}="', _BYTES[1])
_OBJECT: Final = r"\{[^{}]*+\}"
# What is hashed and signed.
read_header = _record(actor=_SAID, commit_id=_SAID, events_root=_HEX, first=_WHOLE, n=_WHOLE, prev=_PREV, rt=_WHOLE,
                      stream=_TEXT, tenant=_TEXT, v=_ONE)  # fmt: skip
read_leaf = _record(log_id=_TEXT, partition=_PARTITION, root=_HEX, size=_WHOLE, tenant=_TEXT, v=_ONE)
read_statement = _record(leaves=_WHOLE, previous=_PREV, seq=_WHOLE, service=_TEXT, super_root=_HEX, time=_WHOLE, v=_ONE)
# The lines of an export, behind their type; and what may follow.
_EXTENTS = _list(_OBJECT, _record(partition=_PARTITION, from_leaf=_WHOLE, size=_WHOLE))
_HEAD = _record(partition=_PARTITION, size=_WHOLE, root=_HASH, leaf=_BYTES, index=_WHOLE, path=_list(*_HASH))
_MANIFEST = _record(v=_ONE, service=_TEXT, tenant=_TEXT, log_id=_TEXT, exported_at=_SAID, partitions=_EXTENTS)
_FRONTIER = _record(partition=_PARTITION, size=_WHOLE, hashes=_list(*_HASH))
_COMMIT = _record(partition=_PARTITION, leaf=_WHOLE, position=_WHOLE, header=_BYTES, events=_list(*_BYTES))
_DAMAGED = _record(partition=_PARTITION, leaf=_WHOLE, stream=_TEXT, version=_WHOLE, reason=_TEXT)
_ANCHOR = _record(seq=_WHOLE, statement=_BYTES, signature=_BYTES, key_id=_SAID, heads=_list(_OBJECT, _HEAD))
_END = _record(lines=_WHOLE, sha256=_HEX)
_BODY: Final = frozenset({"frontier", "commit", "damaged", "anchor", "end"})


class _Tree:
    """The leaves of one partition as they come, and the root that follows the anchors through them."""

    def __init__(self, partition: int, from_leaf: int, told_size: int) -> None:
        self.partition, self.from_leaf, self.told_size = partition, from_leaf, told_size
        self.leaves = self.size = from_leaf  # how many there are, those before the export too; and are in the root
        self.pending: list[bytes] = []  # the roots of the perfect subtrees of *size* leaves, largest first
        self.hashes: list[bytes] = []
        self.ends = [] if from_leaf else [0]  # the position before the first commit, if known, and of each the last
        self.streams: dict[str, tuple[int, str, int]] = {}  # of each the last version, its commit's hash and time

    def follow(self, name: str, size: int, root: str) -> None:
        """Go on to *size* leaves, of which *name* says that *root* is theirs."""
        begun, leaves = self.size, self.leaves
        if size < begun:
            raise Broken(f"{name} ends at {size}: the log shrank, or the export begins too late.", self.partition, size)
        if size > leaves:
            raise Broken(f"{name} has {size} commits, here are {leaves}: the rest was cut off.", self.partition, leaves)
        for at in range(begun, size):
            node = self.hashes[at - self.from_leaf]
            for _ in range((~at & (at + 1)).bit_length() - 1):  # as many subtrees are full now as *at* ends in ones
                node = sha256(b"\x01" + self.pending.pop() + node).digest()
            self.pending.append(node)
        self.size = size
        *rest, node = self.pending or [sha256(b"").digest()]
        for left in reversed(rest):
            node = sha256(b"\x01" + left + node).digest()
        if node.hex() != root:
            raise Broken(f"{name} has another root at {size} commits: one from here on differs.", self.partition, begun)


class _Checks:
    """One export, line by line. Of each stream its end is remembered, of each partition its leaf hashes."""

    def __init__(self, keys: Keys, state: State | None) -> None:
        self._keys, self._seen = keys, state
        self._digest, self._lines, self._next = sha256(), 0, frozenset({"manifest"})
        self._log = ("", "", "")  # service, tenant and id
        self._trees: dict[int, _Tree] = {}
        self._anchors: list[tuple[State, str]] = []  # what each says, and the digest of the one before it

    def take(self, line: bytes) -> None:
        try:
            begin, _, rest = line.decode().removesuffix("\n").partition('",')
            kind = begin.removeprefix('{"type":"')
            if kind == begin or kind not in self._next:
                raise ValueError(f"{kind!r} is no type that may stand here")  # noqa: TRY301 - told with all others
            read, take, self._next = self._LINES[kind]
            take(self, *read("{" + rest))
        except ValueError as error:
            raise Broken(f"Line {self._lines + 1} is no line of an export: {error}") from error
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
        if [partition for partition, _, _ in extents] != list(range(PARTITIONS)):
            raise Broken("The manifest does not list each partition once, in order.")
        self._trees = {extent[0]: _Tree(*extent) for extent in extents}

    def _take_frontier(self, partition: int, size: int, hashes: list[bytes]) -> None:
        """Take what stands for the commits before the export. That it is true, only a root will tell."""
        tree = self._trees[partition]
        if tree.pending or not 0 < size == tree.from_leaf or len(hashes) != size.bit_count():
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

    _LINES: ClassVar[Mapping[str, tuple[Callable[[str], list[Any]], Callable[..., None], frozenset[str]]]] = {
        "manifest": (_MANIFEST, _take_manifest, _BODY),
        "frontier": (_FRONTIER, _take_frontier, _BODY),
        "commit": (_COMMIT, _take_commit, _BODY),
        "damaged": (_DAMAGED, _take_damaged, _BODY),
        "anchor": (_ANCHOR, _take_anchor, frozenset({"anchor", "end"})),
        "end": (_END, _take_end, frozenset()),
    }

    def _followed(self) -> State:
        """Follow the anchors, and what was seen before at its place among them; give the newest."""
        marks, seen = list(self._anchors), self._seen
        if seen and all(anchor.seq != seen.seq for anchor, _ in marks):
            marks.insert(sum(anchor.seq < seen.seq for anchor, _ in marks), (seen, ""))
        if not marks or marks[-1][0] is seen:
            raise Broken("The export holds no anchor of this log, or none as new as what was seen before.")
        before: State | None = None
        for mark, previous in marks:
            name = "What was seen before" if mark is seen else f"Anchor {mark.seq}"
            if before and (mark.seq <= before.seq or mark.time <= before.time):
                raise Broken(f"{name} comes out of order.")
            if before and mark is not seen and mark.seq == before.seq + 1 and previous != before.digest:
                raise Broken(f"{name} does not follow the one before it: the history was forked.")
            for partition, tree in self._trees.items():
                tree.follow(name, *mark.heads[partition])
            before = mark
        return marks[-1][0]


def read_anchor(told: Sequence[Any], log: tuple[str, str, str], keys: Keys) -> tuple[State, str]:
    """Give what an anchor says of *log* (service, tenant and id), and the digest of the anchor before it."""
    seq, statement, signature, heads = told
    if not is_signed(keys, signature, statement):
        raise Broken(f"Anchor {seq} was not signed by a pinned key.")
    leaves, previous, said_seq, service, super_root, time = read_statement(statement.decode())
    if (said_seq, service) != (seq, log[0]):
        raise Broken(f"Anchor {seq} is another one: {said_seq} of {service!r}.")
    if [head[0] for head in heads] != list(range(PARTITIONS)):  # a head that is left out could be of any size
        raise Broken(f"Anchor {seq} shows no head of some partition: it is kept back, or the log began later.")
    for partition, size, root, leaf, index, path in heads:
        leaf_told = [log[2], partition, root.hex(), size, log[1]]
        if read_leaf(leaf.decode()) != leaf_told or root_by_path(leaf, index, leaves, path).hex() != super_root:
            raise Broken(f"Anchor {seq} does not sign this head.", partition)
    signed = {partition: (size, root.hex()) for partition, size, root, *_ in heads}
    return State(*log, seq, sha256(statement).hexdigest(), time, signed), previous


def events_root(events: Sequence[bytes]) -> str:
    """Hash events into the root of their tree, in hexadecimal; an odd one out goes up a level as it is."""
    nodes = [sha256(b"\x00" + event).digest() for event in events]
    while len(nodes) > 1:
        pairs = zip(nodes[::2], nodes[1::2], strict=False)
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
    """Read public keys in PEM; ValueError: there is none, one that is not on P-256, or something else beside them."""
    written = rb"\s*-----BEGIN PUBLIC KEY-----[^-]*-----END PUBLIC KEY-----"
    with suppress(UnsupportedAlgorithm):
        keys = [load_pem_public_key(key) for key in re.findall(written, public_keys)]
        fitting = [key for key in keys if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)]
        if re.fullmatch(rb"(?:%b)+\s*" % written, public_keys) and fitting == keys:
            return fitting
    raise ValueError("Pin at least one public key in PEM, only ones on the curve P-256, and nothing else.")


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
        file = BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 16) if raw.peek(2).startswith(b"\x1f\x8b") else raw
        yield from iter(lambda: file.readline(LINE_BYTES_MAX), b"")


def main(arguments: Sequence[str]) -> int:
    """Check files, print what comes of it, and give the exit code."""
    try:
        exported, key, *rest = map(Path, arguments)
        (memory,) = rest or (None,)
        state = State.from_bytes(memory.read_bytes()) if memory and memory.exists() else None
        result = verify(read_lines(exported), key.read_bytes(), state)
        if memory and isinstance(result, Proven):
            unfinished = memory.with_name(f"{memory.name}.part")
            unfinished.write_bytes(result.state.to_bytes())
            unfinished.replace(memory)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"This came to nothing: {error} (run: python verifier.py EXPORT KEY.pem [STATE.json])\n")
        return 2
    sys.stdout.write(f"{result!r}\n")
    return 0 if isinstance(result, Proven) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
