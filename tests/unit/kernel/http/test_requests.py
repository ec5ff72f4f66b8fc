"""What a handler is given, and who may call it."""

import base64
from typing import Any

import pytest

from tests.unit.kernel.http.shop import BATCH, call, faults, post_order

# --- What a handler is given


def test_a_handler_is_given_what_its_parameters_name():
    status, _, body = call(
        "POST",
        "/v1/shops/x~%252B%20+/orders",
        template="/v1/shops/{shop}/orders",
        parameters={"shop": "x~%252B%20+"},
        headers={"idempotency-key": "k-1"},
        body='{"sku": "a", "units": 1}',
    )

    assert status == 201
    assert body == {"sku": "a", "placed_by": "acme/ann/request-1@x~%2B +", "key": "k-1"}


@pytest.mark.parametrize(
    "parameters", [{"shop": "%ff"}, {"shop": "\ud800"}, {"shop": "%20\ud800"}, {"shop": None}, {}, None]
)
def test_a_path_parameter_that_is_no_text_is_invalid(parameters: Any):
    status, _, problem = call(
        "POST", "/", template="/v1/shops/{shop}/orders", parameters=parameters, body='{"sku": "a", "units": 1}'
    )

    assert (status, problem["code"]) == (400, "invalid_path")


def test_query_parameters_take_the_types_and_names_of_the_struct():
    status, _, body = call("GET", "/v1/orders", query={"after": ["3"], "is_open": ["true"], "from": ["null"]})

    assert (status, body) == (200, {"after": 3, "is_open": True, "from": "null", "before": None})


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"limit": ["3"]}, "/limit"),
        ({"a/b~c": ["3"]}, "/a~1b~0c"),
        ({"from_": ["3"]}, "/from_"),
        ({"after": ["3", "4"]}, "/after"),
        ({"after": ["-1"]}, "/after"),
        ({"after": ["1.5"]}, "/after"),
        ({"after": ["10.0"]}, "/after"),
        ({"after": ["1e2"]}, "/after"),
        ({"after": ["null"]}, "/after"),
        ({"before": ["null"]}, "/before"),
        ({"before": ["1e2"]}, "/before"),
        ({"before": [" 1"]}, "/before"),
        ({"before": ["-0"]}, "/before"),
        ({"before": ["٣"]}, "/before"),
        ({"before": ["9007199254740992"]}, "/before"),
        ({"after": []}, "/after"),
        ({"after": None}, "/after"),
        ({"from": ["\ud800"]}, "/from"),
        ({"after": ["\ud800"]}, "/after"),
        ({"\ud800": ["1"]}, "/?"),
        ({"after": [""]}, "/after"),
        ({"after": ["9007199254740992"]}, "/after"),
        ({"after": ["9" * 400]}, "/after"),
        ({"after": ["9" * 5_000]}, "/after"),
        ({"before": ["9" * 5_000]}, "/before"),
        ({"before": ["0" * 16 + "1"]}, "/before"),
        ({"is_open": ["maybe"]}, "/is_open"),
    ],
)
def test_a_query_that_the_struct_does_not_know_is_invalid(query: dict[str, list[str]], pointer: str):
    status, _, problem = call("GET", "/v1/orders", query=query)

    assert (status, problem["code"], faults(problem)) == (400, "invalid_query", [pointer])


def test_a_route_without_a_query_takes_none():
    status, _, problem = call("GET", "/v1/nothing", query={"verbose": ["1"]})

    assert (status, problem["code"], faults(problem)) == (400, "invalid_query", ["/verbose"])


def test_a_required_query_parameter_that_is_missing_is_named():
    _, _, problem = call("GET", "/v1/texts", query={"of": ["x"]})

    assert (problem["code"], faults(problem)) == ("invalid_query", ["/times"])


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ('{"sku": "a", "units": 1, "price": 2}', "unknown_field", "/price"),
        ('{"sku": "a", "units": 1, "a`b.c": 2}', "unknown_field", "/a`b.c"),
        ('{"sku": "a"}', "invalid_body", "/units"),
        ('{"sku": "a", "units": 0}', "invalid_body", "/units"),
        ('{"sku": "a", "units": "1"}', "invalid_body", "/units"),
        ('{"sku": "a", "units": 1, "notes": ["x", "too long"]}', "invalid_body", "/notes/1"),
        ('{"sku": "a", "units": 1, "by_region": {"eu.west": "x"}}', "invalid_body", "/by_region"),
        ("[]", "invalid_body", ""),
        ("null", "invalid_body", ""),
    ],
)
def test_a_body_of_another_type_is_invalid_where_it_differs(body: str, code: str, pointer: str):
    status, _, problem = post_order(body)

    assert (status, problem["code"], faults(problem)) == (400, code, [pointer])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (None, "body_required"),
        ("", "body_required"),
        ("{", "malformed_json"),
        ('{"sku": "a", "sku": "a"}', "not_i_json"),
        ('{"units": NaN}', "not_i_json"),
        ('"\ud800"', "not_i_json"),
        ("[" * 150 + "]" * 150, "too_deep"),
    ],
)
def test_a_body_that_is_not_sound_json_is_refused(body: str | None, code: str):
    status, _, problem = post_order(body)

    assert (status, problem["code"]) == (400, code)


def test_the_body_bound_counts_decoded_bytes_and_is_exact():
    exact = '{"sku": "é", "units": 1}'
    exact += " " * (400 - len(exact.encode()))
    wrapped = base64.b64encode(exact.encode()).decode()

    assert post_order(exact)[0] == 201
    assert post_order(wrapped, is_base64=True)[0] == 201
    for body, is_base64 in ((exact + " ", False), (base64.b64encode(exact.encode() + b" ").decode(), True)):
        status, _, problem = post_order(body, is_base64=is_base64)
        assert (status, problem["code"], problem["body_bytes_max"]) == (413, "body_too_large", 400)


@pytest.mark.parametrize("body", ["!", base64.b64encode(b'{"sku": "\xff"}').decode()])
def test_a_wrapped_body_that_is_not_text_is_refused(body: str):
    status, _, problem = post_order(body, is_base64=True)

    assert (status, problem["code"]) == (400, "not_i_json")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "", "application/json; charset=latin-1", "application/x-www-form-urlencoded", BATCH, "json"],
)
def test_a_body_of_another_media_type_is_unsupported(content_type: str):
    status, _, problem = post_order('{"sku": "a", "units": 1}', headers={"Content-Type": content_type})

    assert (status, problem["code"], problem["accepted"]) == (415, "unsupported_media_type", ["application/json"])


@pytest.mark.parametrize("content_type", ["Application/JSON", 'application/json; charset="UTF-8"'])
def test_a_media_type_knows_no_case_and_may_say_utf8(content_type: str):
    assert post_order('{"sku": "a", "units": 1}', headers={"Content-Type": content_type})[0] == 201


def test_a_raw_body_comes_with_its_media_type():
    headers = {"Content-Type": f"{BATCH}; charset=utf-8", "user-agent": "curl"}

    assert call("POST", "/v1/raw", headers=headers, body="[1]")[2] == {"content": [1], "type": BATCH, "agent": "curl"}


@pytest.mark.parametrize("key", ["", "k" * 256, "with space", "ümlaut", "tab\t"])
def test_an_idempotency_key_is_visible_ascii(key: str):
    status, _, problem = post_order('{"sku": "a", "units": 1}', headers={"Idempotency-Key": key})

    assert (status, problem["code"]) == (400, "invalid_idempotency_key")


@pytest.mark.parametrize("value", [None, 5])
def test_a_header_field_that_is_no_text_is_none(value: Any):
    headers = {"Idempotency-Key": value, "Traceparent": value}

    assert post_order('{"sku": "a", "units": 1}', headers=headers)[2]["key"] is None
    assert (
        post_order('{"sku": "a", "units": 1}', headers={"Content-Type": value})[2]["code"] == "unsupported_media_type"
    )
    assert post_order('{"sku": "a", "units": 1}', repeated_headers={"Idempotency-Key": [value]})[0] == 201


@pytest.mark.parametrize(
    ("headers", "repeated", "status"),
    [
        ({"Idempotency-Key": "k"}, {"Idempotency-Key": ["k"]}, 202),
        ({"idempotency-key": "k"}, {"Idempotency-Key": ["k", "k"]}, 202),
        ({"Idempotency-Key": "l"}, {"Idempotency-Key": ["k", "l"]}, 400),
        ({}, {"Idempotency-Key": ["k", "l"]}, 400),
        ({}, {"Idempotency-Key": ["k"], "idempotency-KEY": ["l"]}, 400),
        ({"Idempotency-Key": "k", "idempotency-key": "l"}, {}, 400),
    ],
)
def test_of_two_idempotency_keys_none_is_chosen(headers: dict[str, str], repeated: dict[str, list[str]], status: int):
    answered, _, body = call("PUT", "/v1/keyed", headers=headers, repeated_headers=repeated)

    assert answered == status
    assert (body if status == 202 else body["code"]) == ("k" if status == 202 else "invalid_idempotency_key")


def test_an_idempotency_key_may_be_demanded():
    assert call("PUT", "/v1/keyed")[2]["code"] == "idempotency_key_required"
    assert call("PUT", "/v1/keyed", headers={"Idempotency-Key": "k" * 255})[0] == 202


# --- Who may call


def test_a_caller_without_a_token_is_told_how_to_bring_one():
    event_headers = {"Authorization": None}
    status, headers, problem = call("GET", "/v1/orders", headers=event_headers)  # type: ignore[arg-type]

    assert (status, problem["code"]) == (401, "token_missing")
    assert headers["WWW-Authenticate"] == 'Bearer realm="holdfast"'


def test_a_bad_token_is_answered_with_the_word_of_rfc_6750():
    status, headers, problem = call("GET", "/v1/orders", headers={"Authorization": "Bearer expired"})

    assert (status, problem["code"]) == (401, "token_expired")
    assert headers["WWW-Authenticate"] == 'Bearer realm="holdfast", error="invalid_token"'


def test_a_missing_scope_is_named():
    status, headers, problem = call("DELETE", "/v1/orders")

    assert (status, problem["code"], problem["scope"]) == (403, "scope_missing", "shop:purge")
    assert "WWW-Authenticate" not in headers


def test_a_route_that_asks_for_one_of_several_scopes_is_opened_by_each():
    assert call("GET", "/v1/stock")[::2] == (200, "ann")

    status, _, problem = call("GET", "/v1/takings")
    assert (status, problem["code"], problem["scope"]) == (403, "scope_missing", "shop:purge")
    assert problem["detail"] == "This needs a token with the scope shop:purge or shop:count."
    assert call("GET", "/v1/stock", headers={"Authorization": "Bearer expired"})[0] == 401


def test_the_token_is_checked_before_anything_else_of_the_request():
    status, _, _ = post_order("{", headers={"Authorization": "Bearer expired", "Content-Type": "text/plain"})

    assert status == 401
