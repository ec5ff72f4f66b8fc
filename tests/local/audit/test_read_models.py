"""Read models and the log, deployed: what was appended is found by whoever waits for it, and all of it is provable."""

import base64
import json
from typing import Any

import pytest
from cloudevents.v1.http import from_json

from holdfast import proofs
from holdfast_client.audit_queries import PARTITIONS, partition_of
from tests.local.audit.conftest import OwnTenant, happened

STREAMS = ("orders/1", "orders/2", "people/ann", "people/bob", "stock/7")
COMMITS = 6
"""Of each stream, the n-th of n events."""


@pytest.fixture(scope="module")
def written(tenant: OwnTenant) -> OwnTenant:
    """Three weeks of events of two types about three subjects, and the read models that hold them."""
    for stream in STREAMS:
        version = 0
        for commit in range(1, COMMITS + 1):
            events = [
                happened(
                    f"{stream}@{version + number}",
                    type=f"test.{'made' if commit % 2 else 'changed'}",
                    subject=f"subject-{number % 3}",
                    time=f"2026-01-{3 * commit:02d}T{number:02d}:00:00Z",
                    data={"number": number, f"commit-{commit}": True},
                )
                for number in range(1, commit + 1)
            ]
            version = tenant.audit.append(stream, events, version).version
        # One's own write is there for whoever waits for it.
        assert list(tenant.audit.search(stream=stream, from_="2026-01-01T00:00:00Z", wait_for=(stream, version)))
    return tenant


def everything(tenant: OwnTenant) -> list[dict[str, Any]]:
    return [{**event.cloudevent, "stream": stream} for stream in STREAMS for event in tenant.audit.events(stream)]


@pytest.mark.parametrize(
    "facets",
    [
        {"type": "test.made"},
        {"subject": "subject-1"},
        {"actor": "tester"},
        {"type": "test.changed", "subject": "subject-2"},
        {"stream": "people/ann", "actor": "tester"},
    ],
    ids=str,
)
@pytest.mark.parametrize("limit", [7, 1000])
def test_a_search_finds_what_a_straight_filter_finds(written, facets, limit):
    expected = {
        (event["stream"], event["streamversion"])
        for event in everything(written)
        if all(event[name] == value for name, value in facets.items())
    }

    found = [(each.stream, each.version) for each in written.audit.search(**facets, limit=limit)]

    assert len(found) == len(set(found))
    assert set(found) == expected
    times = [each.time for each in written.audit.search(**facets, limit=limit, order="desc")]
    assert times == sorted(times, reverse=True)


def test_a_search_keeps_to_its_days(written):
    found = list(written.audit.search(from_="2026-01-06T00:00:00Z", to="2026-01-09T23:00:00Z"))

    assert len(found) == len(STREAMS) * (2 + 3)


def test_streams_and_activity_count_what_there_is(written):
    listed = {each.stream: each.version for each in written.audit.streams(wait_for=("stock/7", 21))}
    assert listed == dict.fromkeys(STREAMS, COMMITS * (COMMITS + 1) // 2)
    days: dict[str, int] = {}
    for each in written.get("/v1/activity")["items"]:
        days[each["day"]] = days.get(each["day"], 0) + each["count"]
    assert days == {f"2026-01-{3 * commit:02d}": commit * len(STREAMS) for commit in range(1, COMMITS + 1)}


def test_what_is_waited_for_and_never_comes_is_told_as_such(written):
    answer = written.http.get("/v1/streams", headers={"Holdfast-Wait-For": "orders/1@1000"})

    assert (answer.status_code, answer.json()["code"]) == (503, "view_behind")
    assert int(answer.headers["Retry-After"]) >= 1


def test_every_answer_of_a_read_model_says_how_far_it_has_come(written):
    answer = written.http.get("/v1/streams", headers={"Holdfast-Wait-For": "orders/1@21"})

    positions = [int(each) for each in answer.headers["Holdfast-View-Position"].split(",")]
    heads = [written.get(f"/v1/log/{partition}/head")["position"] for partition in range(PARTITIONS)]
    assert positions == heads
    assert float(answer.headers["Holdfast-Lag-Seconds"]) == 0


def test_the_log_holds_every_commit_once_in_order_under_its_root(written):
    versions: dict[str, int] = {}
    for partition in range(PARTITIONS):
        entries = list(written.audit.log(partition, limit=5))
        head = written.get(f"/v1/log/{partition}/head")
        position = 1
        for leaf, entry in enumerate(entries):
            assert (entry.leaf, entry.position, partition_of(entry.stream)) == (leaf, position, partition)
            assert entry.first_version == versions.get(entry.stream, 0) + 1
            versions[entry.stream] = entry.first_version + entry.events - 1
            position += entry.events
        assert (head["size"], head["position"]) == (len(entries), position - 1)
        assert proofs.root(base64.b64decode(entry.leaf_hash) for entry in entries) == base64.b64decode(head["root"])
    assert versions == dict.fromkeys(STREAMS, COMMITS * (COMMITS + 1) // 2)


@pytest.mark.parametrize("stream", STREAMS)
def test_every_event_is_proven_up_to_the_head(written, stream):
    head = written.get(f"/v1/log/{partition_of(stream)}/head")
    root = base64.b64decode(head["root"])
    for version in range(1, COMMITS * (COMMITS + 1) // 2 + 1, 4):
        proof = written.audit.prove(stream, version)
        header = base64.b64decode(proof.header)
        told = json.loads(header)
        event = base64.b64decode(proof.event_bytes)
        path = [base64.b64decode(each) for each in proof.path]
        event_path = [base64.b64decode(each) for each in proof.event_path]
        events_root = bytes.fromhex(told["events_root"])

        assert (told["stream"], told["first"] + proof.event_index) == (stream, version)
        assert proofs.verify_inclusion(proofs.leaf_hash(event), proof.event_index, told["n"], event_path, events_root)
        assert proofs.verify_inclusion(proofs.leaf_hash(header), proof.leaf, head["size"], path, root)
        assert not proofs.verify_inclusion(proofs.leaf_hash(header + b" "), proof.leaf, head["size"], path, root)


def test_every_earlier_log_is_the_beginning_of_the_later(written):
    for partition in range(PARTITIONS):
        size = written.get(f"/v1/log/{partition}/head")["size"]
        for first in range(1, size + 1):
            proof = written.get(f"/v1/log/{partition}/consistency", **{"from": first, "to": size})
            path = [base64.b64decode(each) for each in proof["path"]]
            root_from, root_to = (base64.b64decode(proof[name]) for name in ("root_from", "root_to"))
            assert proofs.verify_consistency(first, size, path, root_from, root_to)
            if first < size:
                assert not proofs.verify_consistency(first, size, path, root_to, root_to)


def test_a_stranger_s_library_reads_every_event_that_goes_out(written):
    streams = [event.cloudevent for stream in STREAMS for event in written.audit.events(stream)]
    found = [each.event for each in written.audit.search(actor="tester", include="data") if each.event]
    exported = [
        json.loads(base64.b64decode(event))
        for partition in range(PARTITIONS)
        for line in written.get("/v1/export", partition=partition)["lines"]
        for event in line.get("events", [])
    ]

    assert len(streams) == len(found) == len(exported) == len(STREAMS) * COMMITS * (COMMITS + 1) // 2
    for event in (*streams, *found, *exported):
        parsed = from_json(json.dumps(event))
        assert (parsed["id"], parsed["source"], parsed["type"]) == (event["id"], event["source"], event["type"])
        assert parsed.data == event["data"]
