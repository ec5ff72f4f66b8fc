"""Make anchors, one after the other, whatever happens in between; find them again."""

from dataclasses import dataclass
from typing import Final

from holdfast.anchors.signing import Signer, is_signed, key_id_of
from holdfast.anchors.statements import (
    Anchor,
    Statement,
    TenantAnchor,
    leaves_of,
    read_leaf,
    super_root_of,
    view_of,
)
from holdfast.clock import to_micros
from holdfast.dynamodb.attributes import ordered, to_item
from holdfast.dynamodb.reads import get, query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database, clock_fault, put_new, update_guarded
from holdfast.errors import NotFound, Unavailable
from holdfast.log.heads import heads
from holdfast.log.values import SOLE
from holdfast.objects import Damaged, Objects
from holdfast.streams.companions import Change, Is, Missing, Row
from holdfast.streams.values import CLOCK_SKEW_MAX

PREFIX: Final = "anchors/"
POINTER: Final = "AN#"
"""The partition key of the row that says how far the anchors have come; it may be behind by a crash."""
KEYS: Final = "AN#keys"
"""The partition key of the rows that name the keys which have signed, each by its id."""
SEQ_MAX: Final = 10**16 - 1
"""What a key's digits hold."""


class Inconsistent(Exception):
    """A log's head does not follow from the one that was signed before: nothing is signed until somebody has looked."""


@dataclass(frozen=True)
class Anchors:
    """The anchors of one service."""

    database: Database
    tables: Tables
    service: str
    objects: Objects
    signer: Signer

    def sign(self) -> Anchor | None:
        """
        Sign what all logs come to now, if one of them has moved since the newest anchor.

        Answers the newest anchor if nobody had pointed to it before, and None if there is nothing new. May be
        repeated, run beside itself, and be killed anywhere: of two at once, one makes the anchor and the other
        adopts it.

        Raises:
            Inconsistent: a log has fewer commits than were signed, or others.
            Unavailable, Uncertain: repeat; `clock_skew` until the clock is set: no later anchor could be earlier.
        """
        pointed = self._pointed()
        newest = self._newest_after(pointed)
        following = self._following(newest)
        if following:
            if newest is None or newest.key_id != following.key_id:
                self._note_key(following)
            newest = self._keep(following)
        if newest is None or newest.said.seq == pointed:
            return None
        self._point(pointed, newest)
        return newest

    def latest(self) -> Anchor | None:
        """Read the newest anchor; None before the first."""
        row = get(self.database, self.tables.log, POINTER, SOLE)
        if row is None:
            return None
        anchor = self._stored(row["seq"])
        if anchor.digest != row["statement"]:
            raise Damaged(f"Anchor {row['seq']} is another one than was signed.")
        return anchor

    def get(self, seq: int) -> Anchor:
        """
        Read one anchor.

        Raises:
            NotFound: `anchor_not_found`.
        """
        anchor = self._find(seq) if 0 < seq <= SEQ_MAX else None
        if anchor is None:
            raise NotFound("anchor_not_found", "There is no such anchor; the newest is at /v1/anchors/latest.")
        return anchor

    def named_keys(self) -> list[bytes]:
        """Name the public keys (DER): the one that signs now, then those that have signed before."""
        signing = self.signer.public_key
        noted = [row["key"] for row in query(self.database, self.tables.log, KEYS)]
        return [signing, *(key for key in noted if key != signing)]

    def for_tenant(self, anchor: Anchor, tenant: str) -> TenantAnchor:
        """Show *anchor* to one tenant: its own heads, and the paths that prove them."""
        return view_of(anchor, tenant)

    def _following(self, newest: Anchor | None) -> Anchor | None:
        """Make the anchor after *newest*; None if no log has moved."""
        leaves = leaves_of(self.service, heads(self.database, self.tables))
        said = newest.said if newest else None
        super_root = super_root_of(leaves)
        if not leaves or (said and (said.leaves, said.super_root) == (len(leaves), super_root)):
            return None
        _check_growth(newest.heads if newest else (), leaves)
        skew = self.database.skew
        if skew is not None and abs(skew) > CLOCK_SKEW_MAX:
            raise clock_fault(skew)
        now = to_micros(self.database.clock.now())
        statement = Statement(
            seq=said.seq + 1 if said else 1,
            # A clock that was set back must not make this look like the older one.
            time=max(now, said.time + 1) if said else now,
            service=self.service,
            leaves=len(leaves),
            super_root=super_root,
            previous=newest.digest if newest else "",
        ).to_bytes()
        signature = self.signer.sign(statement)
        if not is_signed(self.signer.public_key, signature, statement):
            # Kept, it would stand under its number for years.
            raise Unavailable("bad_signature", "The signer answered with a signature that is none; repeat.")
        return Anchor(statement, signature, key_id_of(self.signer), leaves)

    def _note_key(self, anchor: Anchor) -> None:
        """Note the key of *anchor* before it is kept: no anchor stands whose key is not named."""
        row: Row = {"pk": KEYS, "sk": anchor.key_id, "key": self.signer.public_key, "seq": anchor.said.seq}
        put_new(self.database, self.tables.log, to_item(row))

    def _keep(self, anchor: Anchor) -> Anchor:
        seq = anchor.said.seq
        if self.objects.put_new(_key(seq), anchor.to_bytes()):
            return anchor
        return self._stored(seq)  # somebody else was first

    def _newest_after(self, seq: int) -> Anchor | None:
        """
        Find the newest anchor from *seq* on, which stands itself if it is not 0.

        Normally that is *seq*, or one further after a crash. Where the pointer was lost, it is found by doubling the
        step and then halving it, for anchors have no gaps.
        """
        newest = self._stored(seq) if seq else None
        step = 1
        while seq + step <= SEQ_MAX and (found := self._find(seq + step)):
            newest, seq, step = found, seq + step, step * 2
        while step > 1:
            step //= 2
            if found := self._find(seq + step):
                newest, seq = found, seq + step
        return newest

    def _find(self, seq: int) -> Anchor | None:
        body = self.objects.get(_key(seq))
        try:
            return None if body is None else Anchor.from_bytes(body)
        except ValueError as error:
            raise Damaged(f"Anchor {seq} is not what was written.") from error

    def _stored(self, seq: int) -> Anchor:
        anchor = self._find(seq)
        if anchor is None:
            raise Damaged(f"Anchor {seq} is not where it was written.")
        return anchor

    def _pointed(self) -> int:
        row = get(self.database, self.tables.log, POINTER, SOLE)
        return row["seq"] if row else 0

    def _point(self, before: int, anchor: Anchor) -> None:
        """Point to *anchor*; whoever has moved the pointer meanwhile has moved it to an anchor that stands too."""
        seq = anchor.said.seq

        def is_applied(row: Row) -> bool:
            return bool(row["seq"] >= seq)

        update_guarded(
            self.database,
            Change(
                key={"pk": POINTER, "sk": SOLE},
                when=(Is("seq", before) if before else Missing("seq"),),
                set={"seq": seq, "statement": anchor.digest},
            ),
            table=self.tables.log,
            is_applied=is_applied,
        )


def _key(seq: int) -> str:
    return f"{PREFIX}{ordered(seq)}.json.gz"


def _check_growth(before: tuple[bytes, ...], now: tuple[bytes, ...]) -> None:
    """Refuse to sign a log that has lost commits. That it has not changed others, its verifiers find out."""
    grown = {(leaf.tenant, leaf.partition): leaf for leaf in map(read_leaf, now)}
    for old in map(read_leaf, before):
        new = grown.get((old.tenant, old.partition))
        if new is None or new.size < old.size or (new.size == old.size and new.root != old.root):
            raise Inconsistent(
                f"Partition {old.partition} of {old.tenant} was signed with {old.size} commits and is another now."
            )
