"""What those who check for themselves ask at the door: anchors, keys, and exports that are whole or refused."""

from base64 import b64decode
from datetime import timedelta
from typing import Any

import pytest

from functions.audit import adapters
from holdfast.anchors import MemorySigner
from holdfast.anchors.signing import is_signed, key_id_of
from holdfast.log import PARTITIONS, partition_of
from tests.audit_lab import AuditLab, event
from tests.log_lab import log_lab

EXPORT = "/v1/export"
PARTITION = partition_of("s/1")


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> AuditLab:
    return AuditLab(log_lab(), monkeypatch)


def anchored(audit: AuditLab, number: int) -> None:
    audit.append("s/1", event(number))
    audit.index()
    audit.lab.clock.advance(timedelta(minutes=1))
    assert adapters.anchors().sign()


def anchor(audit: AuditLab, seq: object) -> tuple[int, Any]:
    return audit.get("/v1/anchors/{seq}", parameters={"seq": str(seq)})[:2]


def export(audit: AuditLab, query: str) -> tuple[int, Any]:
    return audit.get(EXPORT, query)[:2]


def refusal(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["code"]


def key_ids(audit: AuditLab) -> list[str]:
    status, answer, _ = audit.get("/v1/keys")
    assert status == 200
    return [jwk["kid"] for jwk in answer["keys"]]


def test_before_anything_is_signed_there_is_no_anchor(audit: AuditLab):
    assert refusal(audit.get("/v1/anchors/latest")[:2]) == (404, "anchor_not_found")
    assert refusal(anchor(audit, 1)) == (404, "anchor_not_found")


def test_the_newest_anchor_and_each_by_its_number_are_signed_and_show_the_tenants_heads(audit: AuditLab):
    for number in (1, 2):
        anchored(audit, number)

    status, latest, _ = audit.get("/v1/anchors/latest")
    first = anchor(audit, 1)[1]

    assert (status, latest["seq"], first["seq"]) == (200, 2, 1)
    assert anchor(audit, 2) == (200, latest)
    for shown, size in ((first, 1), (latest, 2)):
        sizes = {head["partition"]: head["size"] for head in shown["heads"]}
        assert sizes == {**dict.fromkeys(range(PARTITIONS), 0), PARTITION: size}
    assert latest["key_id"] == key_id_of(audit.signer)
    assert is_signed(audit.signer.public_key, b64decode(latest["signature"]), b64decode(latest["statement"]))


@pytest.mark.parametrize("seq", ["0", "2", "-1", "x", "1.0", "²", "9" * 16, "9" * 400, "9" * 5_000, ""])
def test_an_anchor_that_is_none_is_not_found(audit: AuditLab, seq: str):
    anchored(audit, 1)

    assert refusal(anchor(audit, seq)) == (404, "anchor_not_found")


def test_another_tenant_sees_an_anchor_without_heads(audit: AuditLab):
    anchored(audit, 1)
    audit.as_tenant("other")

    assert audit.get("/v1/anchors/latest")[1]["heads"] == []


def test_the_key_that_signs_is_named_and_so_are_those_that_have_signed(audit: AuditLab):
    assert key_ids(audit) == [key_id_of(audit.signer)]
    anchored(audit, 1)
    old, audit.signer = audit.signer, MemorySigner()
    anchored(audit, 2)

    assert key_ids(audit) == [key_id_of(audit.signer), key_id_of(old)]
    assert {anchor(audit, seq)[1]["key_id"] for seq in (1, 2)} == set(key_ids(audit))


@pytest.mark.parametrize("partition", ["4", "-1", "x", "00", "", "²", "1.0", "9" * 5_000])
def test_a_partition_that_is_none_is_not_exported(audit: AuditLab, partition: str):
    assert refusal(export(audit, f"partition={partition}")) == (404, "partition_not_found")


def test_exports_that_cannot_be_made_are_refused(audit: AuditLab):
    audit.append("s/1", event(1))
    audit.index()

    for query, expected in {
        "": (400, "invalid_query"),
        f"partition={PARTITION}&from_leaf=2": (400, "invalid_range"),
        f"partition={PARTITION}&from_leaf=-1": (400, "invalid_query"),
        f"partition={PARTITION}&from_leaf=x": (400, "invalid_query"),
        f"partition={PARTITION}&cursor=": (400, "invalid_cursor"),
        f"partition={PARTITION}&cursor={'A' * 60}": (400, "invalid_cursor"),
    }.items():
        assert refusal(export(audit, query)) == expected, query
    assert export(audit, f"partition={PARTITION}&from_leaf=1")[1]["cursor"] is None


def test_a_cursor_opens_the_export_that_it_was_made_for_and_no_other(audit: AuditLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("holdfast.exporting.PAGE_COMMITS_MAX", 2)
    for number in range(3):
        audit.append("s/1", event(number))
    audit.index()
    begun = export(audit, f"partition={PARTITION}")[1]
    cursor = begun["cursor"]

    rest = export(audit, f"partition={PARTITION}&cursor={cursor}")[1]
    assert [line["leaf"] for line in begun["lines"] + rest["lines"]] == [0, 1, 2]
    altered = cursor[:-4] + ("AAAA" if cursor[-4:] != "AAAA" else "BBBB")
    for query in (
        f"partition={PARTITION}&cursor={altered}",
        f"partition={PARTITION}&cursor={cursor[:-1]}",
        f"partition={(PARTITION + 1) % 4}&cursor={cursor}",
        f"partition={PARTITION}&from_leaf=1&cursor={cursor}",
    ):
        assert refusal(export(audit, query)) == (400, "invalid_cursor"), query
    audit.as_tenant("other")
    assert refusal(export(audit, f"partition={PARTITION}&cursor={cursor}")) == (400, "invalid_cursor")
