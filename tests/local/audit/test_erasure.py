"""A subject is erased on the running stack: its content is in no table and no object, and every proof holds."""

import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.dynamodb.attributes import from_item
from holdfast_cli.audit_verify import _pem
from holdfast_client.errors import Conflict
from tests.local.audit.conftest import OwnTenant, happened

SECRET = "a-street-that-nobody-else-lives-in"
KEPT = "a-price-that-stays"
STREAM = "people/ann"
SUBJECT = "customers/ann"
EVENTS = 30
CACHED_SECONDS_MAX = 65.0
"""How long an instance of the function may still hold a key that was destroyed."""


@pytest.fixture(scope="module")
def written(tenant: OwnTenant) -> OwnTenant:
    for number in range(EVENTS):
        sealed = {"shredkey": SUBJECT, "data": {"street": SECRET, f"n{number}": SECRET}}
        open_ = {"data": {"price": KEPT}}
        tenant.audit.append(STREAM, [happened(number, subject="ann", **(sealed if number % 2 else open_))], number)
    assert list(tenant.audit.search(subject="ann", wait_for=(STREAM, EVENTS)))
    return tenant


def stored(tenant: OwnTenant) -> Iterator[tuple[str, Any]]:
    """Yield every row and object of the service that names the tenant, as the owner of the account sees them."""
    dynamodb, s3 = tenant.stack.client("dynamodb"), tenant.stack.client("s3")
    for table in dynamodb.list_tables()["TableNames"]:
        if table.startswith("holdfast-audit-"):
            for page in dynamodb.get_paginator("scan").paginate(TableName=table):
                for item in page["Items"]:
                    if tenant.name in str(item["pk"]) or tenant.name in str(item["sk"]):
                        yield table, from_item(item)
    for bucket in s3.list_buckets()["Buckets"]:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
            for found in page.get("Contents", []):
                if tenant.name in found["Key"]:
                    body = s3.get_object(Bucket=bucket["Name"], Key=found["Key"])["Body"].read()
                    yield bucket["Name"], {"body": body}


def shows(row: dict[str, Any], text: str) -> bool:
    """Look for *text* in a row, also in what is packed there."""
    for value in row.values():
        raw = value if isinstance(value, bytes) else str(value).encode()
        if text.encode() in raw:
            return True
        try:
            if isinstance(value, bytes) and text.encode() in zlib.decompress(value):
                return True
        except zlib.error:
            continue
    return False


def test_a_hold_comes_before_an_erasure(written):
    held = written.audit.hold(SUBJECT, "a lawsuit")
    assert [hold.reason for hold in held.holds] == ["a lawsuit"]

    with pytest.raises(Conflict) as refused:
        written.audit.erase(SUBJECT, "they asked")
    assert refused.value.code == "held"

    assert SECRET in str(written.audit.state(STREAM).state)
    assert written.audit.release(SUBJECT, "a lawsuit").holds == []


def test_what_is_sealed_is_nowhere_in_the_clear_even_before_it_is_erased(written):
    rows = list(stored(written))

    assert {table for table, _ in rows} >= {f"holdfast-audit-{role}" for role in ("commits", "log", "views")}
    assert [table for table, row in rows if shows(row, SECRET)] == []
    # The look finds what is not sealed, so it would have found the rest.
    assert any(shows(row, KEPT) for table, row in rows if table.endswith("commits"))


def test_what_is_erased_is_gone_from_every_answer_and_every_proof_holds(written, tmp_path):
    key = tmp_path / "key.pem"
    key.write_bytes(b"".join(map(_pem, written.get("/v1/keys")["keys"])))
    memory = tmp_path / "state.json"
    assert written.run("audit", "verify", "--key", key, "--state", memory).returncode == 0

    erased = written.audit.erase(SUBJECT, "they asked")
    assert erased.state == "erased"
    assert erased.erased_at
    assert erased.final_at
    assert erased.final_at > erased.erased_at
    assert written.audit.erase(SUBJECT, "they asked").erased_at == erased.erased_at

    until = time.monotonic() + CACHED_SECONDS_MAX
    while SECRET in str(answers(written)):
        assert time.monotonic() < until
        time.sleep(1)
    state = written.audit.state(STREAM)
    assert (state.state, state.events_erased) == ({"price": KEPT}, EVENTS // 2)
    gone = [event for event in written.audit.events(STREAM) if event.cloudevent.get("erased")]
    assert len(gone) == EVENTS // 2
    refused = written.http.post(
        "/v1/streams/people~ann/events",
        json={"expected_version": "any", "events": [happened("new", shredkey=SUBJECT, data={"street": "another"})]},
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "subject_erased")

    (key_row,) = [row for _, row in stored(written) if row.get("pk", "").startswith("K#") and SUBJECT in row["pk"]]
    assert not any(isinstance(value, bytes) and value for value in key_row.values()), key_row
    assert [table for table, row in stored(written) if shows(row, SECRET)] == []
    assert written.run("audit", "verify", "--key", key, "--state", memory).returncode == 0
    assert written.run("audit", "prove", STREAM, "2", "--key", key).returncode == 0


def answers(tenant: OwnTenant) -> list[Any]:
    """Ask everything that could still show it."""
    return [
        tenant.get("/v1/streams/people~ann/events"),
        tenant.get("/v1/streams/people~ann/state"),
        tenant.get("/v1/streams/people~ann/state", version=EVENTS - 1),
        tenant.get("/v1/streams/people~ann/diff", from_version=0),
        tenant.get("/v1/events", subject="ann", include="data"),
        [tenant.get("/v1/export", partition=partition) for partition in range(4)],
    ]


def test_an_erasure_is_itself_an_event(written):
    told = list(written.audit.events(f"subjects/{SUBJECT}"))

    assert [event.type.split(".")[-2] for event in told] == ["held", "released", "erased"]
    assert [told[-1].data[name] for name in ("state", "reason", "holds", "version")] == ["erased", "they asked", [], 4]
    assert told[-1].data["final_at"] > told[-1].data["erased_at"]


def test_a_subject_that_nobody_knows_cannot_be_erased(written):
    answer = written.http.post("/v1/subjects/nobody/erasure", json={"reason": "r"})

    assert (answer.status_code, answer.json()["code"]) == (404, "subject_not_found")
