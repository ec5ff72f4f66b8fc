"""Read models made again on the running stack, by its own workers, while others read and write."""

import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast_client.audit_operations import Rebuild
from tests.local.audit.conftest import OwnTenant, happened

STREAMS = 12
COMMITS = 3
EVENTS = 10
SECONDS_MAX = 60.0


@pytest.fixture(scope="module")
def written(tenant: OwnTenant) -> OwnTenant:
    for commit in range(COMMITS):
        for stream in range(STREAMS):
            append(tenant, f"orders/{stream}", commit)
    held(tenant)
    return tenant


def append(tenant: OwnTenant, stream: str, commit: int) -> None:
    version = commit * EVENTS
    events = [happened(version + number, subject=f"s{number}", data={"n": number}) for number in range(EVENTS)]
    tenant.audit.append(stream, events, version)


def held(tenant: OwnTenant) -> None:
    """Let the read models catch up."""
    for stream in range(STREAMS):
        assert list(tenant.audit.streams(f"orders/{stream}", wait_for=(f"orders/{stream}", COMMITS * EVENTS)))


def rebuilt(tenant: OwnTenant, view: str, **more: Any) -> Rebuild:
    begun = tenant.audit.rebuild(view, "to see that it comes out the same", **more)
    until = time.monotonic() + SECONDS_MAX
    while (now := tenant.audit.rebuild_state(begun.rebuild_id)).state == "running":
        assert time.monotonic() < until, now
        time.sleep(0.1)
    return now


def rows_of(tenant: OwnTenant, **more: Any) -> list[tuple[str, int]]:
    listed = tenant.get("/v1/streams", limit=1000, **more)["items"]
    return [(each["stream"], each["version"]) for each in listed]


@pytest.mark.parametrize(
    ("view", "rows"),
    [
        ("events", STREAMS * COMMITS * EVENTS * 4),
        ("streams", STREAMS),
    ],
)
def test_a_view_comes_out_the_same_and_is_swapped_in(written, view, rows):
    done = rebuilt(written, view)

    assert (done.state, done.rows) == ("flipped", rows)
    for part in done.partitions:
        assert part["compared"]["is_equal"]
        assert part["digest"] == part["compared"]["live_digest"]
    again = rebuilt(written, view)
    assert (again.state, again.generation) == ("flipped", done.generation + 1)


def test_what_was_swapped_in_can_be_taken_back_and_reads_the_same_before_and_after(written):
    before = rows_of(written)
    done = rebuilt(written, "streams", auto_flip=False)
    assert done.state == "ready"
    generation = done.generation
    assert rows_of(written, generation=generation) == before

    assert written.audit.change_rebuild(done.rebuild_id, "flip").state == "flipped"
    assert rows_of(written) == before
    assert written.audit.change_rebuild(done.rebuild_id, "rollback").state == "rolled_back"
    assert rows_of(written) == before


def test_a_view_as_of_a_past_time_is_read_by_its_generation(written):
    past = datetime.now(UTC)
    append(written, "orders/late", 0)
    assert list(written.audit.streams("orders/late", wait_for=("orders/late", EVENTS)))

    done = rebuilt(written, "streams", as_of=past)

    assert done.state == "ready"
    then = rows_of(written, generation=done.generation)
    assert then == [row for row in rows_of(written) if row[0] != "orders/late"]
    assert written.http.post(f"/v1/rebuilds/{done.rebuild_id}/flip").status_code == 409


def test_a_second_rebuild_of_a_view_waits_for_the_first(written):
    begun = written.audit.rebuild("events", "first", auto_flip=False)
    second = written.http.post(
        "/v1/rebuilds", json={"view": "events", "reason": "second"}, headers={"Idempotency-Key": "second"}
    )
    written.audit.change_rebuild(begun.rebuild_id, "abandon")

    # The first may have been over already: then the second runs.
    assert second.status_code == 202 or second.json()["rebuild_id"] == begun.rebuild_id
    if second.status_code == 202:
        written.audit.change_rebuild(second.json()["rebuild_id"], "abandon")


def test_nobody_waits_while_a_view_is_made_again(written):
    over = threading.Event()
    failed: list[str] = []
    asked = {"reads": 0, "appends": 0}

    def reading() -> None:
        while not over.is_set():
            answer = written.http.get("/v1/events", params={"subject": "s1", "limit": 1000})
            if answer.status_code != 200 or len(answer.json()["items"]) < STREAMS * COMMITS:
                failed.append(answer.text[:200])
            asked["reads"] += 1

    def appending() -> None:
        number = 0
        while not over.is_set():
            answer = written.http.post(
                "/v1/streams/meanwhile~1/events",
                json={"expected_version": number, "events": [happened(number, data={"n": number})]},
            )
            if answer.status_code != 201:
                failed.append(answer.text[:200])
                return
            number += 1
            asked["appends"] += 1

    threads = [threading.Thread(target=each) for each in (reading, appending)]
    for thread in threads:
        thread.start()
    try:
        done = rebuilt(written, "events")
    finally:
        over.set()
        for thread in threads:
            thread.join()

    assert failed == []
    assert done.state == "flipped", done
    assert min(asked.values()) > 0, asked
    last = asked["appends"]
    found = list(written.audit.search(stream="meanwhile/1", actor="tester", wait_for=("meanwhile/1", last)))
    assert [each.version for each in found] == list(range(1, last + 1))
