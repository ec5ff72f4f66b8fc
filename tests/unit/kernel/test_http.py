import base64
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import pytest
from chalice.test import Client

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


# --- What leaves


def test_every_answer_carries_the_standing_headers():
    for status, headers, _ in (
        call("GET", "/v1/orders"),
        call("GET", "/v1/nothing"),
        call("GET", "/v1/failures/{kind}", parameters={"kind": "bug"}),
        call("GET", "/nowhere"),
    ):
        assert status in (200, 204, 404, 500)
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Request-Id"] == "request-1"
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", headers["traceparent"])


def test_a_handler_may_answer_with_a_status_and_headers_of_its_own():
    status, headers, body = call("PUT", "/v1/keyed", headers={"Idempotency-Key": "k"})

    assert (status, body, headers["Idempotency-Replayed"]) == (202, "k", "true")
    assert headers["Cache-Control"] == "private"


def test_nothing_is_answered_without_a_content_type():
    status, headers, body = call("GET", "/v1/nothing")

    assert (status, body) == (204, None)
    assert "Content-Type" not in headers


def test_a_problem_tells_all_that_rfc_9457_asks_and_the_facts_beside_it():
    status, headers, problem = call("GET", "/v1/failures/{kind}", parameters={"kind": "stale"})

    assert status == 409
    assert headers["Content-Type"] == "application/problem+json"
    assert problem == {
        "type": "urn:holdfast:problem:stale",
        "title": "Stale",
        "status": 409,
        "detail": "Moved on.",
        "code": "stale",
        "retryable": False,
        "request_id": "request-1",
        "last_version": 7,
        "events": [{"id": "e"}],
    }


@pytest.mark.parametrize(
    ("kind", "status", "is_retryable", "retry_after"),
    [("throttled", 429, True, "3"), ("uncertain", 503, True, None), ("fault", 409, False, None)],
)
def test_a_problem_says_whether_and_when_to_repeat(kind: str, status: int, is_retryable: bool, retry_after: str | None):
    answered, headers, problem = call("GET", "/v1/failures/{kind}", parameters={"kind": kind})

    assert (answered, problem["retryable"], headers.get("Retry-After")) == (status, is_retryable, retry_after)


def test_a_fault_is_pointed_at():
    _, _, problem = call("GET", "/v1/failures/{kind}", parameters={"kind": "fault"})

    assert problem["errors"] == [{"pointer": "/a~1b/0", "detail": "No."}]


@pytest.mark.parametrize("kind", ["bug", "unwritable", "unwritable fact"])
def test_a_bug_is_answered_whole_and_leaks_nothing(kind: str, capsys: pytest.CaptureFixture[str]):
    status, headers, problem = call("GET", "/v1/failures/{kind}", parameters={"kind": kind})

    assert (status, problem["code"], problem["request_id"]) == (500, "internal", "request-1")
    assert headers["Content-Type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "code", "retryable", "request_id"}
    assert "s3cret" not in json.dumps(problem)
    assert "Traceback" in capsys.readouterr().out


def test_an_unknown_route_is_not_found_and_another_method_is_not_allowed():
    status, _, problem = call("GET", "/v2/orders")
    assert (status, problem["code"]) == (404, "not_found")

    status, headers, problem = call("POST", "/v1/orders")
    assert (status, problem["code"], headers["Allow"]) == (405, "method_not_allowed", "DELETE, GET")


def test_an_event_of_another_shape_is_not_found_rather_than_a_crash():
    assert APP({}, None)["statusCode"] == 404


@pytest.mark.parametrize(
    ("character", "bytes_each"),
    [("x", 1), ('"', 4), ("é", 6), ("😀", 12)],  # inside a JSON string inside JSON: \\\" and 😀
)
def test_an_answer_that_lambda_could_not_carry_is_refused_by_what_it_weighs_there(character: str, bytes_each: int):
    most = (ANSWER_BYTES_MAX - 6) // bytes_each

    assert call("GET", "/v1/texts", query={"of": [character], "times": [str(most)]})[0] == 200
    status, _, problem = call("GET", "/v1/texts", query={"of": [character], "times": [str(most + 1)]})
    assert (status, problem["code"]) == (422, "answer_too_large")


@pytest.mark.parametrize(("kind", "status", "code"), [("large", 409, "stale"), ("large fault", 400, "odd")])
def test_a_problem_that_lambda_could_not_carry_goes_without_what_is_large(kind: str, status: int, code: str):
    answered, _, problem = call("GET", "/v1/failures/{kind}", parameters={"kind": kind})

    assert (answered, problem["code"]) == (status, code)
    assert set(problem) == {"type", "title", "status", "detail", "code", "retryable", "request_id"}
    assert len(problem["detail"]) <= 1_000


# --- What is told beside the answer


def test_a_valid_trace_is_continued_and_others_can_read_it():
    _, headers, trace = call(
        "GET", "/v1/failures/{kind}", parameters={"kind": "trace"}, headers={"traceparent": TRACEPARENT}
    )

    assert trace["trace_id"] == TRACEPARENT[3:35]
    assert trace["parent_id"] == TRACEPARENT[36:52]
    assert headers["traceparent"] == f"00-{trace['trace_id']}-{trace['span_id']}-01"
    assert current_trace.get() is None


def test_each_invocation_writes_one_line_and_never_a_token_or_a_body(capsys: pytest.CaptureFixture[str]):
    post_order('{"sku": "s3cret"}', headers={"traceparent": TRACEPARENT, "Authorization": "Bearer s3cret"})

    written = capsys.readouterr().out
    [line] = [json.loads(text) for text in written.splitlines()]
    assert "s3cret" not in written
    assert (line["message"], line["route"]) == ("answered", "POST /v1/shops/{shop}/orders")
    assert (line["tenant"], line["status"], line["code"]) == ("acme", 400, "invalid_body")
    assert (line["request_id"], line["trace_id"]) == ("request-1", TRACEPARENT[3:35])
    assert line["ms"] >= 0


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
