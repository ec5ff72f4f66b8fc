"""Appends to several streams at once, and what changed between versions, through the door."""

import random
from typing import Any

import msgspec
import pytest

from holdfast.auth import Principal
from holdfast.clock import ManualClock
from tests.audit_door import NOON, Door
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab

DIFF = "/v1/streams/{stream}/diff"


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    lab = log_lab()
    lab.clock = ManualClock(NOON)
    return AuditLab(lab, monkeypatch).door


def commit(door: Door, *appends: tuple[str, Any, list[Any]], **more: Any) -> tuple[int, Any, dict[str, str]]:
    listed = [
        {"stream": stream, "expected_version": expected, "events": events} for stream, expected, events in appends
    ]
    return door.call("POST", "/v1/commits", body={"appends": listed}, **more)


def code(answer: tuple[int, Any, dict[str, str]]) -> tuple[int, str]:
    return answer[0], answer[1]["code"]


def key(name: str) -> dict[str, Any]:
    return {"headers": {"idempotency-key": name}}


def no_id(**more: Any) -> dict[str, Any]:
    return {name: value for name, value in event(1, **more).items() if name != "id"}


def test_events_of_several_streams_are_appended_together(door: Door):
    door.append([event(0)], 0, stream="a~1")
    status, answer, headers = commit(door, ("a/1", 1, [event(1), event(2)]), ("b/1", None, [event(3)]))

    assert status == 201
    assert answer["appends"] == [
        {"stream": "a/1", "version": 3, "first_version": 2, "recorded_at": "2026-01-01T12:00:00.000001Z"},
        {"stream": "b/1", "version": 1, "first_version": 1, "recorded_at": "2026-01-01T12:00:00.000000Z"},
    ]
    assert "Idempotency-Replayed" not in headers
    read = [door.events(stream=stream)[1]["events"] for stream in ("a~1", "b~1")]
    assert [[each["id"] for each in events] for events in read] == [["0", "1", "2"], ["3"]]
    assert read[0][1]["commitid"] == read[1][0]["commitid"] == answer["commit_id"]


@pytest.mark.parametrize("more", [{}, key("k1")])
@pytest.mark.parametrize("expected", [0, "any"])
def test_a_repeat_gives_the_first_answer_and_says_so(door: Door, more: dict[str, Any], expected: Any):
    appends = (("a/1", expected, [event(1)]), ("b/1", expected, [event(2)]))
    first = commit(door, *appends, **more)
    door.append([event(3)], "any", stream="a~1")
    again = commit(door, *appends, **more)

    assert again[:2] == first[:2]
    assert again[2]["Idempotency-Replayed"] == "true"
    assert door.events(stream="a~1")[1]["last_version"] == 2


def test_one_key_for_two_requests_is_refused(door: Door):
    commit(door, ("a/1", "any", [event(1)]), ("b/1", "any", [event(2)]), **key("k1"))

    other = commit(door, ("a/1", "any", [event(1)]), ("b/1", "any", [event(3)]), **key("k1"))
    assert code(other) == (422, "idempotency_mismatch")
    # The key of a single append is another one.
    assert door.append([event(9)], "any", stream="a~1", **key("k1"))[0] == 201


def test_events_without_an_id_are_named_after_the_key_each_differently(door: Door):
    status, _, _ = commit(door, ("a/1", 0, [no_id()]), ("b/1", 0, [no_id(), no_id()]), **key("k1"))

    assert status == 201
    ids = [each["id"] for stream in ("a~1", "b~1") for each in door.events(stream=stream)[1]["events"]]
    assert len(set(ids)) == 3
    assert code(commit(door, ("a/1", 1, [no_id()]), ("b/1", 2, [no_id()]))) == (400, "invalid_event")


def test_a_stale_append_appends_nothing_anywhere_and_hands_over_the_winner(door: Door):
    door.append([event(1)], 0, stream="b~1")
    status, problem, _ = commit(door, ("a/1", 0, [event(2)]), ("b/1", 0, [event(3)]))

    assert (status, problem["code"], problem["stream"], problem["last_version"]) == (409, "stale", "b/1", 1)
    assert [each["id"] for each in problem["events"]] == ["1"]
    assert door.events(stream="a~1")[0] == 404


def test_one_stream_alone_is_an_append_too(door: Door):
    status, answer, _ = commit(door, ("a/1", 0, [event(1)]))

    assert (status, [each["version"] for each in answer["appends"]]) == (201, [1])


@pytest.mark.parametrize(
    ("appends", "refusal", "pointer"),
    [
        ([], (400, "no_appends"), "/appends"),
        ([(f"a/{n}", 0, [event(n)]) for n in range(21)], (413, "too_many_appends"), "/appends"),
        ([("a", 0, [event(1)]), ("a", 0, [event(2)])], (400, "duplicate_stream"), "/appends/1/stream"),
        ([("a", 0, [event(1)]), ("b", 0, [event(1)])], (400, "duplicate_event_id"), "/appends/1/events/0/id"),
        (
            [("a", 0, [event(1)]), ("b", -1, [event(2)])],
            (400, "invalid_expected_version"),
            "/appends/1/expected_version",
        ),
        ([("a", 0, [event(1)]), ("b", 0, [])], (400, "no_events"), "/appends/1/events"),
        ([("a", 0, [event(1)]), ("b", 0, [{}])], (400, "invalid_event"), "/appends/1/events/0/specversion"),
        ([("a", 0, [event(1)]), ("..", 0, [event(2)])], (400, "invalid_stream"), None),
        ([("a", 0, [event(n) for n in range(1_001)])], (413, "too_many_events"), "/appends/0/events"),
        ([("a", 0, [event(1, actor="bob")])], (403, "actor_not_allowed"), "/appends/0/events/0/actor"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    door: Door, appends: list[Any], refusal: tuple[int, str], pointer: str | None
):
    door.principal = Principal("acme", "ann", frozenset({"audit:append", "audit:read"}), "j", expires=2**40)
    answer = commit(door, *appends)

    assert code(answer) == refusal
    assert answer[1].get("errors", [{"pointer": None}])[0]["pointer"] == pointer
    assert door.events(stream="a")[0] == 404


def test_twenty_streams_are_appended_to_at_once(door: Door):
    assert commit(door, *((f"a/{n}", 0, [event(n)]) for n in range(20)))[0] == 201


def test_appends_that_no_transaction_holds_are_refused(door: Door):
    # Text that packing makes hardly shorter; its second copy lies farther from the first than packing remembers.
    chance = random.Random(1)
    noise = "".join(
        chr(chance.randrange(0xA0, 0x800) if chance.random() < 0.4 else chance.randrange(0x23, 0x5C))
        for _ in range(134_000)
    )
    appends = [
        {"stream": f"a/{n}", "expected_version": 0, "events": [event(f"{n}a", data=noise), event(f"{n}b", data=noise)]}
        for n in range(11)
    ]

    def post(count: int) -> tuple[int, Any, dict[str, str]]:
        return door.call("POST", "/v1/commits", raw=msgspec.json.encode({"appends": appends[:count]}))

    assert code(post(11)) == (413, "transaction_too_large")
    assert post(9)[0] == 201


# ----- what changed


def diff(door: Door, query: str, stream: str = "a~1") -> tuple[int, Any, dict[str, str]]:
    return door.call("GET", DIFF, stream=stream, path=f"x?{query}")


def test_a_diff_says_what_changed_between_two_versions(door: Door):
    door.append([event(1, data={"e": 5}), event(2, data={"a": 1, "b": {"c": 1}})], 0)
    door.append([event(3, data={"b": {"d": 2}}), event(4, data={"a": None})], 2)

    assert diff(door, "from_version=0&to_version=1", "orders~1")[1] == {"patch": {"e": 5}, "from": 0, "to": 1}
    expected = {"patch": {"a": None, "b": {"d": 2}}, "from": 2, "to": 4}
    assert diff(door, "from_version=2&to_version=4", "orders~1")[1] == expected
    expected = {"patch": {"b": {"c": 1, "d": 2}}, "from": 1, "to": 4}
    assert diff(door, "from_version=1", "orders~1")[1] == expected
    assert diff(door, "from_version=4&to_version=4", "orders~1")[1]["patch"] == {}


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("from_version=2&to_version=1", (400, "invalid_range")),
        ("from_version=0&to_version=3", (404, "version_not_found")),
        ("from_version=3", (404, "version_not_found")),
        ("to_version=1", (400, "invalid_query")),
        ("from_version=-1", (400, "invalid_query")),
        ("from_version=1&at=2", (400, "invalid_query")),
    ],
)
def test_a_diff_of_versions_that_are_not_there_is_refused(door: Door, query: str, refusal: tuple[int, str]):
    door.append([event(1), event(2)], stream="a~1")

    assert code(diff(door, query)) == refusal


def test_a_diff_of_no_stream_is_not_found(door: Door):
    assert code(diff(door, "from_version=0")) == (404, "stream_not_found")


def test_a_diff_that_no_merge_patch_says_is_refused(door: Door):
    patch = [{"op": "add", "path": "/a", "value": None}]
    door.append([event(1, data=patch, datacontenttype="application/json-patch+json")], stream="a~1")

    assert code(diff(door, "from_version=0")) == (422, "no_merge_patch")


def test_a_diff_of_a_state_that_is_too_large_is_refused(door: Door):
    for number in range(21):
        door.append([event(number, data={str(number): "x" * 250_000})], stream="a~1")

    assert code(diff(door, "from_version=1")) == (422, "state_too_large")
    assert diff(door, "from_version=1&to_version=3")[0] == 200
