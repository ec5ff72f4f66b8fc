"""How routes are declared, and how Chalice sees them."""

from typing import Any

import pytest
from chalice.test import Client

from holdfast.http import Api, Caller
from tests.unit.kernel.http.shop import APP

# --- Declaring


def test_a_parameter_that_no_request_holds_is_refused_at_once():
    app = Api("shop", title="Shop", version="1")

    with pytest.raises(TypeError, match="takes `colour: <class 'str'>`"):

        @app.get("/v1/things", scope="shop:order")
        def get_things(colour: str) -> None: ...


def test_a_path_parameter_that_the_handler_does_not_take_is_refused_at_once():
    app = Api("shop", title="Shop", version="1")

    with pytest.raises(TypeError, match="does not take thing"):

        @app.get("/v1/things/{thing}", scope="shop:order")
        def get_thing() -> None: ...


def test_an_open_route_has_no_caller():
    app = Api("shop", title="Shop", version="1")

    with pytest.raises(TypeError, match="caller"):

        @app.get("/v1/things", scope=None)
        def get_things(caller: Caller) -> None: ...


def test_a_declared_handler_stays_a_plain_function():
    app = Api("shop", title="Shop", version="1")

    @app.get("/v1/echo/{word}", scope=None)
    def get_echo(word: str) -> str:
        return word

    assert get_echo("word") == "word"


# --- As Chalice sees it


def test_chalice_knows_every_route_and_its_own_gateway_reaches_them():
    assert set(APP.routes["/v1/orders"]) == {"GET", "DELETE"}
    with Client(APP) as client:
        headers = {"Authorization": "Bearer good", "Content-Type": "application/json"}
        answer = client.http.post("/v1/shops/a%20b/orders", headers=headers, body=b'{"sku": "a", "units": 2}')
        missing = client.http.get("/v1/orders?after=x", headers=headers)

    assert answer.status_code == 201
    assert answer.json_body["placed_by"].endswith("@a b")
    assert (missing.status_code, missing.json_body["code"]) == (400, "invalid_query")


def test_other_triggers_stay_chalices_own():
    app = Api("shop", title="Shop", version="1")
    seen: list[str] = []

    @app.on_sqs_message(queue="orders")
    def take_orders(event: Any) -> None:
        seen.extend(record.body for record in event)

    with Client(app) as client:
        client.lambda_.invoke("take_orders", client.events.generate_sqs_event(["a", "b"]))

    assert seen == ["a", "b"]
