"""
Header fields that routes take or answer with: each is declared once, read or written by its name, and documented.

    WAIT_FOR = Header("Holdfast-Wait-For", "Wait until the answer holds this.")

    @app.get("/v1/orders", scope="shop:read", headers=[POSITION])
    def get_orders(wait_for: Annotated[str | None, WAIT_FOR]) -> Answer[Orders]:
        return Answer(orders, headers={POSITION.name: "7"})
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec


class Header(msgspec.Struct, frozen=True):
    """A field: its name, what it says, and how it is written."""

    name: str
    description: str
    schema: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})


IDEMPOTENCY_REPLAYED: Final = Header(
    "Idempotency-Replayed",
    "Said where this is the answer of an earlier call, which has happened once.",
    {"const": "true"},
)
RETRY_AFTER: Final = Header(
    "Retry-After", "After how many seconds to repeat, if it is said.", {"type": "integer", "minimum": 0}
)
WWW_AUTHENTICATE: Final = Header("WWW-Authenticate", "That a bearer token is asked for (RFC 6750).")
ALLOW: Final = Header("Allow", "The methods that the path has.")

OF_PROBLEMS: Final = {401: [WWW_AUTHENTICATE], 405: [ALLOW], 429: [RETRY_AFTER], 503: [RETRY_AFTER]}
"""What problems say beside their bodies, by status."""
