"""The audit trail's door, in process: real routes and a real store in memory."""

import itertools
import json
import random
import string
from datetime import timedelta
from typing import Any

import pytest
from cloudevents.v1.http import from_json

from functions.audit.app import app
from holdfast import cloudevents
from holdfast.auth import Principal
from holdfast.clock import ManualClock
from holdfast.streams.packing import pack
from holdfast.streams.values import PACKED_BYTES_MAX
from tests.audit_door import ALL, BATCH, JSON, NOON, SAMPLE, described
from tests.audit_lab import AuditLab
from tests.log_lab import log_lab


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture
def door(monkeypatch, clock):
    lab = log_lab()
    lab.clock = clock
    return AuditLab(lab, monkeypatch).door


def event(number: int | str = 1, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": str(number), "source": "urn:test", "type": "test.happened", **more}


# ----- appending


def test_the_sample_of_what_triggers_the_function_is_answered(door):
    answer = app(SAMPLE, None)

    assert answer["statusCode"] == 201
    assert answer["headers"]["X-Request-Id"] == SAMPLE["requestContext"]["requestId"]
    assert door.events(stream="orders~42")[1]["events"][0]["type"] == "order.placed"


def test_an_append_answers_where_the_events_stand(door):
    status, answer, headers = door.append([event(1), event(2)], 0)

    assert status == 201
    assert (answer["version"], answer["first_version"], answer["recorded_at"]) == (2, 1, "2026-01-01T12:00:00.000000Z")
    assert "Idempotency-Replayed" not in headers


def test_a_repeat_gives_the_first_answer_and_says_so(door):
    key = {"headers": {"idempotency-key": "k1"}}
    first = door.append([event(1)], 0, **key)
    door.append([event(2)], 1)
    again = door.append([event(1)], 0, **key)

    assert again[:2] == first[:2]
    assert again[2]["Idempotency-Replayed"] == "true"


def test_without_a_key_the_events_own_ids_make_a_repeat_recognisable(door):
    first = door.append([event(1)])
    assert door.append([event(1)])[1] == first[1]
    assert door.events()[1]["last_version"] == 1


def test_one_key_for_two_requests_is_refused(door):
    key = {"headers": {"idempotency-key": "k1"}}
    door.append([event(1)], **key)
    status, problem, _ = door.append([event(2)], **key)

    assert (status, problem["code"]) == (422, "idempotency_mismatch")
    assert door.append([event(2)], stream="orders~2", **key)[0] == 201


def test_beside_a_key_an_event_needs_no_id(door):
    nameless = event()
    del nameless["id"]
    key = {"headers": {"idempotency-key": "k1"}}

    assert door.append([nameless])[1]["code"] == "invalid_event"
    first = door.append([nameless], **key)
    assert door.append([nameless], **key)[1] == first[1]
    assert len({found["id"] for found in door.events()[1]["events"]}) == 1


def test_two_idempotency_keys_are_none(door):
    status, problem, _ = door.append([event(1)], repeated={"Idempotency-Key": ["k1", "k2"]})

    assert (status, problem["code"]) == (400, "invalid_idempotency_key")
    assert door.events()[0] == 404


def test_two_expectations_are_none(door):
    headers = {"content-type": BATCH}
    repeated = {"Holdfast-Expected-Version": ["0", "any"]}
    _, problem, _ = door.append(None, body=[event(1)], headers=headers, repeated=repeated)

    assert problem["code"] == "invalid_expected_version"


def test_a_batch_brings_its_expectation_in_a_header(door):
    def send(expected: str | None, number: int) -> tuple[int, Any, Any]:
        headers = {"content-type": BATCH} | ({"holdfast-expected-version": expected} if expected is not None else {})
        return door.append(None, body=[event(number)], headers=headers)

    assert send("null", 1)[0] == 201
    assert send("1", 2)[0] == 201
    assert send("any", 3)[0] == 201
    for wrong in (None, "", "-1", "1.0", "9" * 5000, "²"):
        assert send(wrong, 4)[1]["code"] == "invalid_expected_version"


@pytest.mark.parametrize("expected", [-1, 1.5, "1", True, False, [], {}, "ANY"])
def test_what_is_no_expected_version_is_refused(door, expected):
    status, problem, _ = door.append([event(1)], expected)

    assert (status, problem["code"]) == (400, "invalid_expected_version")


def test_an_expected_version_is_always_said(door):
    assert door.append(None, body={"events": [event(1)]})[1]["code"] == "invalid_expected_version"


def test_null_means_that_the_stream_must_not_exist(door):
    assert door.append([event(1)], None)[0] == 201
    assert door.append([event(2)], None)[0] == 409


@pytest.mark.parametrize(
    ("events", "status", "code", "pointer"),
    [
        ([], 400, "no_events", "/events"),
        ([event(n) for n in range(1001)], 413, "too_many_events", "/events"),
        ([event(1), event(1)], 400, "duplicate_event_id", "/events/1/id"),
        ([event(1), event(2, type="")], 400, "invalid_event", "/events/1/type"),
        ([event(1, source=None)], 400, "invalid_event", "/events/0/source"),
        ([event(1, specversion="0.3")], 400, "invalid_event", "/events/0/specversion"),
        ([event(1, data={}, data_base64="")], 400, "invalid_event", "/events/0/data_base64"),
        ([event(1, data_base64="a")], 400, "invalid_event", "/events/0/data_base64"),
        ([event(1, data_base64=7)], 400, "invalid_event", "/events/0/data_base64"),
        ([event(1, Upper="x")], 400, "invalid_event", "/events/0/Upper"),
        ([event(1, **{"a/b~c": "x"})], 400, "invalid_event", "/events/0/a~1b~0c"),
        ([event(1, **{"a" * 21: "x"})], 400, "invalid_event", "/events/0/" + "a" * 21),
        ([event(1, extension=[1])], 400, "invalid_event", "/events/0/extension"),
        ([event(1, extension=1.5)], 400, "invalid_event", "/events/0/extension"),
        ([event(1, subject="é" * 257)], 400, "invalid_event", "/events/0/subject"),
        ([event(1, type=7)], 400, "invalid_event", "/events/0/type"),
        ([event(1, recordedat="2026-01-01T00:00:00Z")], 400, "invalid_event", "/events/0/recordedat"),
        ([event(1, time="yesterday")], 400, "invalid_time", "/events/0/time"),
        ([event(1, time="2026-01-01T00:00:00")], 400, "invalid_time", "/events/0/time"),
        ([event(1, time="2026-01-01T00:00:60Z")], 400, "invalid_time", "/events/0/time"),
        ([event(1), event(2, subject="a\0b")], 400, "invalid_event", "/events/1/subject"),
        ([event(1, count=2**31)], 400, "invalid_event", "/events/0/count"),
        ([event(1, time=7)], 400, "invalid_event", "/events/0/time"),
        ([event(1, data="x" * 262_144)], 413, "event_too_large", "/events/0"),
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused_with_its_place(door, events, status, code, pointer):
    answered, problem, _ = door.append(events)

    assert (answered, problem["code"]) == (status, code)
    assert problem["errors"][0]["pointer"] == pointer
    assert door.events()[0] == 404


def test_extensions_may_be_text_numbers_and_truth(door):
    assert door.append([event(1, trace="t", count=7, urgent=True, empty=None)])[0] == 201
    (found,) = door.events()[1]["events"]

    assert (found["trace"], found["count"], found["urgent"]) == ("t", 7, True)
    assert "empty" not in found


def test_another_actor_takes_a_right(door):
    door.principal = Principal(
        tenant="acme", subject="ann", scopes=frozenset({"audit:append", "audit:read"}), jti="j", expires=2**40
    )
    status, problem, _ = door.append([event(1), event(2, actor="bob")])
    assert (status, problem["code"], problem["errors"][0]["pointer"]) == (403, "actor_not_allowed", "/events/1/actor")
    assert door.append([event(1, actor="ann")])[0] == 201


def test_acting_for_another_says_on_whose_behalf(door):
    door.append([event(1, actor="bob"), event(2)])
    bobs, anns = door.events()[1]["events"]

    assert (bobs["actor"], bobs["onbehalfof"]) == ("bob", "ann")
    assert anns["actor"] == "ann"
    assert "onbehalfof" not in anns


def test_a_commit_may_pack_to_its_bound_but_not_beyond(door):
    noise = random.Random(1).choices(string.ascii_letters + string.digits, k=600_000)  # text takes about 6 bits each

    def events(length: int) -> list[dict[str, Any]]:
        """Make three of them out of so much text."""
        return [event(n, data="".join(noise[n:length:3])) for n in range(3)]

    def packed_bytes(length: int) -> int:
        return len(pack([cloudevents.encode(each, "") for each in events(length)]))

    length = 505_000
    for _ in range(20):
        missing = PACKED_BYTES_MAX - packed_bytes(length)
        if not missing:
            break
        length += missing  # it takes a little more, so this comes closer each time
    assert packed_bytes(length) == PACKED_BYTES_MAX

    assert door.append(events(length))[0] == 201
    beyond = next(more for more in itertools.count(length) if packed_bytes(more) > PACKED_BYTES_MAX)
    status, problem, _ = door.append(events(beyond), stream="orders~2")
    assert (status, problem["code"]) == (413, "commit_too_large")


# ----- doors


def test_what_headers_say_is_described():
    def headers(method: str, path: str) -> tuple[set[str], set[str]]:
        route = described()[path][method]
        success = next(each for status, each in route["responses"].items() if status < "300")
        return {p["name"] for p in route["parameters"] if p["in"] == "header"}, set(success.get("headers", {}))

    assert headers("post", "/v1/streams/{stream}/events") == (
        {"Idempotency-Key", "Holdfast-Expected-Version"},
        {"Idempotency-Replayed"},
    )
    assert headers("post", "/v1/commits") == ({"Idempotency-Key"}, {"Idempotency-Replayed"})
    for path in ("/v1/events", "/v1/streams", "/v1/activity"):
        assert headers("get", path) == ({"Holdfast-Wait-For"}, {"Holdfast-View-Position", "Holdfast-Lag-Seconds"})
    assert headers("get", "/v1/log") == (set(), set())


@pytest.mark.parametrize("scope", ["audit:append", "audit:read"])
def test_each_route_asks_for_its_scope(door, scope):
    door.principal = Principal(tenant="acme", subject="ann", scopes=ALL - {scope}, jti="j", expires=2**40)
    call = {"audit:append": lambda: door.append([event(1)]), "audit:read": door.events}[scope]

    assert (call()[0], call()[1]["code"]) == (403, "scope_missing")


def test_without_a_token_nobody_is_told_anything(door):
    for call in (
        lambda: door.append([event(1)], token=None),
        lambda: door.events(token=None),
        lambda: door.state(token=None),
    ):
        assert call()[0] == 401


def test_another_tenants_stream_is_not_found(door):
    door.append([event(1)])
    door.principal = Principal(tenant="rival", subject="eve", scopes=ALL, jti="j", expires=2**40)

    assert (door.events()[0], door.state()[0]) == (404, 404)


@pytest.mark.parametrize(
    "stream",
    ["", "..", "a~..", "~a", "a~~b", "a b", "a%20b", "%00", "a%23b", "é", "a" * 201, "a%7E..", "x" * 2048, "%zz"],
)
def test_names_that_are_no_streams_are_refused(door, stream):
    for call in (
        lambda: door.append([event(1)], stream=stream),
        lambda: door.events(stream=stream),
        lambda: door.state(stream=stream),
    ):
        status, problem, _ = call()
        assert (status, problem["code"]) == (400, "invalid_stream")


@pytest.mark.parametrize("stream", ["orders~1", "orders%2F1", "orders%7E1"])
def test_a_slash_may_be_written_as_tilde_or_encoded(door, stream):
    door.append([event(1)], stream=stream)

    assert door.events(stream="orders~1")[1]["stream"] == "orders/1"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{", "malformed_json"), (b"", "body_required"), (b"[]", "invalid_body"),
        (b'{"events":[],"x":1}', "unknown_field"),
        (b'{"events":[{"a":NaN}],"expected_version":0}', "not_i_json"), (b'{"a":1e400}', "not_i_json"),
        (b'{"a":1,"a":2}', "not_i_json"), (b'{"a":9007199254740993}', "not_i_json"), (b'{"a":"\\ud800"}', "not_i_json"),
        (b"[" * 10_000 + b"]" * 10_000, "too_deep"), (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "too_deep"),
    ],
)  # fmt: skip
def test_bodies_that_are_none_are_refused(door, raw, code):
    status, problem, _ = door.append(None, body=None, raw=raw)

    assert (status, problem["code"]) == (400, code)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "", "application/json; charset=utf-16"])
def test_anything_but_json_is_not_taken(door, kind):
    assert door.append([event(1)], headers={"content-type": kind})[0] == 415


# ----- reading


def test_events_are_read_a_page_at_a_time(door):
    door.append([event(n) for n in range(1, 6)], 0)
    door.append([event(n) for n in range(6, 8)], 5)
    seen, after = [], 0
    while after is not None:
        _, page, _ = door.events(f"limit=3&after={after}")
        assert page["last_version"] == 7
        seen += [found["streamversion"] for found in page["events"]]
        after = page["next_after"]

    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_events_are_read_newest_first(door):
    door.append([event(n) for n in range(1, 6)], 0)
    door.append([event(6)], 5)
    seen, after = [], 0
    while after is not None:
        _, page, _ = door.events(f"limit=2&order=desc&after={after}")
        seen += [found["streamversion"] for found in page["events"]]
        after = page["next_after"]

    assert seen == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("text", ["x" * 200_000, 'é"' * 50_000])
def test_a_page_ends_before_an_answer_grows_too_large(door, text):
    for n in range(1, 41):
        assert door.append([event(n, data=text)], n - 1)[0] == 201
    seen, after, pages = 0, 0, 0
    while after is not None:
        status, page, _ = door.events(f"limit=1000&after={after}")
        assert status == 200
        seen, after, pages = seen + len(page["events"]), page["next_after"], pages + 1

    assert seen == 40
    assert pages > 1


def test_after_the_end_there_is_nothing(door):
    door.append([event(1)])

    assert door.events("after=7")[1] == {"stream": "orders/1", "events": [], "last_version": 1, "next_after": None}


def test_what_is_read_parses_as_cloudevents(door):
    door.append([event(1, data={"a": [1, None]}, subject="s", datacontenttype=JSON), event(2, data_base64="AAE=")])

    for found in door.events()[1]["events"]:
        parsed = from_json(json.dumps(found))
        assert parsed["id"] == found["id"]
        assert parsed["streamversion"] == found["streamversion"]


def test_an_events_own_time_is_its_claim_and_recordedat_ours(door):
    door.append([event(1, time="2031-01-01T01:00:00+01:00"), event(2)])
    claimed, silent = door.events()[1]["events"]

    assert claimed["time"] == "2031-01-01T00:00:00.000000Z"
    assert claimed["recordedat"] == silent["time"] == "2026-01-01T12:00:00.000000Z"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=1e2",
        "limit=10.0",
        "limit=null",
        "limit=+1",
        "limit=",
        "after=-1",
        "after=1.5",
        "order=up",
        "no=1",
        "limit=1&limit=2",
    ],
)
def test_queries_that_are_none_are_refused(door, query):
    door.append([event(1)])

    assert (door.events(query)[0], door.events(query)[1]["code"]) == (400, "invalid_query")


# ----- states


def patched(number: int, hours: float, **data: Any) -> dict[str, Any]:
    return event(number, time=(NOON + timedelta(hours=hours)).isoformat(), data=data)


def test_states_by_version_by_time_and_as_known(door, clock):
    door.append([patched(1, 0, a=1), patched(2, 2, a=2)], 0)
    clock.advance(timedelta(hours=5))
    door.append([patched(3, 1, late=True)], 2)

    assert door.state()[1] == {
        "stream": "orders/1", "state": {"a": 2, "late": True}, "version": 3, "events_applied": 3, "events_erased": 0,
        "unapplied": [], "reducer": "merge-patch@1", "last_version": 3,
    }  # fmt: skip
    assert door.state("version=2")[1]["state"] == {"a": 2}
    assert door.state("at=2026-01-01T13:30:00Z")[1]["state"] == {"a": 1, "late": True}
    assert door.state("at=2026-01-01T15:30:00%2B02:00")[1]["state"] == {"a": 1, "late": True}
    assert door.state("known_at=2026-01-01T13:00:00Z")[1]["state"] == {"a": 2}
    assert door.state("at=2026-01-01T13:30:00Z&known_at=2026-01-01T13:00:00Z")[1]["state"] == {"a": 1}
    assert door.state("at=2025-01-01T00:00:00Z")[1]["version"] == 0


def test_a_version_that_has_not_been_is_not_found(door):
    door.append([event(1)])
    status, problem, _ = door.state("version=2")

    assert (status, problem["code"], problem["last_version"]) == (404, "version_not_found", 1)


def test_a_stream_that_is_not_there_is_not_found(door):
    assert (door.state()[0], door.state()[1]["code"]) == (404, "stream_not_found")


@pytest.mark.parametrize(
    "query", ["version=null", "version=1.0", "version=1e0", "version=-0", "version=", "version=true"]
)
def test_versions_that_are_none_are_refused(door, query):
    door.append([event(1)])

    assert (door.state(query)[0], door.state(query)[1]["code"]) == (400, "invalid_query")


@pytest.mark.parametrize("query", ["at=yesterday", "at=2026-01-01T00:00:00", "known_at=0", "at="])
def test_times_that_are_none_are_refused(door, query):
    door.append([event(1)])

    assert (door.state(query)[0], door.state(query)[1]["code"]) == (400, "invalid_time")


def test_a_state_too_large_to_answer_says_so(door):
    for n in range(25):
        door.append([event(n, data={f"k{n}": "x" * 250_000})], n)
    status, problem, _ = door.state()

    assert (status, problem["code"]) == (422, "state_too_large")


def test_one_event_never_takes_a_state_away(door):
    bomb = [{"op": "add", "path": "/a", "value": [1]}, *[{"op": "copy", "from": "/a", "path": "/a/-"}] * 40]
    door.append([event(1, data={"b": 1}), event(2, datacontenttype="application/json-patch+json", data=bomb)], 0)
    status, answer, _ = door.state()

    assert (status, answer["state"], answer["unapplied"]) == (200, {"b": 1}, [2])
