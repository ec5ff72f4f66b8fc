"""What an append is told that finds its stream elsewhere: who took the place, as far as the caller may read it."""

import msgspec
import pytest

from tests.audit_door import ALL, Door
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    return AuditLab(log_lab(), monkeypatch).door


def test_a_stale_append_is_handed_the_winners_events(door):
    door.append([event(1)], 0)
    door.append([event(2), event(3)], 1)
    status, problem, _ = door.append([event(9)], 1)

    assert (status, problem["code"], problem["last_version"]) == (409, "stale", 3)
    assert [won["id"] for won in problem["events"]] == ["2", "3"]
    assert problem["retryable"] is False


def test_a_winner_of_many_events_is_read_instead(door):
    door.append([event(n) for n in range(101)], 0)
    _, problem, _ = door.append([event(9)], 0)

    assert problem["events_after"] == 0
    assert "events" not in problem


@pytest.mark.parametrize(
    ("text", "is_handed_back"), [("x" * 120_000, True), ('"' * 120_000, False), ("é" * 42_000, False)]
)
def test_a_winner_too_large_to_travel_is_read_instead(door, text, is_handed_back):
    assert door.append([event(n, data=text) for n in range(16)], 0)[0] == 201
    status, problem, _ = door.append([event(99)], 0)

    assert (status, problem["code"], problem["last_version"]) == (409, "stale", 16)
    assert ("events" in problem, problem.get("events_after")) == ((True, None) if is_handed_back else (False, 0))


def test_a_version_inside_a_commit_is_no_boundary(door):
    door.append([event(1), event(2), event(3)], 0)
    status, problem, _ = door.append([event(9)], 2)

    assert (status, problem["code"], problem["last_version"]) == (409, "stale", 3)
    assert [each["streamversion"] for each in problem["events"]] == [3]
    door.append([event(4), event(5)], 3)
    assert [each["id"] for each in door.append([event(9)], 1)[1]["events"]] == ["2", "3"]


def test_far_inside_a_commit_the_rest_of_it_is_read_instead(door):
    door.append([event(n) for n in range(1, 103)], 0)

    assert len(door.append([event(199)], 2)[1]["events"]) == 100
    problem = door.append([event(199)], 1)[1]
    assert (problem["events_after"], "events" in problem) == (1, False)


def test_ahead_of_a_stream_nothing_took_the_place(door):
    door.append([event(1)], 0)
    _, problem, _ = door.append([event(9)], 7)

    assert (problem["code"], problem["last_version"]) == ("stale", 1)
    assert not {"events", "events_after"} & problem.keys()


def test_who_may_append_but_not_read_is_told_where_the_events_are_and_not_what_they_say(door):
    door.append([event(1)], 0)
    door.append([event(n, data={"secret": n}) for n in (2, 3)], 1)
    door.principal = msgspec.structs.replace(door.principal, scopes=ALL - {"audit:read"})

    for expected in (0, 1, 2):
        status, problem, _ = door.append([event(9)], expected)
        assert (status, problem["last_version"], problem["events_after"]) == (409, 3, expected)
        assert "events" not in problem
    several = {"appends": [{"stream": "orders/1", "expected_version": 1, "events": [event(9)]},
                           {"stream": "orders/2", "expected_version": 0, "events": [event(8)]}]}  # fmt: skip
    _, problem, _ = door.call("POST", "/v1/commits", body=several)
    assert (problem["code"], problem["stream"], problem["events_after"]) == ("stale", "orders/1", 1)
    assert "events" not in problem
