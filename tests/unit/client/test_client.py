"""The SDK over a real socket, sync and async, with lost requests, lost replies and late answers."""

import asyncio
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast_client import (
    Appended,
    AsyncHoldfast,
    Budget,
    Denied,
    Event,
    Holdfast,
    Invalid,
    NotFound,
    NotRunning,
    Stale,
    State,
    Throttled,
    Unavailable,
    Uncertain,
)
from holdfast_client.audit import AsyncAudit, Audit, AuditCalls
from holdfast_client.conversation import Answer
from tests.unit.client.conftest import QUICK
from tests.unit.client.loopback import TOKEN, DrippedHead, DrippedReply, GarbledReply, LostReply, LostRequest, Says


def placed(total: int = 12, **more: Any) -> Event:
    return Event(type="order.placed", data={"total": total}, **more)


def test_what_is_appended_is_read_back(holdfast):
    event = placed(
        subject="ann", reason="she asked", time=datetime(2026, 3, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    )

    appended = holdfast.audit.append("orders/42", [event], expected=None)

    assert (appended.version, appended.first_version, appended.replayed) == (1, 1, False)
    (read,) = holdfast.audit.events("orders/42")
    assert (read.id, read.type, read.data, read.subject) == (event.id, "order.placed", {"total": 12}, "ann")
    assert read.time == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert read.streamversion == 1
    assert holdfast.audit.state("orders/42").state == {"total": 12}


def test_a_lost_reply_is_asked_for_again_and_the_event_is_there_once(holdfast, trail):
    trail.faults.append(LostReply())

    appended = holdfast.audit.append("orders/42", [placed()], expected=None)

    assert (appended.version, appended.replayed) == (1, True)
    assert len(trail.streams["orders/42"]) == 1


def test_every_attempt_of_one_call_is_the_same_to_the_byte(holdfast, trail):
    trail.faults.extend([LostRequest(), LostReply(), Says(503)])

    holdfast.audit.append("orders/42", [placed()])

    first, *others = trail.seen
    assert len(others) == 3
    assert all((each.body, each.path, each.headers) == (first.body, first.path, first.headers) for each in others)


def test_two_calls_never_share_a_key(holdfast, trail):
    holdfast.audit.append("orders/42", [placed()])
    holdfast.audit.append("orders/42", [placed()])

    assert len({each.headers["idempotency-key"] for each in trail.seen}) == 2


def test_a_write_without_a_definite_answer_is_uncertain_and_retry_finds_out(holdfast, trail):
    trail.faults.extend([LostReply()] * QUICK.attempts_max)

    with pytest.raises(Uncertain) as raised:
        holdfast.audit.append("orders/42", [placed()], expected=None)

    assert raised.value.retry().version == 1
    assert len(trail.streams["orders/42"]) == 1


def test_an_uncertain_call_can_be_asked_again_by_its_key_from_anywhere(holdfast, trail):
    event = placed()
    trail.faults.extend([LostReply()] * QUICK.attempts_max)
    with pytest.raises(Uncertain) as raised:
        holdfast.audit.append("orders/42", [event], expected=None)

    appended = holdfast.audit.append("orders/42", [event], expected=None, idempotency_key=raised.value.idempotency_key)

    assert (appended.version, appended.replayed) == (1, True)


def test_a_success_that_cannot_be_read_is_uncertain_until_it_can(holdfast, trail):
    trail.faults.append(GarbledReply())

    assert holdfast.audit.append("orders/42", [placed()], expected=None).replayed


def test_a_reply_later_than_the_time_out_is_a_lost_reply(url, trail):
    with Holdfast(url, TOKEN, timeout_seconds=0.2, budget=QUICK) as holdfast, trail.lock, pytest.raises(Uncertain):
        holdfast.audit.append("orders/42", [placed()])


BOUNDS: list[dict[str, Any]] = [
    {"timeout_seconds": 0.3, "budget": Budget(attempts_max=1)},
    {"timeout_seconds": 30, "budget": Budget(attempts_max=1, seconds_max=0.3)},
]
"""The one bounds the attempt, the other the call."""


@pytest.mark.parametrize("bounds", BOUNDS)
def test_a_reply_that_drips_in_is_a_lost_reply_when_its_time_is_over(url, trail, bounds):
    trail.faults.append(DrippedReply())

    with Holdfast(url, TOKEN, **bounds) as holdfast, pytest.raises(Uncertain, match="No whole answer"):
        holdfast.audit.append("orders/42", [placed()])

    assert len(trail.streams["orders/42"]) == 1


@pytest.mark.parametrize(("bounds", "fault"), [(BOUNDS[0], DrippedHead()), (BOUNDS[1], DrippedReply())])
def test_an_awaited_reply_that_drips_in_is_a_lost_reply_when_its_time_is_over(url, trail, bounds, fault):
    trail.faults.append(fault)

    async def use() -> None:
        async with AsyncHoldfast(url, TOKEN, **bounds) as holdfast:
            await holdfast.audit.append("orders/42", [placed()])

    with pytest.raises(Uncertain, match="No whole answer"):
        asyncio.run(use())
    assert len(trail.streams["orders/42"]) == 1


def test_a_server_that_is_not_there_is_a_definite_failure():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with Holdfast(f"http://127.0.0.1:{port}", TOKEN, budget=QUICK) as holdfast, pytest.raises(Unavailable):
        holdfast.audit.append("orders/42", [placed()])


def test_a_stale_append_hands_over_the_winner(holdfast):
    holdfast.audit.append("orders/42", [placed(1)], expected=None)

    with pytest.raises(Stale) as raised:
        holdfast.audit.append("orders/42", [placed(2)], expected=None)

    assert raised.value.last_version == 1
    assert [event["data"] for event in raised.value.events] == [{"total": 1}]
    assert raised.value.request_id == "request-7"


def test_a_wrong_token_is_denied_without_being_shown(url):
    with Holdfast(url, "another-token", budget=QUICK) as holdfast, pytest.raises(Denied) as raised:
        holdfast.audit.state("orders/42")

    assert "another-token" not in str(raised.value)
    assert "another-token" not in repr(holdfast)


def test_an_unknown_stream_is_not_found(holdfast):
    with pytest.raises(NotFound, match="stream_not_found"):
        list(holdfast.audit.events("nothing/here"))


def test_retry_after_is_waited_for(holdfast, trail):
    trail.faults.append(Says(429, headers={"Retry-After": "1"}))
    started = time.monotonic()

    holdfast.audit.append("orders/42", [placed()])

    assert time.monotonic() - started >= 1.0


def test_a_throttled_call_ends_as_throttled_when_its_budget_is_spent(holdfast, trail):
    trail.faults.extend([Says(429)] * QUICK.attempts_max)

    with pytest.raises(Throttled):
        holdfast.audit.append("orders/42", [placed()])


def test_paging_gives_every_event_once_and_in_order(holdfast, trail):
    trail.page_events_max = 3
    holdfast.audit.append("orders/42", [placed(number) for number in range(10)])

    assert [event.streamversion for event in holdfast.audit.events("orders/42")] == list(range(1, 11))
    assert [event.streamversion for event in holdfast.audit.events("orders/42", 7)] == [8, 9, 10]
    assert [event.streamversion for event in holdfast.audit.events("orders/42", limit=4)] == [1, 2, 3, 4]


def test_pages_are_asked_for_only_as_they_are_needed(holdfast, trail):
    trail.page_events_max = 3
    holdfast.audit.append("orders/42", [placed(number) for number in range(10)])
    trail.seen.clear()

    next(holdfast.audit.events("orders/42"))

    assert len(trail.seen) == 1


def test_a_state_is_asked_by_version_by_time_and_by_what_was_known(holdfast, trail):
    holdfast.audit.append("orders/42", [placed()])
    trail.seen.clear()

    holdfast.audit.state(
        "orders/42", at=datetime(2026, 3, 1, tzinfo=UTC), version=1, known_at="2026-03-02T00:00:00+01:00"
    )

    assert trail.seen[0].path == (
        "/audit/v1/streams/orders~42/state?at=2026-03-01T00%3A00%3A00.000000Z&version=1"
        "&known_at=2026-03-02T00%3A00%3A00%2B01%3A00"
    )


def test_a_time_without_a_zone_is_refused_before_anything_is_sent(holdfast, trail):
    with pytest.raises(Invalid, match="time zone"):
        holdfast.audit.state("orders/42", at=datetime(2026, 3, 1))  # noqa: DTZ001
    with pytest.raises(Invalid, match="time zone"):
        holdfast.audit.append("orders/42", [placed(time=datetime(2026, 3, 1))])  # noqa: DTZ001

    assert trail.seen == []


NAMES_OF_ANOTHER = ["", "..", "a/../b", ".", "a//b", "/a", "a/", "a~b", "a%2fb", "a b", "a\0b", "ä", "a" * 201]


@pytest.mark.parametrize("name", NAMES_OF_ANOTHER)
def test_a_subject_or_a_rebuild_is_never_another_than_the_one_named(holdfast, trail, name):
    for act in (holdfast.audit.erase, holdfast.audit.hold, holdfast.audit.release):
        with pytest.raises(Invalid, match="invalid_subject"):
            act(name, "asked")
    with pytest.raises(Invalid, match="invalid_rebuild"):
        holdfast.audit.rebuild_state(name)
    with pytest.raises(Invalid, match="invalid_rebuild"):
        holdfast.audit.change_rebuild(name, "flip")

    assert trail.seen == []


def test_an_awaited_erasure_destroys_no_other_subject_either(url, trail):
    async def use() -> None:
        async with AsyncHoldfast(url, TOKEN, budget=QUICK) as holdfast:
            with pytest.raises(Invalid, match="invalid_subject"):
                await holdfast.audit.erase("ann~lee", "asked")

    asyncio.run(use())

    assert trail.seen == []


def test_every_subject_that_there_can_be_is_named_in_one_segment():
    calls = AuditCalls("http://x", {})

    assert calls.erase("ann/lee+1@x:y", "r", None).request.url == "http://x/v1/subjects/ann~lee%2B1%40x%3Ay/erasure"
    assert calls.hold("a" * 191, "r", None, None).request.url.endswith(f"/{'a' * 191}/hold")
    with pytest.raises(Invalid):
        calls.hold("a" * 192, "r", None, None)


@pytest.mark.parametrize("name", NAMES_OF_ANOTHER)
def test_a_name_that_would_reach_another_stream_is_refused_before_anything_is_sent(holdfast, trail, name):
    with pytest.raises(Invalid, match="invalid_stream"):
        holdfast.audit.state(name)

    assert trail.seen == []


@pytest.mark.parametrize("name", ["orders/42", "a.b/c..d/...", "a:b/c@d/e+f-g_h", "A" * 200])
def test_every_allowed_name_arrives_as_it_is(holdfast, trail, name):
    holdfast.audit.append(name, [placed()])

    assert list(trail.streams) == [name]


@pytest.mark.parametrize("data", [float("nan"), float("inf"), "\ud800", {1, 2}, datetime(2026, 1, 1, tzinfo=UTC)])
def test_what_json_cannot_say_is_refused_before_anything_is_sent(holdfast, trail, data):
    with pytest.raises(Invalid, match="not_i_json"):
        holdfast.audit.append("orders/42", [Event(type="x", data=data)])

    assert trail.seen == []


def test_a_cloudevent_given_as_a_dict_is_sent_as_it_is(holdfast, trail):
    cloudevent = {"specversion": "1.0", "id": "1", "source": "urn:me", "type": "x", "custom": 7, "data": None}

    holdfast.audit.append("orders/42", [cloudevent])

    assert msgspec.json.decode(trail.seen[0].body) == {"expected_version": "any", "events": [cloudevent]}
    (read,) = holdfast.audit.events("orders/42")
    assert read.data is None
    assert read.cloudevent["custom"] == 7


def test_an_event_writes_only_what_it_has():
    event = Event(type="x", id="1", data=None, extensions={"custom": 1})

    assert event.to_cloudevent() == {
        "specversion": "1.0",
        "type": "x",
        "data": None,
        "source": "urn:holdfast:client",
        "id": "1",
        "custom": 1,
    }
    assert "data" not in Event(type="x").to_cloudevent()


def test_the_async_client_keeps_the_same_promises(url, trail):
    trail.page_events_max = 2

    async def use() -> tuple[Appended, list[int], State, Appended]:
        async with AsyncHoldfast(url, TOKEN, budget=QUICK) as holdfast:
            trail.faults.append(LostReply())
            appended = await holdfast.audit.append("orders/42", [placed(number) for number in range(5)], expected=None)
            versions = [event.streamversion async for event in holdfast.audit.events("orders/42", limit=4)]
            state = await holdfast.audit.state("orders/42", version=2)
            trail.faults.extend([LostReply()] * QUICK.attempts_max)
            with pytest.raises(Uncertain) as raised:
                await holdfast.audit.append("orders/42", [placed()], expected=5)
            return appended, versions, state, await raised.value.retry()

    appended, versions, state, found_out = asyncio.run(use())

    assert (appended.version, appended.replayed) == (5, True)
    assert versions == [1, 2, 3, 4]
    assert state.state == {"total": 1}
    assert found_out.version == 6
    assert len(trail.streams["orders/42"]) == 6


def test_whatever_can_be_asked_can_be_awaited():
    asked, awaited = ({name for name in dir(kind) if not name.startswith("_")} for kind in (Audit, AsyncAudit))

    assert asked == awaited


def test_calls_of_many_threads_at_once_stay_apart(holdfast, trail):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: holdfast.audit.append(f"orders/{number}", [placed(number)]), range(40)))

    assert {name: len(events) for name, events in trail.streams.items()} == {f"orders/{n}": 1 for n in range(40)}


def test_a_service_with_an_address_of_its_own_is_reached_there(url, trail):
    with Holdfast("http://127.0.0.1:9", TOKEN, services={"audit": f"{url}/audit"}, budget=QUICK) as holdfast:
        holdfast.audit.append("orders/42", [placed()])

    assert "orders/42" in trail.streams


def test_a_proxy_of_the_environment_does_not_stand_before_the_loopback(url, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    with Holdfast(url, TOKEN, budget=Budget(attempts_max=1)) as holdfast:
        assert holdfast.audit.append("orders/42", [placed()]).version == 1


@pytest.mark.parametrize(("base", "services"), [("http://elsewhere.example", {"audit": "{url}/audit"}), ("{url}", {})])
def test_no_proxy_stands_before_the_loopback_wherever_the_other_services_are(url, trail, monkeypatch, base, services):
    base, services = base.format(url=url), {name: address.format(url=url) for name, address in services.items()}
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    once = Budget(attempts_max=1)

    async def use() -> Appended:
        async with AsyncHoldfast(base, TOKEN, services=services, budget=once) as holdfast:
            return await holdfast.audit.append("orders/42", [placed()])

    with Holdfast(base, TOKEN, services=services, budget=once) as holdfast:
        assert holdfast.audit.append("orders/42", [placed()]).version == 1
    assert asyncio.run(use()).version == 2


def test_a_service_elsewhere_is_reached_through_the_proxy_of_the_environment(url, trail, monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, url)
    places: Any = {"services": {"audit": "http://elsewhere.example/audit"}, "budget": Budget(attempts_max=1)}

    async def use() -> Appended:
        async with AsyncHoldfast("http://127.0.0.1:9", TOKEN, **places) as holdfast:
            return await holdfast.audit.append("orders/42", [placed()])

    with Holdfast("http://127.0.0.1:9", TOKEN, **places) as holdfast:
        assert holdfast.audit.append("orders/42", [placed()]).version == 1
    assert asyncio.run(use()).version == 2
    assert trail.seen[0].path.startswith("http://elsewhere.example/")


# Answers of other routes


def test_an_append_to_many_streams_says_where_each_came_to_stand_and_whether_it_was_a_repeat():
    call = AuditCalls("http://x", {}).append_many([("a", None, [placed()]), ("b", "any", [placed()])], "key")
    recorded_at = "2026-01-01T00:00:00Z"
    places = [{"stream": name, "version": 2, "first_version": 1, "recorded_at": recorded_at} for name in ("a", "b")]
    body = msgspec.json.encode({"commit_id": "c", "appends": places})

    first = call.read(Answer(201, {}, body))
    again = call.read(Answer(201, {"idempotency-replayed": "true"}, body))

    assert call.request.idempotency_key == "key"
    assert (first.commit_id, first.replayed, again.replayed) == ("c", False, True)
    assert [(each.stream, each.first_version, each.version) for each in first.appends] == [("a", 1, 2), ("b", 1, 2)]
    assert first.appends[0].recorded_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_difference_names_its_versions():
    call = AuditCalls("http://x", {}).diff("a", 1, None)

    changes = call.read(Answer(200, {}, b'{"patch": {"n": null}, "from": 1, "to": 3}'))

    assert (changes.patch, changes.from_version, changes.to_version) == ({"n": None}, 1, 3)


# The local stack


def write_run(home: Path, url: str, pid: int) -> None:
    home.mkdir(parents=True)
    (home / "token").write_text(TOKEN + "\n")
    run = {
        "pid": pid,
        "gateway_url": url,
        "services": {"audit": {"url": f"{url}/audit"}},
        "token_file": str(home / "token"),
    }
    (home / "run.json").write_bytes(msgspec.json.encode(run))


def test_the_local_stack_is_found_from_below_its_clone(url, trail, tmp_path, monkeypatch):
    write_run(tmp_path / ".holdfast", url, os.getpid())
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    monkeypatch.delenv("HOLDFAST_HOME", raising=False)

    with Holdfast.local() as holdfast:
        assert holdfast.audit.append("orders/42", [placed()]).version == 1


def test_the_home_that_the_environment_names_comes_first(url, trail, tmp_path, monkeypatch):
    write_run(tmp_path / "elsewhere", url, os.getpid())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "elsewhere"))

    with Holdfast.local() as holdfast:
        assert holdfast.audit.append("orders/42", [placed()]).version == 1


def test_where_nothing_runs_the_error_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDFAST_HOME", raising=False)

    with pytest.raises(NotRunning, match=r"\./holdfast up"):
        Holdfast.local()
    with pytest.raises(NotRunning, match=r"\./holdfast up"):
        Holdfast.local(tmp_path)


def test_a_stack_whose_process_has_ended_does_not_run(url, tmp_path):
    pid = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(pid, 0)
    write_run(tmp_path / "home", url, pid)

    with pytest.raises(NotRunning, match="has ended"):
        Holdfast.local(tmp_path / "home")
