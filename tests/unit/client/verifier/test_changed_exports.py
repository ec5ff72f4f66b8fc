"""Every change to an export is found, and where it is."""

import pytest

from tests.unit.client.verifier.changes import (
    CHANGES,
    damaged,
    delete_commit,
    edit_event,
    edit_newest_commit,
    name_another_tenant,
    write_a_header_in_another_way,
)
from tests.unit.client.verifier.made_exports import anchors, broken, commits, opened


@pytest.mark.parametrize("changing", CHANGES, ids=lambda changing: changing.__name__)
def test_every_change_is_found(log, changing):
    parts = log.parts()
    changing(parts)

    broken(log, parts)


@pytest.mark.parametrize("changing", [edit_event, delete_commit, write_a_header_in_another_way, name_another_tenant])
def test_what_a_line_shows_is_found_at_its_place(log, changing):
    parts = log.parts()
    changed = commits(parts)[12]
    place = (changed["partition"], changed["leaf"])
    changing(parts)

    found = broken(log, parts)

    assert (found.partition, found.leaf) == place


def test_a_changed_event_is_named_by_its_stream_and_version(log):
    parts = log.parts()
    header = opened(commits(parts)[12]["header"])
    edit_event(parts)

    found = broken(log, parts)

    assert (found.stream, found.version) == (header["stream"], header["first"])
    assert "changed" in found.reason


@pytest.mark.parametrize(("stream", "version"), [("orders/3", 7), ("", 0)], ids=["a commit", "a row of the log"])
def test_what_its_keeper_cannot_show_is_told_with_its_place_and_reason(log, stream, version):
    parts = log.parts()
    gone = commits(parts)[12]
    parts[parts.index(gone)] = damaged(gone, stream, version)

    found = broken(log, parts)

    assert "it is gone" in found.reason
    place = (gone["partition"], gone["leaf"], stream or None, version or None)
    assert (found.partition, found.leaf, found.stream, found.version) == place


def test_what_only_a_root_shows_is_found_between_two_anchors(log):
    parts = log.parts()
    edit_newest_commit(parts)
    last = commits(parts)[-1]
    anchored = {head["partition"]: head["size"] for head in anchors(parts)[0]["heads"]}

    found = broken(log, parts)

    assert (found.partition, found.leaf) == (last["partition"], anchored[last["partition"]])
