"""
Connections and what they listen to, as rows of the `views` table.

    C#<connection>       / 0             who it is
    C#<connection>       / T#<topic>     that it is a member there: how it is forgotten everywhere
    TP#<tenant>#<topic>  / <connection>  a member, with what the topic keeps for it

Every row ends by its time to live a little after API Gateway has ended the connection.
"""

import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, Final

import msgspec

from holdfast import telemetry
from holdfast.auth import Principal
from holdfast.broadcast.posting import Gone, Post, Undelivered, frames
from holdfast.broadcast.tickets import SOLE, principal_of, row_of
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.batches import delete_many
from holdfast.dynamodb.reads import Row, get, query
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database, put_new, update_guarded
from holdfast.errors import Denied, ServiceError, Throttled
from holdfast.streams.companions import Change, Is

CONNECTION_SECONDS_MAX: Final = 2 * 3_600
"""API Gateway ends every connection by then; one whose token ends sooner ends with it."""
SLACK_SECONDS: Final = 600
"""How much longer its rows stay: clocks differ, and its last message may be on the way."""
POSTERS_MAX: Final = 8
"""Connections that are served at the same time."""
PAGE_MEMBERS: Final = 100
"""Members that wait for a poster at a time."""
PUBLISH_SECONDS_MAX: Final = 10.0
"""How long one publication goes on beginning; whoever was not reached by then is told at the next one."""
SUBSCRIBE_ROUNDS_MAX: Final = 8
"""How often a subscription looks again when another of the same connection came between."""

_OURS: Final = ("tenant", "subject", "scopes", "jti", "token_expires", "expires", "epoch", "request")


class Connection(msgspec.Struct, frozen=True):
    """Somebody who is connected."""

    id: str
    principal: Principal
    expires: int
    """In epoch seconds."""


class Member(msgspec.Struct, frozen=True):
    """A connection as a listener of one topic."""

    connection: Connection
    topic: str
    epoch: int
    """Grows with each subscription of this connection to this topic."""
    attributes: Mapping[str, Any]
    """What the topic keeps for it."""

    @property
    def key(self) -> Row:
        return {"pk": topic_key(self.connection.principal.tenant, self.topic), "sk": self.connection.id}


class Delivery(msgspec.Struct, frozen=True):
    """What became of one publication, by connections."""

    sent: int = 0
    gone: int = 0
    """And forgotten: ended, or their token was revoked or has expired."""
    failed: int = 0
    """A frame was not taken, or what they should be sent could not be told."""
    skipped: int = 0
    """Not reached within PUBLISH_SECONDS_MAX."""


FramesFor = Callable[[Member], Iterable[bytes]]
"""Says what to send to a member; called in a thread of its own, once, just before it is sent."""


def topic_key(tenant: str, topic: str) -> str:
    return f"TP#{tenant}#{topic}"


def _never(_jti: str) -> bool:
    return False


@dataclass(frozen=True)
class Broadcast:
    """The connections of one service's WebSocket API."""

    database: Database
    tables: Tables
    post: Post
    is_revoked: Callable[[str], bool] = field(default=_never)
    """Tells by its `jti` whether a token was revoked: its connections are closed when they are next served."""
    posters: int = POSTERS_MAX

    def connect(self, connection_id: str, principal: Principal) -> Connection:
        """Remember who is connected; may be repeated."""
        now = self.database.clock.now()
        expires = int((now + timedelta(seconds=CONNECTION_SECONDS_MAX + SLACK_SECONDS)).timestamp())
        row = {"pk": _pk(connection_id), "sk": SOLE, **row_of(principal), "expires": expires}
        # API Gateway gives no id twice: what stands there was put by us.
        put_new(self.database, self.tables.views, to_item(row))
        return Connection(connection_id, principal, expires)

    def connection(self, connection_id: str) -> Connection | None:
        """Say who is connected; None if it has ended, or its token has: then it was told so and closed."""
        row = get(self.database, self.tables.views, _pk(connection_id), SOLE)
        return self._living(Connection(connection_id, principal_of(row), row["expires"])) if row else None

    def member(self, connection: Connection, topic: str) -> Member | None:
        pk = topic_key(connection.principal.tenant, topic)
        row = get(self.database, self.tables.views, pk, connection.id)
        return member_of(topic, row) if row else None

    def members(self, tenant: str, topic: str) -> Iterator[Member]:
        for row in query(self.database, self.tables.views, topic_key(tenant, topic)):
            yield member_of(topic, row)

    def subscribe(
        self, connection: Connection, topic: str, attributes: Mapping[str, Any], *, request_id: str
    ) -> Member:
        """
        Make a connection listen to *topic*, or begin anew if it does; repeating one request changes nothing.

        Raises:
            Throttled: `contended`; the same connection subscribes faster than that can be written.
        """
        membership = {"pk": _pk(connection.id), "sk": f"T#{topic}", "expires": connection.expires}
        put_new(self.database, self.tables.views, to_item(membership | {"tenant": connection.principal.tenant}))
        ours = {**row_of(connection.principal), "expires": connection.expires, "request": request_id}
        key = {"pk": topic_key(connection.principal.tenant, topic), "sk": connection.id}
        standing = put_new(self.database, self.tables.views, to_item({**key, **attributes, **ours, "epoch": 1}))
        row: Mapping[str, Any] | None = {**key, **attributes, **ours, "epoch": 1}
        if standing is not None:
            row = get(self.database, self.tables.views, key["pk"], key["sk"])
        for _ in range(SUBSCRIBE_ROUNDS_MAX):
            if row is None:
                break  # it was forgotten meanwhile: the connection has ended
            if row["request"] == request_id:
                return member_of(topic, row)
            again = Change(
                key,
                when=(Is("epoch", row["epoch"]),),
                set={**attributes, **ours, "epoch": row["epoch"] + 1},
            )
            _, row = update_guarded(
                self.database, again, table=self.tables.views, is_applied=lambda it: it["request"] == request_id
            )
        raise Throttled("contended", "This connection subscribes too often at once. Wait, then repeat.")

    def unsubscribe(self, connection: Connection, topic: str) -> None:
        """Listen no more; may be repeated."""
        self._delete(
            [(topic_key(connection.principal.tenant, topic), connection.id), (_pk(connection.id), f"T#{topic}")]
        )

    def forget(self, connection_id: str) -> None:
        """Remove everything that is known of a connection; may be repeated."""
        memberships = list(query(self.database, self.tables.views, _pk(connection_id), prefix="T#"))
        for row in memberships:
            self._delete([(topic_key(row["tenant"], row["sk"].removeprefix("T#")), connection_id)])
        self._delete([(row["pk"], row["sk"]) for row in memberships] + [(_pk(connection_id), SOLE)])

    def publish(self, tenant: str, topic: str, messages: Sequence[bytes]) -> Delivery:
        """
        Send *messages* to every member of a topic.

        Raises:
            ValueError: a message is too large to be passed on.
        """
        framed = list(frames(messages))
        return self.deliver(self.members(tenant, topic), lambda _member: framed)

    def deliver(self, members: Iterable[Member], frames_for: FramesFor) -> Delivery:
        """
        Serve *members*, POSTERS_MAX at a time, until PUBLISH_SECONDS_MAX are over.

        A connection that is slow holds up a poster for one frame, not the others; one that is gone is forgotten.
        """
        ends_at = self.database.clock.monotonic() + PUBLISH_SECONDS_MAX
        counts = dict.fromkeys(Delivery.__struct_fields__, 0)

        def serve(member: Member) -> str:
            return self._serve(member, frames_for, ends_at)

        waiting = iter(members)
        while page := list(islice(waiting, PAGE_MEMBERS)):
            for ending in self._together(serve, page):
                counts[ending] += 1
        return Delivery(**counts)

    def send(self, connection: Connection, messages: Iterable[bytes]) -> bool:
        """Send to one connection; False if it is gone, and then forgotten, or did not take all of it."""
        try:
            for frame in frames(messages):
                self.post.send(connection.id, frame)
        except Gone:
            self.forget(connection.id)
            return False
        except Undelivered:
            return False
        return True

    def close(self, connection_id: str) -> None:
        """End a connection and forget it."""
        self.post.close(connection_id)
        self.forget(connection_id)

    def _together(self, serve: Callable[[Member], str], page: Sequence[Member]) -> Iterator[str]:
        if self.posters == 1 or len(page) == 1:
            yield from map(serve, page)
            return
        with ThreadPoolExecutor(max_workers=min(self.posters, len(page))) as pool:
            # Each in a copy of our context, which holds the deadline.
            serving = [pool.submit(contextvars.copy_context().run, serve, member) for member in page]
            yield from (each.result() for each in serving)

    def _serve(self, member: Member, frames_for: FramesFor, ends_at: float) -> str:
        connection, clock = member.connection, self.database.clock
        if clock.monotonic() >= ends_at:
            return "skipped"
        try:
            if self._living(connection) is None:
                return "gone"
            for frame in frames_for(member):
                if clock.monotonic() >= ends_at:
                    return "skipped"
                self.post.send(connection.id, frame)
        except Gone:
            self._forget_member(member)
            return "gone"
        except (Undelivered, ServiceError) as error:
            telemetry.logger().warning("not delivered", connection_id=connection.id, why=str(error))
            return "failed"
        return "sent"

    def _living(self, connection: Connection) -> Connection | None:
        now = self.database.clock.now().timestamp()
        refusal = self._refusal(connection.principal, now)
        if refusal is None and now < connection.expires:
            return connection
        if refusal:
            with suppress(Gone, Undelivered):  # who does not hear why is closed all the same
                self.post.send(connection.id, error_message(refusal))
        self.close(connection.id)
        return None

    def _refusal(self, principal: Principal, now: float) -> Denied | None:
        """Say why a token is good for nothing any more; None if it is."""
        if principal.expires <= now:
            return Denied("token_expired", "The token has expired: ask for a ticket with a new one.", status=401)
        if self.is_revoked(principal.jti):
            return Denied("token_revoked", "The token was revoked: ask for a ticket with a new one.", status=401)
        return None

    def _forget_member(self, member: Member) -> None:
        # A subscription that met the end of its connection may have left a member that no other row tells of.
        self._delete([(member.key["pk"], member.key["sk"])])
        self.forget(member.connection.id)

    def _delete(self, keys: Sequence[tuple[str, str]]) -> None:
        # A connection's id never comes again, so nobody writes what is deleted here.
        delete_many(self.database, self.tables.views, keys)


def error_message(error: ServiceError, request_id: str = "") -> bytes:
    """Write what a connection is told of an error; one that answers no request names none."""
    return msgspec.json.encode(
        {
            "type": "error",
            "code": error.code,
            "detail": error.detail,
            "retryable": error.retryable,
            "request_id": request_id,
        }
    )


def member_of(topic: str, row: Mapping[str, Any]) -> Member:
    """Read a member's row."""
    connection = Connection(row["sk"], principal_of(row), row["expires"])
    attributes = {name: value for name, value in row.items() if name not in (*_OURS, "pk", "sk")}
    return Member(connection, topic, row["epoch"], attributes)


def _pk(connection_id: str) -> str:
    return f"C#{connection_id}"
