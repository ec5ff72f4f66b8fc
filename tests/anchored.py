"""Anchors on a table, a bucket and a key in memory; log heads are set by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec

from holdfast.anchors import Anchor, Anchors, MemorySigner, Signer
from holdfast.anchors.anchors import POINTER
from holdfast.anchors.statements import read_leaf
from holdfast.clock import ManualClock
from holdfast.dynamodb import Database, Tables, Transport
from holdfast.dynamodb.attributes import to_item
from holdfast.log.heads import head_row
from holdfast.log.values import SOLE, Head, directory_key, head_key
from holdfast.objects import MemoryObjects, Objects
from holdfast.proofs import EMPTY_ROOT
from holdfast.testing import watched
from tests.memory_dynamodb import MemoryTransport

SERVICE = "audit"
TABLE = "log"


def log_table() -> Transport:
    """Make the table of a log; the anchors need no other."""
    transport = MemoryTransport()
    transport.create_table(TABLE, "S")
    return transport


@dataclass
class World:
    """One service's heads, its bucket and its key."""

    transport: Transport = field(default_factory=log_table)
    table: str = TABLE
    clock: ManualClock = field(default_factory=ManualClock)
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    signer: MemorySigner = field(default_factory=MemorySigner)

    def anchors(
        self, transport: Transport | None = None, objects: Objects | None = None, signer: Signer | None = None
    ) -> Anchors:
        database = Database.connect(transport or self.transport, self.clock)
        tables = Tables(commits="", operations="", log=self.table)
        return Anchors(database, tables, SERVICE, objects or self.objects, signer or self.signer)

    def grow(self, tenant: str, partition: int, size: int, root: bytes | None = None) -> None:
        """Set a head, as the indexer does."""
        root = root or sha256(f"{tenant} {partition} {size}".encode()).digest()
        head = Head(tenant, partition, size, size, root, (), self.clock.now())
        self._put(head_key(tenant, partition), SOLE, head_row(head))
        self._put(*directory_key(tenant, partition), {})

    def point(self, seq: int | None) -> None:
        """Set the pointer back, or lose it."""
        key = {"pk": POINTER, "sk": SOLE}
        self.transport.call("DeleteItem", {"TableName": self.table, "Key": to_item(key)})
        if seq:
            self._put(POINTER, SOLE, {"seq": seq, "statement": self.anchors().get(seq).digest})

    def pointed(self) -> int | None:
        key = to_item({"pk": POINTER, "sk": SOLE})
        item = self.transport.call("GetItem", {"TableName": self.table, "Key": key}).body.get("Item")
        return int(item["seq"]["N"]) if item else None

    def chain(self) -> list[Anchor]:
        """Read all anchors there are, and check that they are one chain, each consistent with those before it."""
        keys = list(self.objects.keys(""))
        assert keys == [f"anchors/{seq:016d}.json.gz" for seq in range(1, len(keys) + 1)]
        anchors = [Anchor.from_bytes(self.objects.get(key) or b"") for key in keys]
        previous, time, sizes = "", 0, dict[tuple[str, int], tuple[int, str]]()
        for seq, anchor in enumerate(anchors, start=1):
            said = anchor.said
            assert (said.seq, said.previous, said.leaves) == (seq, previous, len(anchor.heads))
            assert said.time > time
            for leaf in map(read_leaf, anchor.heads):
                size, root = sizes.get((leaf.tenant, leaf.partition), (0, EMPTY_ROOT.hex()))
                assert leaf.size > size or (leaf.size, leaf.root) == (size, root)
                sizes[leaf.tenant, leaf.partition] = leaf.size, leaf.root
            previous, time = anchor.digest, said.time
        return anchors

    def _put(self, pk: str, sk: str, row: dict[str, Any]) -> None:
        item = to_item({"pk": pk, "sk": sk, **row})
        self.transport.call("PutItem", {"TableName": self.table, "Item": item})


@dataclass
class Moments:
    """Every call to the table, the bucket and the key, counted together; *act* is told of each, before and after."""

    act: Callable[[int, bool, str], None] = lambda _number, _is_after, _name: None
    names: list[str] = field(default_factory=list)

    def pass_through(self, told: str, call: Callable[[], Any]) -> Any:
        name, number = told.split(maxsplit=1)[0], len(self.names)
        self.names.append(name)
        self.act(number, False, name)
        answer = call()
        self.act(number, True, name)
        return answer


def watched_anchors(world: World, moments: Moments) -> Anchors:
    """Make anchors of whose calls each is a moment."""
    around = moments.pass_through
    return world.anchors(
        watched(world.transport, around), watched(world.objects, around), watched(world.signer, around)
    )


def leaf_fields(leaf: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(leaf)
    return fields
