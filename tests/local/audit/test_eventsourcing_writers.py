"""Several writers of one application at once, on the running engine: ids without gaps, in the order of commits."""

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from eventsourcing.persistence import IntegrityError, Tracking

from holdfast.aws import client
from holdfast.integrations.eventsourcing import HoldfastFactory, HoldfastProcessRecorder
from tests.dynamo_tables import REGION
from tests.eventsourcing_lab import places, stored
from tests.soak import examples

WRITERS = 4
INSERTS = examples(15, soak=150)
"""Of each writer."""

NewRecorder = Callable[[], HoldfastProcessRecorder]


@pytest.fixture(scope="module")
def env(stack) -> Iterator[dict[str, str]]:
    table = f"test-writers-{uuid.uuid4().hex[:8]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        client.cache_clear()
        yield {
            "HOLDFAST_TABLE": table,
            "HOLDFAST_REGION": REGION,
            "HOLDFAST_ENDPOINT_URL": stack.running.engine.dynamodb_endpoint_url,
        }
        client.cache_clear()
    stack.client("dynamodb").delete_table(TableName=table)


@pytest.fixture
def new_recorder(env: dict[str, str]) -> NewRecorder:
    """Make recorders of one new application; each has its own factory and shares nothing with the others."""
    prefix = f"{os.getpid()}-{uuid.uuid4().hex[:8]}-"
    return lambda: HoldfastFactory({**env, "HOLDFAST_PREFIX": prefix}).process_recorder()


def all_at_once(work: Callable[[int], Any]) -> list[Any]:
    begin = threading.Barrier(WRITERS)

    def run(number: int) -> Any:
        begin.wait(timeout=10)
        return work(number)

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(run, range(WRITERS)))


def test_the_ids_of_several_processes_have_no_gap_and_follow_the_order_of_commits(new_recorder):
    """A reader that follows from the first moment sees every id, each after the one before it."""
    new_recorder()  # the table is there before anybody looks
    total = WRITERS * INSERTS * 2
    followed: list[int] = []

    def follow() -> None:
        with new_recorder().subscribe() as subscription:
            followed.extend(next(subscription).id for _ in range(total))

    def write(number: int) -> list[tuple[int, ...]]:
        recorder = new_recorder()
        given = []
        for version in range(INSERTS):
            ids = recorder.insert_events([*stored(f"w{number}", version), *stored(f"v{number}", version)])
            assert ids is not None
            given.append(tuple(ids))
        return given

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    given = all_at_once(write)
    follower.join(timeout=60)

    assert followed == list(range(1, total + 1))
    assert sorted(position for ids in given for pair in ids for position in pair) == followed
    assert all(ids == sorted(ids) for ids in given)
    log = new_recorder().select_notifications(1, total + 1)
    for number, ids in enumerate(given):
        for version, (first, second) in enumerate(ids):
            assert places([log[first - 1], log[second - 1]]) == [(f"w{number}", version), (f"v{number}", version)]


def test_of_those_who_record_one_version_one_wins_and_nothing_of_the_others_stays(new_recorder):
    def write(number: int) -> list[bool]:
        recorder, won = new_recorder(), []
        for version in range(INSERTS):
            try:
                recorder.insert_events(
                    [*stored("shared", version, state=bytes([number])), *stored(f"w{number}", version)]
                )
            except IntegrityError:
                won.append(False)
            else:
                won.append(True)
        return won

    wins = all_at_once(write)

    reader = new_recorder()
    shared = reader.select_events("shared")
    assert [event.originator_version for event in shared] == sorted({event.originator_version for event in shared})
    assert len(shared) == sum(map(sum, wins))
    for number, won in enumerate(wins):
        versions = [version for version, is_won in enumerate(won) if is_won]
        assert [event.originator_version for event in shared if event.state == bytes([number])] == versions
        assert [event.originator_version for event in reader.select_events(f"w{number}")] == versions


def test_a_notification_that_several_process_is_processed_once(new_recorder):
    def process(number: int) -> int:
        recorder, done = new_recorder(), 0
        for notification_id in range(1, INSERTS + 1):
            events = stored(f"w{number}", notification_id)
            try:
                recorder.insert_events(events, tracking=Tracking("upstream", notification_id))
            except IntegrityError:
                continue
            done += 1
        return done

    done = all_at_once(process)

    reader = new_recorder()
    log = reader.select_notifications(1, 10 * INSERTS)
    processed = [each.originator_version for each in log]
    assert len(processed) == sum(done)
    assert processed == sorted(set(processed))
    assert reader.max_tracking_id("upstream") == INSERTS
