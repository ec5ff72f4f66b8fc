"""A shop with routes of every kind, asked as API Gateway hands requests over."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from holdfast.auth import Principal
from holdfast.errors import Conflict, Denied, Invalid, Stale, Throttled, Uncertain
from holdfast.http import Answer, Api, Caller, Header, IdempotencyKey, RawBody
from holdfast.http.answers import ANSWER_BYTES_MAX
from holdfast.telemetry import current_trace

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BATCH = "application/cloudevents-batch+json"


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sku: str
    units: Annotated[int, msgspec.Meta(ge=1)]
    notes: list[Annotated[str, msgspec.Meta(max_length=5)]] = []
    by_region: dict[str, int] = {}


class Listing(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    is_open: bool = False
    from_: str | None = None
    before: int | None = None


Agent = Annotated[str | None, Header("User-Agent", "Who asks.")]


class Placed(msgspec.Struct, frozen=True):
    sku: str
    placed_by: str
    key: str | None


def authenticate(authorization: str | None) -> Principal:
    if authorization is None:
        raise Denied("token_missing", "Send a token.", status=401)
    if authorization == "Bearer expired":
        raise Denied("token_expired", "Too late.", status=401)
    return Principal("acme", "ann", frozenset({"shop:order"}), "token-1", expires=2**40)


def make_api() -> Api:
    app = Api("shop", title="Shop", version="1.2", authenticate=authenticate)

    @app.post("/v1/shops/{shop}/orders", scope="shop:order", status=201, body_bytes_max=400)
    def post_order(caller: Caller, shop: str, body: Order, key: IdempotencyKey | None) -> Placed:
        return Placed(body.sku, f"{caller.tenant}/{caller.subject}/{caller.request_id}@{shop}", key)

    @app.get("/v1/orders", scope="shop:order")
    def get_orders(query: Listing) -> Listing:
        return query

    @app.delete("/v1/orders", scope="shop:purge", status=204)
    def delete_orders() -> None:
        raise AssertionError("nobody holds this scope")

    @app.post("/v1/raw", scope=None, content_types=("application/json", BATCH))
    def post_raw(body: RawBody, agent: Agent) -> dict[str, Any]:
        return {"content": body.content, "type": body.content_type, "agent": agent}

    @app.put("/v1/keyed", scope=None)
    def put_keyed(key: IdempotencyKey) -> Answer[str]:
        return Answer(key, status=202, headers={"Idempotency-Replayed": "true", "Cache-Control": "private"})

    @app.get("/v1/failures/{kind}", scope=None)
    def get_failure(kind: str) -> object:
        return fail(kind)

    @app.get("/v1/texts", scope=None)
    def get_text(query: TextQuery) -> str:
        return query.of * query.times

    @app.get("/v1/nothing", scope=None, status=204)
    def get_nothing() -> None:
        return None

    return app


def add_routes_of_several_scopes(app: Api) -> None:
    @app.get("/v1/stock", scope=("shop:purge", "shop:order"))
    def get_stock(caller: Caller) -> str:
        return caller.subject

    @app.get("/v1/takings", scope=("shop:purge", "shop:count"))
    def get_takings() -> None:
        raise AssertionError("nobody holds one of these scopes")


class TextQuery(msgspec.Struct, frozen=True):
    of: str
    times: int


def fail(kind: str) -> object:
    match kind:
        case "stale":
            raise Stale("stale", "Moved on.", last_version=7, events=[{"id": "e"}], title="hidden", type="hidden")
        case "throttled":
            raise Throttled("too_many", "Wait.", retry_after_seconds=3)
        case "uncertain":
            raise Uncertain("unknown_outcome", "Ask again.")
        case "fault":
            raise Conflict("held", "No.", pointer="/a~1b/0")
        case "large":
            raise Stale("stale", "Moved on.", last_version=7, events=["x" * ANSWER_BYTES_MAX])
        case "large fault":
            raise Invalid("odd", '"' * ANSWER_BYTES_MAX, pointer="/" + "é" * 2_000_000)
        case "bug":
            raise KeyError("s3cret of the house")
        case "unwritable":
            return {"when": object()}
        case "trace":
            return current_trace.get()
        case _:
            raise Conflict("unwritable_fact", "Odd.", fact=object())


APP = make_api()
add_routes_of_several_scopes(APP)


def call(
    method: str,
    path: str,
    *,
    template: str | None = None,
    parameters: Mapping[str, str] | None = None,
    query: Mapping[str, list[str]] | None = None,
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
    is_base64: bool = False,
    repeated_headers: Mapping[str, list[str]] | None = None,
) -> tuple[int, Mapping[str, str], Any]:
    """Invoke the app as API Gateway's REST proxy integration does."""
    event = {
        "resource": template or path,
        "path": path,
        "httpMethod": method,
        "headers": {"Authorization": "Bearer good", "Content-Type": "application/json", **(headers or {})},
        "multiValueHeaders": repeated_headers,
        "queryStringParameters": {name: values[-1] for name, values in (query or {}).items() if values} or None,
        "multiValueQueryStringParameters": query,
        "pathParameters": parameters,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": template or path,
            "httpMethod": method,
            "requestId": "request-1",
            "path": f"/api{path}",
            "identity": {"sourceIp": "127.0.0.1"},
        },
        "body": body,
        "isBase64Encoded": is_base64,
    }
    answer = APP(event, None)
    json.dumps(answer)  # Lambda writes it so
    return answer["statusCode"], answer["headers"], json.loads(answer["body"]) if answer["body"] else None


def post_order(body: str | None, **options: Any) -> tuple[int, Mapping[str, str], Any]:
    template = "/v1/shops/{shop}/orders"
    return call("POST", "/v1/shops/x/orders", template=template, parameters={"shop": "x"}, body=body, **options)


def faults(problem: Any) -> list[str]:
    return [fault["pointer"] for fault in problem["errors"]]
