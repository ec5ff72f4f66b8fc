"""Deliberate mistakes in the kernel: each must turn a named promise red, or the promise is not tested."""

import inspect
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from holdfast.clock import ManualClock
from holdfast.dynamodb import event_store, transport, writes
from holdfast.errors import ServiceError
from holdfast.streams import ANY, Boundary, packing, rules
from holdfast.streams.rules import Seen
from tests.dynamo_tables import memory_stores, row_reader
from tests.faults.kernel.event_store import acts
from tests.faults.kernel.event_store import test_clocks_and_ages as clocks_and_ages
from tests.faults.kernel.event_store import test_faults as faults
from tests.faults.kernel.event_store import test_late_requests as late_requests
from tests.promises import EventStorePromises

PROMISES = EventStorePromises()


def no_boundary_check(patch: pytest.MonkeyPatch) -> None:
    def see(self: Any, wish: Any) -> Seen:
        newest = self.last(wish.stream)
        end = newest.boundary if newest else rules.empty(self._tenant, wish.stream, self._instant())
        expected = rules.expected_version(wish)
        return Seen(end if expected is None else msgspec.structs.replace(end, version=expected))

    patch.setattr(event_store.DynamoEventStore, "_see", see)


def unconditional_put(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writes, "put_action", lambda table, item: {"TableName": table, "Item": item})


def same_id_without_fingerprint(patch: pytest.MonkeyPatch) -> None:
    recognise = rules.recognise

    def credulous(commit: Any, commit_id: str, content: Any) -> Any:
        known = content if commit is None else msgspec.structs.replace(content, fingerprint=commit.fingerprint)
        return recognise(commit, commit_id, known)

    for module in (event_store, rules):
        patch.setattr(module, "recognise", credulous)


def recorded_at_is_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    seal = packing.seal

    def naive(boundary: Boundary, content: Any, **rest: Any) -> Any:
        return seal(msgspec.structs.replace(boundary, recorded_at=None), content, **rest)

    patch.setattr(event_store, "seal", naive)


def own_commit_taken_for_anothers(patch: pytest.MonkeyPatch) -> None:
    for module in (event_store, rules):
        patch.setattr(module, "recognise", lambda commit, commit_id, content: None)


def conflict_read_as_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transport, "PASSING_REASONS", frozenset())


def unknown_told_as_unavailable(patch: pytest.MonkeyPatch) -> None:
    def forgetful(self: Any, operation: str, request: Any, **_: Any) -> Any:
        return self.read(operation, request)

    patch.setattr(writes.Database, "write", forgetful)


def any_without_operation_row(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(event_store, "wants_any", lambda appends: False)


def held_boundary_without_age(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(event_store, "check_fresh", lambda boundary, clock: None)


def clock_unchecked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(event_store.DynamoEventStore, "_check_clock", lambda self, boundaries: None)


def companion_refusal_is_final(patch: pytest.MonkeyPatch) -> None:
    write = writes.Database.write

    def hasty(self: Any, operation: str, request: Any, **options: Any) -> Any:
        return write(self, operation, request, **{**options, "is_final": lambda error: True})

    patch.setattr(writes.Database, "write", hasty)


def held_boundary_of_anybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(event_store, "check_appends", lambda appends, companions, tenant: None)


def streams_of_an_operation_unchecked(patch: pytest.MonkeyPatch) -> None:
    recorded = event_store.DynamoEventStore._recorded

    def credulous(self: Any, row: Any, appends: Any, contents: Any, commit_id: str) -> Any:
        places = row["places"]
        named = [msgspec.structs.replace(wish, stream=place[0]) for wish, place in zip(appends, places, strict=False)]
        return recorded(self, row, named, contents, commit_id)

    patch.setattr(event_store.DynamoEventStore, "_recorded", credulous)


PLANTS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[..., Any], dict[str, Any]]] = [
    (no_boundary_check, PROMISES.test_only_the_end_of_the_newest_commit_may_be_expected, {"expected": 3}),
    (unconditional_put, PROMISES.test_a_held_boundary_loses_to_a_commit_made_meanwhile, {}),
    (same_id_without_fingerprint, PROMISES.test_another_request_under_the_same_id_is_refused, {"expected": 0}),
    (recorded_at_is_the_wall_clock, PROMISES.test_recorded_time_rises_even_when_the_clock_goes_back, {}),
    (
        own_commit_taken_for_anothers,
        faults.test_one_fault_at_any_attempt_is_survived,
        {"act": acts.append_expected, "fault": "lost_reply", "at": 1},
    ),
    (conflict_read_as_refusal, faults.test_a_transaction_that_met_a_neighbour_is_not_stale, {"times": 1}),
    (
        unknown_told_as_unavailable,
        faults.test_an_outcome_that_stays_unknown_is_never_told_as_failed,
        {"act": acts.append_expected},
    ),
    (
        any_without_operation_row,
        PROMISES.test_asking_again_gives_the_first_answer_however_far_the_stream_has_gone,
        {"expected": ANY},
    ),
    (companion_refusal_is_final, late_requests.test_a_request_that_arrives_late_is_never_told_as_refused, {}),
    (held_boundary_of_anybody, PROMISES.test_a_boundary_is_good_for_its_own_stream_and_tenant_only, {}),
    (streams_of_an_operation_unchecked, PROMISES.test_one_id_names_one_any_append_of_one_stream, {}),
    (
        held_boundary_without_age,
        clocks_and_ages.test_a_boundary_grown_old_while_a_machine_slept_is_not_built_on,
        {"sleep": "wall"},
    ),
    (clock_unchecked, clocks_and_ages.test_a_clock_far_from_the_stores_may_not_append, {}),
    (
        clock_unchecked,
        clocks_and_ages.test_a_clock_set_back_between_two_appends_may_not_append_while_the_store_knows_better,
        {},
    ),
]


def run(test: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any]) -> None:
    """Run a test as pytest would, on a store of its own."""
    tenant, clock, database = acts.TENANT, ManualClock(), memory_stores()
    stores = database.stores(clock)
    fixtures = {
        "tenant": tenant,
        "clock": clock,
        "stores": stores,
        "store": stores.of(tenant, "ann"),
        "database": database,
        "row": row_reader(database),
        "monkeypatch": monkeypatch,
        **parameters,
    }
    wanted = inspect.signature(test).parameters
    if "calm" in wanted:
        fixtures["calm"] = acts.begun(database, tenant)
    test(**{name: fixtures[name] for name in wanted})


RED = (AssertionError, pytest.fail.Exception, ServiceError)
"""How a test says that something is wrong, or a store what is not so; any other error is the plant's own fault."""


@pytest.mark.parametrize(("plant", "test", "parameters"), PLANTS, ids=[plant.__name__ for plant, _, _ in PLANTS])
def test_the_bug_is_caught(monkeypatch, plant, test, parameters):
    run(test, monkeypatch, parameters)  # green without the bug

    plant(monkeypatch)

    with pytest.raises(RED):
        run(test, monkeypatch, parameters)
