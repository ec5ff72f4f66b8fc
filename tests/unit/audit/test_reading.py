"""Searches and lists through the door, over a real log and real read models."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cloudevents.v1.http import from_json

from functions.audit import adapters, domain
from holdfast.clock import to_text
from holdfast.log import PARTITIONS
from holdfast.projections import Generation
from holdfast.projections.reader import ViewReader
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab

FROM = "from=2020-01-01T00:00:00Z"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    return AuditLab(log_lab(), monkeypatch)


def code(answer: tuple[int, Any, dict[str, str]]) -> tuple[int, str]:
    return answer[0], answer[1]["code"]


# ----- searching


def test_an_event_is_found_by_each_of_its_facets(audit: AuditLab):
    audit.append("orders/1", event(1, "2024-05-06T07:08:09Z", type="placed", subject="cust-7", data={"secret": 1}))
    recorded_at = to_text(audit.lab.clock.now())
    audit.append("orders/2", event(2, "2024-06-06T07:08:09Z", type="paid", actor="bob"))
    audit.settle()

    expected = {
        "stream": "orders/1",
        "version": 1,
        "id": "1",
        "source": "urn:test",
        "type": "placed",
        "subject": "cust-7",
        "actor": "ann",
        "time": "2024-05-06T07:08:09.000000Z",
        "recorded_at": recorded_at,
    }
    for query in (
        "actor=ann",
        "type=placed",
        "subject=cust-7",
        f"{FROM}&stream=orders~1",
        f"{FROM}&stream=orders/1&to=2024-05-06T07:08:09Z",
        "actor=ann&type=placed&subject=cust-7&stream=orders/1",
    ):
        (item,) = audit.found(query)
        assert {name: item[name] for name in expected} == expected
        assert set(item) - set(expected) == {"partition", "position"}
    assert audit.found("actor=ann&type=paid") == []
    assert [item["id"] for item in audit.found(FROM)] == ["1", "2"]
    assert [item["id"] for item in audit.found(f"{FROM}&order=desc")] == ["2", "1"]


def test_what_is_found_is_one_tenant_s(audit: AuditLab):
    audit.append("orders/1", event(1))
    audit.settle()
    assert len(audit.found("actor=ann")) == 1

    audit.as_tenant("other")

    assert audit.found("actor=ann") == []


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_of_a_search_lose_nothing_and_show_nothing_twice(audit: AuditLab, order: str):
    for number in range(11):
        audit.append(f"orders/{number % 3}", event(number, f"2024-0{1 + number % 5}-01T00:00:0{number % 2}Z"))
    audit.settle()

    ids = [item["id"] for item in audit.found(f"actor=ann&limit=2&order={order}")]

    assert sorted(ids, key=int) == [str(number) for number in range(11)]
    times = [item["time"] for item in audit.found(f"actor=ann&limit=2&order={order}")]
    assert times == sorted(times, reverse=order == "desc")


def test_a_search_may_ask_what_was_known_at_a_time(audit: AuditLab):
    audit.append("orders/1", event(1, "2024-01-01T00:00:00Z"))
    known_at = audit.lab.clock.now()
    audit.lab.clock.advance(timedelta(hours=1))
    audit.append("orders/1", event(2, "2023-01-01T00:00:00Z"))
    audit.settle()

    assert [item["id"] for item in audit.found("actor=ann")] == ["2", "1"]
    assert [item["id"] for item in audit.found(f"actor=ann&known_at={to_text(known_at)}")] == ["1"]


def test_whole_events_come_along_if_asked_for(audit: AuditLab):
    audit.append("orders/1", event(1, data={"a": 1}), event(2, data={"a": 2}), event(3, type="other"))
    audit.append("orders/2", event(4, data_base64="aGk=", actor="bob"))
    audit.settle()

    items = audit.found("type=t&include=data")
    read = {
        each["id"]: each
        for stream in ("orders~1", "orders~2")
        for each in audit.door.events(stream=stream)[1]["events"]
    }

    assert [item["id"] for item in items] == ["1", "2", "4"]
    for item in items:
        assert item["event"] == read[item["id"]]
        assert from_json(json.dumps(item["event"]))["id"] == item["id"]
    assert all("event" not in item for item in audit.found("type=t"))


def test_a_page_of_whole_events_ends_where_an_answer_is_full(audit: AuditLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(domain, "PAGE_BYTES_MAX", 2_000)
    for number in range(5):
        audit.append("orders/1", event(number, data="x" * 900))
    audit.settle()

    pages = [page["items"] for page in audit.pages("/v1/events", "actor=ann&include=data")]

    assert [item["id"] for page in pages for item in page] == ["0", "1", "2", "3", "4"]
    assert len(pages) == 5


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("", "unbounded_search"),
        ("to=2024-01-01T00:00:00Z", "unbounded_search"),
        ("stream=orders/1", "unbounded_search"),
        ("from=2018-01-01T00:00:00Z&to=2024-01-01T00:00:00Z", "invalid_range"),
        ("actor=ann&from=2018-01-01T00:00:00Z&to=2024-01-01T00:00:00Z", "invalid_range"),
        ("actor=ann&from=2024-01-02T00:00:00Z&to=2024-01-01T00:00:00Z", "invalid_range"),
        ("from=yesterday", "invalid_time"),
        ("actor=ann&known_at=2024-01-01T00:00:00", "invalid_time"),
        ("actor=ann&stream=..", "invalid_stream"),
        ("actor=", "invalid_query"),
        ("actor=ann&limit=0", "invalid_query"),
        ("actor=ann&limit=1001", "invalid_query"),
        ("actor=ann&order=up", "invalid_query"),
        ("actor=ann&include=all", "invalid_query"),
        ("actor=ann&generation=0", "invalid_query"),
        ("actor=ann&cursor=AQ", "invalid_cursor"),
        ("actor=ann&cursor=x" + "y" * 2_048, "invalid_query"),
        ("nobody=ann", "invalid_query"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(audit: AuditLab, query: str, refusal: str):
    assert code(audit.get("/v1/events", query)) == (400, refusal)


def test_a_cursor_is_good_for_its_own_tenant_and_query_only(audit: AuditLab):
    for number in range(3):
        audit.append("orders/1", event(number))
    audit.settle()
    cursor = audit.get("/v1/events", "actor=ann&limit=1")[1]["cursor"]

    assert audit.get("/v1/events", f"actor=ann&limit=2&cursor={cursor}")[0] == 200
    altered = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    for query in (
        f"actor=ann&cursor={altered}",
        f"actor=bob&cursor={cursor}",
        f"actor=ann&order=desc&cursor={cursor}",
        f"actor=ann&generation=1&cursor={cursor}",
    ):
        assert code(audit.get("/v1/events", query)) == (400, "invalid_cursor")
    assert code(audit.get("/v1/streams", f"cursor={cursor}")) == (400, "invalid_cursor")
    audit.as_tenant("other")
    assert code(audit.get("/v1/events", f"actor=ann&cursor={cursor}")) == (400, "invalid_cursor")


# ----- lists


def test_streams_are_listed_by_name_across_partitions(audit: AuditLab):
    names = [f"orders/{number}" for number in range(9)] + ["orders-old/1", "orderz"]
    for name in names:
        audit.append(name, event(1, "2024-01-01T00:00:00Z"), event(2, "2023-01-01T00:00:00Z", actor="bob"))
    audit.settle()

    everything = [item for page in audit.pages("/v1/streams", "limit=4") for item in page["items"]]

    assert [item["stream"] for item in everything] == sorted(names)
    assert everything[0] == {
        "stream": "orders-old/1",
        "version": 2,
        "first_time": "2023-01-01T00:00:00.000000Z",
        "last_time": "2024-01-01T00:00:00.000000Z",
        "last_actor": "bob",
    }
    for prefix in ("orders/", "orders~"):
        listed = [item for page in audit.pages("/v1/streams", f"prefix={prefix}&limit=4") for item in page["items"]]
        assert [item["stream"] for item in listed] == sorted(names[:9])
    assert audit.get("/v1/streams", "prefix=orders/&limit=9")[1]["cursor"] is None
    cursor = audit.get("/v1/streams", "prefix=orders/&limit=1")[1]["cursor"]
    assert code(audit.get("/v1/streams", f"prefix=orders&cursor={cursor}")) == (400, "invalid_cursor")
    assert code(audit.get("/v1/streams", "prefix=%23")) == (400, "invalid_query")


def test_activity_is_counted_by_day_and_type_across_partitions(audit: AuditLab):
    for number in range(6):
        audit.append(f"orders/{number}", event(1, "2024-01-01T23:59:59Z"), event(2, "2024-01-02T00:00:00Z", type="u"))
    audit.append("orders/1", event(3, "2024-01-04T00:00:00Z"))
    audit.settle()

    def counted(query: str) -> list[tuple[str, str, int]]:
        pages = audit.pages("/v1/activity", query)
        return [(item["day"], item["type"], item["count"]) for page in pages for item in page["items"]]

    everything = [("2024-01-01", "t", 6), ("2024-01-02", "u", 6), ("2024-01-04", "t", 1)]
    assert counted("") == counted("limit=1&by=day") == everything
    assert counted("from=2024-01-02T12:00:00Z") == everything[1:]
    assert counted("to=2024-01-02T12:00:00Z") == counted("to=2024-01-02T12:00:00Z&limit=1") == everything[:2]
    assert counted("from=2024-01-03T00:00:00Z&to=2024-01-03T00:00:00Z") == []
    assert counted("to=9999-12-31T00:00:00Z") == everything
    refused = audit.get("/v1/activity", "from=2024-01-02T00:00:00Z&to=2024-01-01T00:00:00Z")
    assert code(refused) == (400, "invalid_range")


# ----- how far a view has come


def test_an_answer_says_how_far_its_view_has_come(audit: AuditLab):
    audit.append("orders/1", event(1), event(2))
    audit.settle()
    audit.lab.clock.advance(timedelta(seconds=90))
    audit.append("orders/1", event(3))
    audit.index()

    for template, query in (("/v1/events", "actor=ann"), ("/v1/streams", ""), ("/v1/activity", "")):
        _, _, headers = audit.get(template, query)
        positions = [int(position) for position in headers["Holdfast-View-Position"].split(", ")]
        assert len(positions) == PARTITIONS
        assert sum(positions) == 2
        assert float(headers["Holdfast-Lag-Seconds"]) >= 90
    audit.settle()
    _, _, headers = audit.get("/v1/streams")
    assert float(headers["Holdfast-Lag-Seconds"]) == 0


def test_a_reader_may_wait_for_its_own_write(audit: AuditLab):
    audit.append("orders/1", event(1))
    waiting = {"headers": {"holdfast-wait-for": "orders/1@1"}}

    status, problem, headers = audit.get("/v1/events", "actor=ann", **waiting)
    assert (status, problem["code"], headers["Retry-After"]) == (503, "view_behind", "1")

    audit.settle()
    for template, query in (("/v1/events", "actor=ann"), ("/v1/streams", ""), ("/v1/activity", "")):
        assert audit.get(template, query, **waiting)[0] == 200


@pytest.mark.parametrize(
    ("written", "refusal"),
    [
        ("orders/1", "invalid_wait_for"),
        ("orders/1@", "invalid_wait_for"),
        ("orders/1@x", "invalid_wait_for"),
        ("orders/1@-1", "invalid_wait_for"),
        ("@1", "invalid_wait_for"),
        ("orders/1@12345678901234567", "invalid_wait_for"),
        ("orders/../1@1", "invalid_stream"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(audit: AuditLab, written: str, refusal: str):
    assert code(audit.get("/v1/streams", headers={"holdfast-wait-for": written})) == (400, refusal)


def test_a_name_with_an_at_sign_can_be_waited_for(audit: AuditLab):
    audit.append("mail/ann@example.org", event(1))
    audit.settle()

    assert audit.get("/v1/streams", headers={"holdfast-wait-for": "mail/ann@example.org@1"})[0] == 200


def test_a_generation_that_is_not_there_is_not_found_and_none_is_waited_for(audit: AuditLab):
    assert code(audit.get("/v1/streams", "generation=2")) == (404, "generation_not_found")
    assert audit.get("/v1/streams", "generation=1")[0] == 200
    waiting = audit.get("/v1/streams", "generation=1", headers={"holdfast-wait-for": "orders/1@1"})
    assert code(waiting) == (400, "invalid_wait_for")


@pytest.mark.parametrize("at", range(1, 6))
def test_what_was_waited_for_is_in_the_answer_even_if_another_generation_takes_over_meanwhile(
    audit: AuditLab, monkeypatch: pytest.MonkeyPatch, at: int
):
    audit.append("orders/1", event(1))
    audit.settle()
    body = {"view": "streams", "reason": "to see", "auto_flip": False}
    rebuild = audit.door.call("POST", "/v1/rebuilds", body=body, headers={"idempotency-key": "k"})[1]
    audit.work()
    audit.append("orders/1", event(2))
    audit.index()
    calls: list[str] = []

    def swapped_while_a_projector_was_still_at_it() -> None:
        adapters.rebuilds().flip(audit.lab.tenant, rebuild["rebuild_id"])
        for partition in range(PARTITIONS):
            adapters.projector().advance(domain.STREAMS, Generation("streams", 1, audit.lab.tenant), partition)

    class Interrupted:
        def call(self, operation: str, request: Any) -> Any:
            calls.append(operation)
            if len(calls) == at:
                swapped_while_a_projector_was_still_at_it()
            return audit.lab.transport.call(operation, request)

    transport = Interrupted()
    monkeypatch.setattr(
        adapters, "views_of", lambda tenant: ViewReader(audit.lab.database(transport), audit.lab.tables, tenant)
    )
    status, answer, _ = audit.get("/v1/streams", headers={"holdfast-wait-for": "orders/1@2"})

    assert len(calls) >= at
    if status == 200:
        assert [item["version"] for item in answer["items"]] == [2]
    else:
        assert (status, answer["code"]) == (503, "view_behind")


def test_read_models_need_their_scope(audit: AuditLab):
    audit.door.principal = type(audit.door.principal)(
        tenant="acme", subject="ann", scopes=frozenset({"audit:read"}), jti="j", expires=2**40
    )

    for template in ("/v1/events", "/v1/streams", "/v1/activity"):
        assert code(audit.get(template, "actor=ann" if template == "/v1/events" else "")) == (403, "scope_missing")


def test_whole_events_are_shown_to_who_may_read_them(audit: AuditLab):
    audit.append("orders/1", event(1, data="s3cret"))
    audit.settle()
    audit.door.principal = msgspec.structs.replace(audit.door.principal, scopes=frozenset({"audit:search"}))

    status, problem, _ = audit.get("/v1/events", "actor=ann&include=data")

    assert (status, problem["code"], problem["scope"]) == (403, "scope_missing", "audit:read")
    assert "s3cret" not in str(problem)
    assert [item["id"] for item in audit.found("actor=ann")] == ["1"]


def test_a_page_of_a_search_takes_few_requests(audit: AuditLab, monkeypatch: pytest.MonkeyPatch):
    for number in range(5):
        audit.append("orders/1", event(number, "2024-01-01T00:00:00Z"))
    audit.settle()
    calls: list[str] = []
    whole = adapters.database().transport.call

    class Counting:
        def call(self, operation: str, request: Any) -> Any:
            calls.append(operation)
            return whole(operation, request)

    monkeypatch.setattr(adapters, "database", lambda: audit.lab.database(Counting()))

    assert len(audit.get("/v1/events", "actor=ann&limit=4")[1]["items"]) == 4
    assert len(calls) <= 4
