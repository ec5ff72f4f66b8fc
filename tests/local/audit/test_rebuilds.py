"""Read models made again on the running stack, by its own workers, while others read and write."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

import pytest

from holdfast_client.audit_operations import Rebuild
from holdfast_client.errors import Unavailable
from tests.local.audit.conftest import OwnTenant, happened

STREAMS = 12
COMMITS = 3
EVENTS = 10
SECONDS_MAX = 60.0
RACES_MAX = 10
T = TypeVar("T")


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


def caught_up(ask: Callable[[], T]) -> T:
    """Ask again while a read model is behind: it waits for 5 s at most, and a busy machine may take longer."""
    until = time.monotonic() + SECONDS_MAX
    while True:
        try:
            return ask()
        except Unavailable as error:
            if error.code != "view_behind" or time.monotonic() >= until:
                raise


def held(tenant: OwnTenant) -> None:
    """Let the read models catch up."""
    for stream in range(STREAMS):
        wait_for = (f"orders/{stream}", COMMITS * EVENTS)
        assert caught_up(lambda: list(tenant.audit.streams(wait_for[0], wait_for=wait_for)))  # noqa: B023 - at once


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
    assert caught_up(lambda: list(written.audit.streams("orders/late", wait_for=("orders/late", EVENTS))))

    done = rebuilt(written, "streams", as_of=past)

    assert done.state == "ready"
    then = rows_of(written, generation=done.generation)
    assert then == [row for row in rows_of(written) if row[0] != "orders/late"]
    assert written.http.post(f"/v1/rebuilds/{done.rebuild_id}/flip").status_code == 409


def test_a_second_rebuild_of_a_view_waits_for_the_first(written):
    def post(key: str) -> Any:
        body = {"view": "events", "reason": key, "auto_flip": False}
        return written.http.post("/v1/rebuilds", json=body, headers={"Idempotency-Key": key})

    for race in range(RACES_MAX):  # the first may be over before the second is asked for
        first, second = post(f"first-{race}"), post(f"second-{race}")
        assert first.status_code == 202
        written.audit.change_rebuild(first.json()["rebuild_id"], "abandon")
        if second.status_code == 409:
            break
        assert second.status_code == 202
        written.audit.change_rebuild(second.json()["rebuild_id"], "abandon")

    assert (second.status_code, second.json()["code"]) == (409, "rebuild_running")
    assert second.json()["rebuild_id"] == first.json()["rebuild_id"]
    again = post(f"second-{race}")
    assert (again.status_code, again.json()["generation"]) == (202, first.json()["generation"] + 1)
    written.audit.change_rebuild(again.json()["rebuild_id"], "abandon")


class Traffic:
    """Somebody who writes one stream and somebody who reads, for as long as the block lasts."""

    def __init__(self, tenant: OwnTenant) -> None:
        self._http = tenant.http
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._writing, self._reading)]
        self.failed: list[str] = []
        self.written = self.read = self.read_own = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def until_all_goes(self) -> None:
        until = time.monotonic() + SECONDS_MAX
        while not (self.written and self.read and self.read_own):
            assert time.monotonic() < until, self.failed
            time.sleep(0.05)

    def _writing(self) -> None:
        while not self._over.is_set():
            body = {"expected_version": self.written, "events": [happened(self.written)]}
            answer = self._http.post("/v1/streams/meanwhile~1/events", json=body)
            if answer.status_code != 201:
                self.failed.append(answer.text[:200])
                return
            self.written += 1

    def _reading(self) -> None:
        while not self._over.is_set():
            answer = self._http.get("/v1/events", params={"subject": "s1", "limit": 1000})
            if answer.status_code != 200 or len(answer.json()["items"]) < STREAMS * COMMITS:
                self.failed.append(answer.text[:200])
            self.read += 1
            if self.written:
                self._read_own(self.written)

    def _read_own(self, version: int) -> None:
        """Read what is known to be written, as often as one is told to ask again."""
        query: dict[str, Any] = {"stream": "meanwhile/1", "actor": "tester", "order": "desc", "limit": 1}
        while not self._over.is_set():
            waiting = {"Holdfast-Wait-For": f"meanwhile/1@{version}"}
            answer = self._http.get("/v1/events", params=query, headers=waiting)
            if answer.status_code == 503 and answer.json()["code"] == "view_behind":
                continue
            if answer.status_code != 200 or answer.json()["items"][0]["version"] < version:
                self.failed.append(answer.text[:200])
            self.read_own += 1
            return


def test_nobody_waits_while_a_view_is_made_again(written):
    with Traffic(written) as traffic:
        traffic.until_all_goes()
        before = (traffic.written, traffic.read)
        done = rebuilt(written, "events")
        after = (traffic.written, traffic.read)

    assert traffic.failed == []
    assert done.state == "flipped", done
    assert all(now > then for now, then in zip(after, before, strict=True)), (before, after)
    wanted = {"stream": "meanwhile/1", "actor": "tester"}
    found = caught_up(lambda: list(written.audit.search(**wanted, wait_for=("meanwhile/1", traffic.written))))
    assert [each.version for each in found] == list(range(1, traffic.written + 1))
