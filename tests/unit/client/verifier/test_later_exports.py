"""Exports that do not begin with the log."""

import pytest

from holdfast_client.verifier import State
from tests.exported_log import ExportedLog
from tests.unit.client.verifier.changes import frontier
from tests.unit.client.verifier.made_exports import FIRST, MORE, b64, broken, commits, proven


def later(log: ExportedLog) -> tuple[State, dict[int, int]]:
    state = proven(log).state
    log.fill(9, first=FIRST + MORE)
    log.anchor()
    return state, {partition: size for partition, (size, _) in state.heads.items()}


def test_an_export_that_begins_after_what_was_seen_proves_nothing(log):
    state, from_leaves = later(log)
    beyond = {partition: leaf + 1 for partition, leaf in from_leaves.items()}

    assert "too late" in broken(log, log.parts(log.anchors[-1:], beyond), state).reason


def test_wrong_hashes_for_what_lies_before_are_found(log):
    state, from_leaves = later(log)
    parts = log.parts(log.anchors[-1:], from_leaves)
    frontier = next(part for part in parts if part["type"] == "frontier")
    frontier["hashes"][0] = b64(bytes(32))

    assert broken(log, parts, state).partition == frontier["partition"]
    assert broken(log, parts).partition == frontier["partition"]


@pytest.mark.parametrize(("behind", "size"), [(0, 1), (1, 1), (0, 0)])
def test_hashes_of_what_lies_before_leaf_0_are_refused(log, behind, size):
    parts = log.parts()
    first = commits(parts)[0]
    parts.insert(parts.index(first) + behind, frontier(first["partition"], size))

    found = broken(log, parts)

    assert "do not fit" in found.reason
    assert found.partition == first["partition"]


@pytest.mark.parametrize("fault", ["missing", "twice", "short", "long", "late", "of another size"])
def test_hashes_that_do_not_fit_the_export_are_refused(log, fault):
    _, from_leaves = later(log)
    parts = log.parts(log.anchors[-1:], from_leaves)
    frontier = next(part for part in parts if part["type"] == "frontier" and len(part["hashes"]) > 1)
    match fault:
        case "missing":
            parts.remove(frontier)
        case "twice":
            parts.insert(parts.index(frontier), frontier)
        case "short":
            frontier["hashes"].pop()
        case "long":
            frontier["hashes"].append(frontier["hashes"][0])
        case "late":
            at = parts.index(frontier)
            parts[at], parts[at + 1] = parts[at + 1], parts[at]
        case _:
            frontier["size"] += 1

    assert broken(log, parts).partition == frontier["partition"]
