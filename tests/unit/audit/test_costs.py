"""
What operations cost, to the request and the unit: a number that changes here changes somebody's bill.

Requests are DynamoDB's operations. Units are those of AWS's rules: a write of 1 KB, a consistent read of 4 KB; in a
transaction everything counts twice.
"""

import pytest

from functions.audit import adapters
from holdfast.folds import MERGE_PATCH
from holdfast.log import Hint
from tests.audit_lab import AuditLab
from tests.bench.audit.costs import BATCH, STREAMS_AT_ONCE, World, measured, total
from tests.capacity import Capacity, Cost
from tests.log_lab import LogLab, memory_tables
from tests.memory_dynamodb import MemoryTransport

READ_AND_PUT = {"Query": 1, "PutItem": 1}
INDEXED = {"BatchGetItem": 1, "Query": 1, "TransactWriteItems": 1}
LISTED = {"BatchGetItem": 2, "GetItem": 2, "Query": 1, "BatchWriteItem": 1, "UpdateItem": 1}
COUNTED = {"BatchGetItem": 3, "GetItem": 2, "Query": 1, "TransactWriteItems": 1}
LISTED_BATCH_ROWS = 25
COMMIT_UNITS = 4
"""A commit of BATCH events, packed."""


@pytest.fixture(scope="module")
def costs() -> dict[str, Cost]:
    return measured()


def test_an_append_is_one_query_and_one_put(costs):
    assert costs["append"] == Cost(READ_AND_PUT, reads={"commits": 1}, writes={"commits": 1})


def test_an_append_on_a_boundary_that_is_held_is_one_put_alone(costs):
    assert costs["append, boundary held"] == Cost({"PutItem": 1}, reads={}, writes={"commits": 1})


def test_the_first_append_of_a_stream_costs_what_any_other_does(costs):
    assert costs["append, first of a stream"] == costs["append"]


def test_a_repeated_append_writes_nothing(costs):
    assert costs["append, repeated"] == Cost({"Query": 1}, reads={"commits": 1}, writes={})


def test_an_append_at_any_version_takes_four_units(costs):
    assert costs["append, any version"] == Cost(
        {"Query": 1, "TransactWriteItems": 1}, reads={"commits": 1}, writes={"commits": 2, "operations": 2}
    )


def test_a_large_commit_costs_a_unit_for_each_kilobyte_packed(costs):
    assert costs[f"append of {BATCH}"] == Cost(READ_AND_PUT, reads={"commits": 1}, writes={"commits": COMMIT_UNITS})


def test_indexing_costs_two_units_each_for_segment_head_and_watermark(costs):
    assert costs["one event: log"] == Cost(INDEXED, reads={"log": 2, "commits": 1}, writes={"log": 2 + 2 + 2})


def test_indexing_streams_together_shares_segment_and_head(costs):
    cost = costs[f"log of {STREAMS_AT_ONCE} streams"]

    assert cost.requests == {**INDEXED, "Query": STREAMS_AT_ONCE}
    assert cost.writes == {"log": 2 + 2 + 2 * STREAMS_AT_ONCE}


def test_a_block_that_closes_costs_two_units_more(costs):
    assert costs["log, closing a block"] == Cost(INDEXED, reads={"log": 2, "commits": 1}, writes={"log": 6 + 2})


def test_the_view_events_takes_four_units_an_event_and_one_for_its_checkpoint(costs):
    assert costs["one event: view events"] == Cost(
        LISTED, reads={"log": 2, "views": 2, "commits": 1}, writes={"views": 4 + 1}
    )
    assert costs[f"{BATCH} events: view events"] == Cost(
        {**LISTED, "BatchWriteItem": 4 * BATCH // LISTED_BATCH_ROWS},
        reads={"log": 2, "views": 2, "commits": 1},
        writes={"views": 4 * BATCH + 1},
    )


@pytest.mark.parametrize("view", ["streams", "activity"])
@pytest.mark.parametrize("events", ["one event", f"{BATCH} events"])
def test_a_counting_view_takes_two_units_a_row_and_two_for_its_checkpoint(costs, view: str, events: str):
    assert costs[f"{events}: view {view}"] == Cost(
        COUNTED, reads={"log": 2, "views": 3, "commits": 1}, writes={"views": 2 + 2}
    )


def test_one_event_alone_from_append_to_every_view(costs):
    assert total(costs, "one event") == 1 + 6 + 5 + 4 + 4 == 20


def test_in_large_commits_an_event_takes_hardly_more_than_its_four_rows(costs):
    assert total(costs, f"{BATCH} events") == COMMIT_UNITS + 6 + (4 * BATCH + 1) + 4 + 4
    assert total(costs, f"{BATCH} events") / BATCH <= 5


@pytest.mark.parametrize("when", ["newest", "by version near the end"])
def test_a_state_at_the_end_takes_a_snapshot_and_the_commits_behind_it(costs, when: str):
    assert costs[f"state, {when}"] == Cost({"Query": 2}, reads={"log": 1, "commits": 1}, writes={})


def test_where_nothing_came_since_the_snapshot_its_last_commit_is_looked_for(costs):
    assert costs["state, newest, as its snapshot"].requests == {"Query": 3}


def test_a_state_in_the_past_takes_a_handful_of_requests_however_long_the_stream(costs):
    # The newest snapshot, and the one before the version; the commits between; the end of the stream.
    assert costs["state, by version in the past"].requests == {"Query": 4}
    # The ends of the stream and of what is indexed, the blocks, a snapshot, the commits behind it; and the open end, in
    # which an event of that time may have arrived late.
    assert costs["state, by time"].requests == {"GetItem": 1, "Query": 5}
    assert costs["state, as known"].requests == {"GetItem": 1, "Query": 4}
    assert costs["diff, to the newest"].requests == {"Query": 2 + 4}
    assert all(cost.read_units <= 12 for name, cost in costs.items() if name.startswith("state"))


def test_the_route_of_states_takes_no_request_beyond_those(monkeypatch):
    memory = MemoryTransport()
    capacity = Capacity(memory)
    audit = AuditLab(LogLab(capacity, memory_tables(memory)), monkeypatch)
    for _ in range(3):
        audit.lab.append("orders/1", BATCH)
    audit.lab.indexer().index([Hint(audit.lab.tenant, "orders/1", 2 * BATCH + 1)])
    adapters.snapshots_of(audit.lab.tenant).keep("orders/1", MERGE_PATCH)
    audit.lab.append("orders/1")
    audit.door.state()  # whether reads are recorded is asked once in a while

    def cost_of(query: str) -> Cost:
        capacity.take()
        assert audit.door.state(query)[0] == 200
        return capacity.take()

    assert cost_of("").requests == cost_of(f"version={3 * BATCH + 1}").requests == {"Query": 2}
    assert cost_of(f"version={BATCH}").requests == {"Query": 2}  # before any snapshot: the commits, and the end
    assert cost_of("at=2030-01-01T00:00:00Z").requests == {"GetItem": 1, "Query": 4}


def test_a_proof_takes_at_most_eight_reads(costs):
    assert costs["proof, of an old event"].requests == {"GetItem": 1, "Query": 3, "BatchGetItem": 3}
    assert costs["proof, of the newest event"].requests == {"GetItem": 1, "Query": 2, "BatchGetItem": 3}
    assert all(sum(cost.requests.values()) <= 8 for name, cost in costs.items() if name.startswith("proof"))


def test_what_is_indexed_twice_costs_one_read_and_no_write():
    world = World()
    world.append()
    world.index()

    assert world.cost(world.index) == Cost({"BatchGetItem": 1}, reads={"log": 2}, writes={})
