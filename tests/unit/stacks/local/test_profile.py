"""Profiles, files and addresses: the small values of the local stack."""

from pathlib import Path
from typing import Any

import pytest

from stacks.local import files
from stacks.local.gateway import route
from stacks.local.profile import LocalProfile, ObjectLock, Schedule, StreamSource, TtlAttribute, resolved
from stacks.local.running import Status


def test_logical_ids_become_the_names_that_the_stack_gave_and_literal_names_stay():
    profile = LocalProfile(
        streams=(
            StreamSource(table="Commits", function_name="Indexer", on_failure_arn="Parked"),
            StreamSource(table="holdfast-audit-log", function_name="Indexer"),
        ),
        ttl=(TtlAttribute(table="Operations", attribute="expires"),),
        pitr=("Commits",),
        deletion_protection=("Commits",),
        schedules=(Schedule(rule="Often", function_name="Indexer", every_seconds=60),),
        object_locks=(ObjectLock(bucket="Anchors", mode="COMPLIANCE", days=1),),
    )
    names = {
        "Commits": "commits-1",
        "Indexer": "indexer-1",
        "Parked": "arn:aws:sns:::parked",
        "Operations": "ops-1",
    } | {"Anchors": "anchors-1"}

    assert resolved(profile, names) == LocalProfile(
        streams=(
            StreamSource(table="commits-1", function_name="indexer-1", on_failure_arn="arn:aws:sns:::parked"),
            StreamSource(table="holdfast-audit-log", function_name="indexer-1"),
        ),
        ttl=(TtlAttribute(table="ops-1", attribute="expires"),),
        pitr=("commits-1",),
        deletion_protection=("commits-1",),
        schedules=(Schedule(rule="Often", function_name="indexer-1", every_seconds=60),),
        object_locks=(ObjectLock(bucket="anchors-1", mode="COMPLIANCE", days=1),),
    )


def test_profiles_add_up():
    one: dict[str, Any] = {
        "streams": (StreamSource(table="a", function_name="f"),),
        "ttl": (TtlAttribute(table="a", attribute="expires"),),
        "pitr": ("a",),
        "deletion_protection": ("a",),
        "schedules": (Schedule(rule="r", function_name="f", every_seconds=60),),
        "object_locks": (ObjectLock(bucket="b", mode="COMPLIANCE", days=1),),
    }
    assert one.keys() == set(LocalProfile.__struct_fields__)

    both = LocalProfile(**one) + LocalProfile(**one)

    assert both == LocalProfile(**{name: values * 2 for name, values in one.items()})


@pytest.mark.parametrize(
    "url",
    [
        "https://abc123.execute-api.us-east-1.amazonaws.com/api/",
        "https://abc123.execute-api.us-east-1.amazonaws.com/api",
        "http://abc123.execute-api.localhost:4566/api/",
    ],
)
def test_an_api_is_asked_where_the_engine_answers_without_dns(url: str):
    assert route(url, "http://127.0.0.1:4601") == "http://127.0.0.1:4601/restapis/abc123/api/_user_request_"


def test_what_is_no_api_address_is_refused():
    with pytest.raises(ValueError, match="Not the address"):
        route("https://example.com/api/", "http://127.0.0.1:4601")


def test_a_file_is_whole_private_and_leaves_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "deep" / "file.json"
    for ready in (True, False):
        files.write(path, {"ready": ready})

    assert files.read(path, dict[str, bool]) == {"ready": False}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "{", '{"ready": 1}'])
def test_a_file_that_is_not_ours_reads_as_none(tmp_path: Path, content: str):
    path = tmp_path / "run.json"
    path.write_text(content)

    assert files.read(path, Status) is None


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "file.json"
    files.write(path, {"a": 1})

    with pytest.raises(TypeError):
        files.write(path, {"a": object()})

    assert files.read(path, dict[str, int]) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
