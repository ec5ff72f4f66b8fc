"""
The HTTP door: typed routes on Chalice, with one manner of authentication, errors, limits and documentation.

    app = Api("audit", title="Audit trail", version="1")

    @app.get("/v1/streams/{stream}/state", scope="audit:read")
    def get_state(caller: Caller, stream: str, query: StateQuery) -> State: ...

A handler's parameters say what it takes (`holdfast.http.routes`), its annotations are checked before it is called, and
every error leaves as `application/problem+json` (RFC 9457).
"""

from holdfast.http.answers import Answer
from holdfast.http.api import Api
from holdfast.http.headers import IDEMPOTENCY_REPLAYED, Header
from holdfast.http.requests import Caller, IdempotencyKey, RawBody

__all__ = ["IDEMPOTENCY_REPLAYED", "Answer", "Api", "Caller", "Header", "IdempotencyKey", "RawBody"]
