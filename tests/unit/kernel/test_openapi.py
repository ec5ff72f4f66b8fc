import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pytest

from holdfast.http import IDEMPOTENCY_REPLAYED, Answer, Api, Caller, Header, IdempotencyKey, RawBody

BATCH = "application/cloudevents-batch+json"


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sku: Annotated[str, msgspec.Meta(examples=["tea"])]
    units: Annotated[int, msgspec.Meta(ge=1)]


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lines: list[Line]


class Placed(msgspec.Struct, frozen=True):
    order_id: str
    lines: list[Line]


class Search(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    actor: Annotated[str, msgspec.Meta(description="Who did it.")]
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    from_: str | None = None


Wait = Annotated[str | None, Header("Shop-Wait", "Until it is open.", {"type": "string", "pattern": "^[0-9]+$"})]


def make_api() -> Api:
    app = Api("shop", title="Shop", version="1.2")

    @app.post(
        "/v1/shops/{shop}/orders",
        scope="shop:order",
        status=201,
        also=[200],
        headers=[IDEMPOTENCY_REPLAYED],
        raises={409: ["sold_out"], 400: ["no_lines"]},
    )
    def post_order(caller: Caller, shop: str, body: Order, key: IdempotencyKey) -> Answer[Placed]:
        """
        Place an order.

        Asking twice under one key places it once.
        """
        raise AssertionError

    @app.get("/v1/orders", scope=("shop:read", "shop:count"))
    def get_orders(query: Search) -> list[Placed]:
        """Find orders."""
        raise AssertionError

    @app.post("/v1/raw", scope=None, content_types={"application/json": Order, BATCH: list[Line]}, status=204)
    def post_raw(body: RawBody, key: IdempotencyKey | None, wait: Wait) -> None: ...

    return app


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """What a stranger gets, without a token."""
    answer = make_api()({"requestContext": {"resourcePath": "/openapi.json", "httpMethod": "GET"}}, None)
    assert answer["statusCode"] == 200
    assert answer["headers"]["Content-Type"] == "application/json"
    described: dict[str, Any] = json.loads(answer["body"])
    return described


def operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for operation in methods.values():
            yield path, operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def codes(operation: dict[str, Any], status: int) -> list[str]:
    schema = operation["responses"][str(status)]["content"]["application/problem+json"]["schema"]
    words: list[str] = schema["properties"]["code"]["enum"]
    return words


def test_the_document_says_what_it_is(described: dict[str, Any]):
    assert described["openapi"] == "3.1.0"
    assert described["info"] == {"title": "Shop", "version": "1.2"}
    assert set(described["paths"]) == {"/openapi.json", "/v1/shops/{shop}/orders", "/v1/orders", "/v1/raw"}


def test_every_reference_leads_somewhere(described: dict[str, Any]):
    names = {reference.removeprefix("#/components/schemas/") for reference in references(described)}

    assert names == {"Problem", "Order", "Line", "Placed"}
    assert names == set(described["components"]["schemas"])


def test_operations_have_one_name_each_and_declare_every_path_parameter(described: dict[str, Any]):
    names = [operation["operationId"] for _, operation in operations(described)]

    assert len(set(names)) == len(names) == 4
    for path, operation in operations(described):
        declared = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]
        assert declared == re.findall(r"\{(\w+)\}", path)
        assert all(parameter["required"] for parameter in operation["parameters"] if parameter["in"] == "path")


def test_an_operation_is_described_by_its_docstring_and_its_types(described: dict[str, Any]):
    operation = described["paths"]["/v1/shops/{shop}/orders"]["post"]

    assert operation["summary"] == "Place an order."
    assert operation["description"] == "Asking twice under one key places it once."
    assert operation["security"] == [{"token": ["shop:order"]}]
    assert operation["requestBody"] == {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
    }
    success = operation["responses"]["201"]["content"]["application/json"]["schema"]
    assert success == {"$ref": "#/components/schemas/Placed"}
    assert described["components"]["schemas"]["Line"]["properties"]["sku"]["examples"] == ["tea"]


def test_query_parameters_are_the_fields_of_the_struct(described: dict[str, Any]):
    parameters = described["paths"]["/v1/orders"]["get"]["parameters"]

    assert parameters == [
        {"name": "actor", "in": "query", "required": True, "schema": {"type": "string"}, "description": "Who did it."},
        {
            "name": "limit",
            "in": "query",
            "required": False,
            "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
        },
        {
            "name": "from",
            "in": "query",
            "required": False,
            "schema": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
    ]


def test_the_idempotency_key_is_a_header_demanded_or_not(described: dict[str, Any]):
    demanded = described["paths"]["/v1/shops/{shop}/orders"]["post"]
    offered = described["paths"]["/v1/raw"]["post"]

    assert [(p["name"], p["required"]) for p in demanded["parameters"] if p["in"] == "header"] == [
        ("Idempotency-Key", True)
    ]
    assert next((p["name"], p["required"]) for p in offered["parameters"] if p["in"] == "header") == (
        "Idempotency-Key",
        False,
    )
    assert "idempotency_key_required" in codes(demanded, 400)
    assert "idempotency_key_required" not in codes(offered, 400)


def test_a_header_that_is_taken_is_described_as_it_is_declared(described: dict[str, Any]):
    assert described["paths"]["/v1/raw"]["post"]["parameters"][-1] == {
        "name": "Shop-Wait",
        "in": "header",
        "required": False,
        "description": "Until it is open.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    }


def test_headers_that_are_answered_are_described_with_every_success_and_with_problems(described: dict[str, Any]):
    responses = described["paths"]["/v1/shops/{shop}/orders"]["post"]["responses"]

    assert set(responses["201"]["headers"]) == set(responses["200"]["headers"]) == {"Idempotency-Replayed"}
    assert responses["200"]["content"] == responses["201"]["content"]
    assert {
        status: set(each["headers"]) for status, each in responses.items() if status > "400" and "headers" in each
    } == {
        "401": {"WWW-Authenticate"},
        "503": {"Retry-After"},
    }
    assert "headers" not in described["paths"]["/v1/orders"]["get"]["responses"]["200"]


def test_a_raw_body_is_described_by_the_types_it_is_declared_with(described: dict[str, Any]):
    content = described["paths"]["/v1/raw"]["post"]["requestBody"]["content"]

    assert content == {
        "application/json": {"schema": {"$ref": "#/components/schemas/Order"}},
        BATCH: {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Line"}}},
    }
    assert described["paths"]["/v1/raw"]["post"]["responses"]["204"] == {"description": "No Content"}


def test_every_declared_code_and_those_of_the_door_are_listed_under_their_status(described: dict[str, Any]):
    order = described["paths"]["/v1/shops/{shop}/orders"]["post"]

    assert codes(order, 409) == ["sold_out"]
    assert {"no_lines", "unknown_field", "not_i_json", "invalid_path", "invalid_idempotency_key"} <= set(
        codes(order, 400)
    )
    assert codes(order, 401) == ["token_missing", "token_invalid", "token_expired", "token_revoked"]
    assert codes(order, 403) == ["scope_missing"]
    assert (codes(order, 413), codes(order, 415)) == (["body_too_large"], ["unsupported_media_type"])
    assert (codes(order, 422), codes(order, 500)) == (["answer_too_large"], ["internal"])
    assert codes(order, 503) == ["token_keys_unknown", "revocations_unknown", "out_of_time"]


def test_a_route_that_asks_for_one_of_several_scopes_names_each_as_enough(described: dict[str, Any]):
    operation = described["paths"]["/v1/orders"]["get"]

    assert operation["security"] == [{"token": ["shop:read"]}, {"token": ["shop:count"]}]
    assert codes(operation, 403) == ["scope_missing"]


def test_an_open_route_asks_for_no_token(described: dict[str, Any]):
    operation = described["paths"]["/openapi.json"]["get"]

    assert operation["security"] == []
    assert "401" not in operation["responses"]


def test_the_document_is_made_once(monkeypatch: pytest.MonkeyPatch):
    app = make_api()
    made = []
    original = app.openapi
    monkeypatch.setattr(app, "openapi", lambda: made.append(1) or original())  # type: ignore[func-returns-value]

    for _ in range(3):
        app({"requestContext": {"resourcePath": "/openapi.json", "httpMethod": "GET"}}, None)

    assert len(made) == 1


def test_two_structs_of_one_name_are_refused():
    class Line(msgspec.Struct):
        length: int

    app = make_api()

    @app.get("/v1/lines", scope=None)
    def get_lines() -> list[Line]:
        raise AssertionError

    with pytest.raises(TypeError, match="called Line"):
        app.openapi()
