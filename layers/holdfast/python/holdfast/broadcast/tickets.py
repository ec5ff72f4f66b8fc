"""
Tickets: what opens a WebSocket, once.

A browser cannot send a header with a WebSocket, and what stands in a URL ends up in logs. So a token is exchanged for a
ticket that is worth nothing a minute later, or after its first use. Only its hash is stored.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from holdfast.auth import Principal
from holdfast.dynamodb.attributes import to_item
from holdfast.dynamodb.reads import Row
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database, put_new, update_guarded
from holdfast.errors import Denied
from holdfast.streams.companions import AtLeast, Change, Missing

TICKET_SECONDS: Final = 60
"""How long a ticket waits for its use."""
TICKET_BYTES: Final = 32
"""256 random bits: nobody guesses one, so its hash needs no salt."""
TICKET_CHARACTERS_MAX: Final = 64
"""Longer ones are not looked for."""
SOLE: Final = "0"
"""The sort key of a row that is alone under its partition key."""


@dataclass(frozen=True)
class Tickets:
    """Issue tickets, and take them in exchange for whom they were issued to."""

    database: Database
    tables: Tables

    def issue(self, principal: Principal) -> str:
        """Make a ticket for *principal*, good for one connection within TICKET_SECONDS, and never past the token."""
        ticket = secrets.token_urlsafe(TICKET_BYTES)
        expires = min(_seconds(self.database.clock.now() + timedelta(seconds=TICKET_SECONDS)), principal.expires)
        row = {**_key(ticket), **row_of(principal), "expires": expires}
        # Nobody else can stand at a random key: what stands there was put by an attempt whose answer was lost.
        put_new(self.database, self.tables.views, to_item(row))
        return ticket

    def redeem(self, ticket: str, connection_id: str) -> Principal:
        """
        Take a ticket for *connection_id*, and say whom it was issued to.

        The same connection may ask again, as it must where an answer was lost.

        Raises:
            Denied: 401 `ticket_invalid`; it was used, has expired, or never was.
            Uncertain: nobody knows; the ticket is spent. Ask for another.
        """
        if len(ticket) <= TICKET_CHARACTERS_MAX:
            use = Change(
                _key(ticket),
                when=(Missing("used_by"), AtLeast("expires", _seconds(self.database.clock.now()) + 1)),
                set={"used_by": connection_id},
            )
            is_used, row = update_guarded(
                self.database, use, table=self.tables.views, is_applied=lambda row: row.get("used_by") == connection_id
            )
            if is_used and row is not None:
                return principal_of(row)
        raise Denied("ticket_invalid", "The ticket was used, or has expired: ask for a new one.", status=401)


def row_of(principal: Principal) -> Row:
    """Write who is asking as attributes of a row."""
    return {
        "tenant": principal.tenant,
        "subject": principal.subject,
        "scopes": sorted(principal.scopes),
        "jti": principal.jti,
        "token_expires": principal.expires,
    }


def principal_of(row: Mapping[str, Any]) -> Principal:
    return Principal(row["tenant"], row["subject"], frozenset(row["scopes"]), row["jti"], row["token_expires"])


def _key(ticket: str) -> Row:
    return {"pk": f"TK#{sha256(ticket.encode()).hexdigest()}", "sk": SOLE}


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
