"""What an offline check believes."""

from dataclasses import replace

import pytest

from holdfast_client.verifier import State
from tests.exported_log import STREAMS, ExportedLog
from tests.unit.client.verifier.made_exports import FIRST, MORE, proven


def test_a_whole_log_is_proven(log):
    result = proven(log)

    assert (result.commits, result.not_yet_anchored) == (FIRST + MORE, 0)
    assert result.events == sum(1 + number % 3 for number in range(FIRST + MORE))
    assert result.from_leaves == {0: 0, 1: 0, 2: 0, 3: 0}
    assert result.state.seq == 2
    assert {partition: size for partition, (size, _) in result.state.heads.items()} == {
        partition: len(lines) for partition, lines in log.commits.items()
    }


def test_a_partition_in_which_nothing_lies_is_proven_to_be_empty(signer):
    log = ExportedLog(signer).fill(5, streams=STREAMS[:1])
    log.anchor()

    result = proven(log)

    assert sorted(size for size, _ in result.state.heads.values()) == [0, 0, 0, 5]


def test_one_newest_anchor_is_enough(log):
    assert proven(log, log.parts(log.anchors[-1:])).state == proven(log).state


def test_commits_beyond_the_anchor_are_counted_apart_and_not_proven(log):
    before = proven(log)
    log.fill(7, first=FIRST + MORE)

    after = proven(log)

    assert (after.commits, after.events, after.state) == (before.commits, before.events, before.state)
    assert after.not_yet_anchored == 7


def test_who_comes_again_brings_what_was_seen(log):
    state = proven(log).state
    log.fill(5, first=FIRST + MORE)
    log.anchor()

    assert proven(log, state=state).state.seq == 3
    assert proven(log, log.parts(log.anchors[-1:]), state).state.seq == 3


def test_nothing_new_since_the_last_visit_is_proven_again(log):
    state = proven(log).state

    assert proven(log, state=state).state == state


def test_the_state_survives_being_written_down(log):
    state = proven(log).state

    assert State.from_bytes(state.to_bytes()) == state


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b'"heads"', b'{"heads":{}}', b"\xff"])
def test_what_is_no_state_is_refused(body):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        State.from_bytes(body)


def test_a_state_that_knows_nothing_of_a_partition_is_refused(log):
    state = proven(log).state
    heads = {partition: head for partition, head in state.heads.items() if partition}

    with pytest.raises(ValueError, match="remembers"):
        State.from_bytes(replace(state, heads=heads).to_bytes())


def test_an_export_may_begin_where_the_last_one_ended(log):
    state = proven(log).state
    log.fill(9, first=FIRST + MORE)
    log.anchor()
    from_leaves = {partition: size for partition, (size, _) in state.heads.items()}

    result = proven(log, log.parts(log.anchors[-1:], from_leaves), state)

    assert (result.commits, result.from_leaves) == (9, from_leaves)
    assert result.state == proven(log).state
