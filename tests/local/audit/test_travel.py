"""Past states are the same before and after snapshots, archive, and rebuild; of a made history, and of flask's."""

import itertools
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest

from holdfast_cli.audit_verify import _pem
from holdfast_client.audit_operations import Rebuild
from holdfast_client.events import Event
from tests.generated_history import BEGIN, COMMIT_EVENTS, YEARS, batched, changes, state_of
from tests.local.audit.as_owner import MARK, Owner, owner_of
from tests.local.audit.conftest import ROOT, OwnTenant, happened

FLASK = ROOT.parent / "shared" / "data" / "history" / "flask.jsonl.gz"
FLASK_EVENTS = 2_261
FLASK_EMPTY = 6
FLASK_AT_ONCE = 33
FLASK_BATCH = 25
"""Events of a commit of the import that is killed."""
MADE_EVENTS = 4 * COMMIT_EVENTS
"""Enough for a snapshot, and a commit beyond it."""
MADE_ASKED = 6
FLASK_ASKED = 12
SECONDS_MAX = 60.0
POLL_SECONDS = 0.05


@pytest.fixture(scope="module")
def owner(tenant: OwnTenant) -> Iterator[Owner]:
    with owner_of(tenant.stack, tenant.name) as owner:
        yield owner


def until(is_so: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < ends_at
        time.sleep(POLL_SECONDS)


def rebuilt(tenant: OwnTenant, view: str) -> Rebuild:
    begun = tenant.audit.rebuild(view, "the states must not notice")
    found: list[Rebuild] = []

    def is_over() -> bool:
        found.append(tenant.audit.rebuild_state(begun.rebuild_id))
        return found[-1].state != "running"

    until(is_over)
    return found[-1]


def indexed(tenant: OwnTenant, stream: str, version: int) -> None:
    assert list(tenant.audit.streams(stream, wait_for=(stream, version)))


def everywhere(tenant: OwnTenant, owner: Owner, stream: str, view: str, check: Callable[[], None]) -> None:
    """Check states as they are; once snapshots are kept; once everything is archived; and after a rebuild."""
    check()
    version = tenant.audit.state(stream).last_version
    until(lambda: owner.logged(stream) == version)
    until(lambda: owner.snapshots(stream) != [])  # the service makes them by itself
    owner.keep(stream)
    with owner.marked(stream):
        assert tenant.audit.state(stream, version=version).state[MARK]
        assert tenant.audit.state(stream, at=datetime.now(UTC)).state[MARK]
    check()
    owner.archive()
    assert len(owner.hot(stream)) == 1
    check()
    assert rebuilt(tenant, view).state == "flipped"
    check()


def test_every_state_of_a_long_history_is_the_same_wherever_it_is_made_from(tenant, owner):
    stream, history = "made/long", list(changes(MADE_EVENTS))
    for number, commit in enumerate(batched(history)):
        happened = [Event(type="made.changed", time=change.time, data=change.patch) for change in commit]
        tenant.audit.append(stream, happened, number * COMMIT_EVENTS)
    noise = random.Random(5)
    versions = noise.sample(range(1, MADE_EVENTS + 1), MADE_ASKED)
    times = [BEGIN + YEARS * noise.random() for _ in range(MADE_ASKED)]

    def check() -> None:
        for version in versions:
            assert tenant.audit.state(stream, version=version).state == state_of(history, version=version)
        for at in times:
            assert tenant.audit.state(stream, at=at).state == state_of(history, at=at)

    everywhere(tenant, owner, stream, "streams", check)


def imported(tenant: OwnTenant, stream: str) -> tuple[int, int, int]:
    """Import flask's history; give how many events were read, and how many of them appended, and there already."""
    done = tenant.run("audit", "import", FLASK, "--stream", stream, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["streams"] == {stream: FLASK_EVENTS}
    return told["events_read"], told["events_appended"], told["events_already_there"]


def imported_by_half(tenant: OwnTenant, stream: str) -> int:
    """Kill an import in its middle; give how many events it has appended."""
    process = tenant.start("audit", "import", FLASK, "--stream", stream, "--batch", str(FLASK_BATCH))

    def last_version() -> int:
        page = tenant.http.get(f"/v1/streams/{stream.replace('/', '~')}/events", params={"order": "desc", "limit": 1})
        return int(page.json()["last_version"]) if page.status_code == 200 else 0

    until(lambda: last_version() >= FLASK_EVENTS // 2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return last_version()


@pytest.mark.skipif(
    not FLASK.exists(), reason="the recorded history of flask is not beside this clone; the made one proves the same"
)
def test_sixteen_years_of_flask_come_back_by_time_and_by_version_wherever_they_lie(tenant, owner):
    stream = "flask/whole"
    half = imported_by_half(tenant, stream)
    read, appended, there = imported(tenant, stream)
    # The request that the killed import had sent last may have been carried out after it was killed.
    assert FLASK_EVENTS // 2 <= half <= there <= half + FLASK_BATCH < FLASK_EVENTS
    assert (read, appended) == (FLASK_EVENTS, FLASK_EVENTS - there)
    assert imported(tenant, stream) == (FLASK_EVENTS, 0, FLASK_EVENTS)
    events = list(tenant.audit.events(stream))
    assert [event.streamversion for event in events] == list(range(1, FLASK_EVENTS + 1))
    assert sum(event.data == {} for event in events) == FLASK_EMPTY
    assert sum(before.time == after.time for before, after in itertools.pairwise(events)) == FLASK_AT_ONCE
    states = json.loads(FLASK.with_name("flask.states.json").read_text())["states"]
    assert len(states) == FLASK_ASKED

    def check() -> None:
        for recorded in states:
            for within in ({"at": recorded["at"]}, {"version": recorded["after_seq"] + 1}):
                found = tenant.audit.state(stream, **within).state
                lines = "\n".join(f"{path}\t{blob}" for path, blob in sorted(found.items()))
                assert sha256(lines.encode()).hexdigest() == recorded["sha256"]

    everywhere(tenant, owner, stream, "activity", check)


def event_of(number: int) -> dict[str, Any]:
    return happened(number, type="t.archived", data={"n": number})


def test_what_is_archived_is_found_exported_and_proven_as_before(tenant, owner, tmp_path):
    stream = "archived/1"
    for number in range(12):
        tenant.audit.append(stream, [event_of(number)], number, idempotency_key=f"archived-{number}")
    indexed(tenant, stream, 12)
    before = [event.cloudevent for event in tenant.audit.events(stream)]
    now = datetime.now(UTC)

    owner.archive()

    assert owner.hot(stream) == [12]
    assert [event.cloudevent for event in tenant.audit.events(stream)] == before
    assert [each.event for each in tenant.audit.search(type="t.archived", include="data")] == before
    assert tenant.audit.state(stream, known_at=now).state == {"n": 11}
    exported, key = tmp_path / "whole.gz", tmp_path / "key.pem"
    key.write_bytes(b"".join(map(_pem, tenant.get("/v1/keys")["keys"])))
    assert tenant.run("audit", "export", "--out", exported).returncode == 0
    done = tenant.run("audit", "verify", "--export", exported, "--key", key)
    assert done.returncode == 0, done.stderr
    assert tenant.run("audit", "prove", stream, "3", "--key", key).returncode == 0
    # A repeat of what was archived is still the same call, years later.
    again = tenant.audit.append(stream, [event_of(0)], 0, idempotency_key="archived-0")
    assert (again.version, again.replayed) == (1, True)
