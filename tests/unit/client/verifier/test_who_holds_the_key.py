"""What is found although it was signed: whoever holds the key cannot change what somebody has seen."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from holdfast.anchors import Anchor, MemorySigner
from holdfast_client.verifier import Broken, Proven, verify
from tests.exported_log import ExportedLog, pem
from tests.unit.client.verifier.changes import keep_a_partition_back
from tests.unit.client.verifier.made_exports import FIRST, MORE, broken, forked, made, proven, seen


def test_a_signature_by_another_key_proves_nothing(log):
    log.anchor(signer=MemorySigner())

    assert "pinned" in broken(log).reason


def test_the_key_that_an_export_names_is_not_asked(log):
    stranger = MemorySigner()
    log.anchors = [resigned(anchor, stranger) for anchor in log.anchors]

    assert isinstance(verify(log.lines(), pem(stranger)), Proven)
    assert "pinned" in broken(log).reason


def resigned(anchor: Anchor, signer: MemorySigner) -> Anchor:
    """Sign the same statement with another key, and offer that key."""
    return msgspec.structs.replace(anchor, signature=signer.sign(anchor.statement), key_id=pem(signer).decode())


def test_a_history_that_was_rewritten_and_signed_again_fits_together(signer):
    proven(forked(signer, at=3))


def test_a_history_rewritten_before_what_was_seen_is_found_by_its_root(log, signer):
    rewritten = forked(signer, at=3)
    rewritten.fill(3, first=FIRST + MORE)
    rewritten.anchor(previous=log.anchors[-1].digest)

    found = broken(rewritten, rewritten.parts(rewritten.anchors[-1:]), seen(log, 2))

    assert "seen before" in found.reason
    assert found.partition is not None


def test_a_history_rewritten_after_what_was_signed_is_found_by_the_other_root(log, signer):
    rewritten = forked(signer, at=FIRST + 3)
    rewritten.anchors = log.anchors

    found = broken(rewritten, state=seen(log))

    assert "Anchor 2 has another root" in found.reason


def test_another_statement_under_a_number_that_was_seen_is_a_fork(log, signer):
    state = proven(log).state
    other = made(signer)
    other.anchors.pop()
    other.clock.advance(timedelta(seconds=3))
    other.anchor()

    assert "forked" in broken(other, state=state).reason


def test_a_statement_that_follows_another_one_is_a_fork(log):
    log.fill(2, first=FIRST + MORE)
    log.anchor(previous=sha256(b"another").hexdigest())

    assert "forked" in broken(log).reason
    assert "forked" in broken(log, log.parts(log.anchors[-1:]), proven(log, log.parts(log.anchors[:2])).state).reason


def test_a_log_that_was_cut_off_and_signed_anew_is_found(log, signer):
    state = proven(log).state
    shorter = ExportedLog(signer).fill(FIRST)
    shorter.anchors = list(log.anchors)
    shorter.clock = log.clock
    shorter.anchor()

    assert "seen before" in broken(shorter, shorter.parts(shorter.anchors[-1:]), state).reason


def test_an_older_anchor_than_was_seen_is_refused(log):
    state = proven(log).state
    parts = log.parts(log.anchors[:1])

    assert "seen before" in broken(log, parts, state).reason


@pytest.mark.parametrize("more", [0, 2], ids=["in the same anchor", "in a newer one"])
@pytest.mark.parametrize("is_first", [True, False], ids=["at first sight", "seen before"])
def test_a_whole_partition_cannot_be_kept_back(log, more, is_first):
    state = None if is_first else proven(log).state
    if more:
        log.fill(more, first=FIRST + MORE)
        log.anchor()
    parts = log.parts(log.anchors[-1:])
    keep_a_partition_back(parts)

    assert "kept back" in broken(log, parts, state).reason


def test_what_was_seen_of_one_log_says_nothing_of_another(log):
    state = replace(proven(log).state, log_id="another")

    assert "another log" in broken(log, state=state).reason


def test_an_anchor_that_is_not_later_than_the_one_before_is_refused(log):
    log.fill(1, first=FIRST + MORE)
    log.anchor(time=log.anchors[-1].said.time)

    assert "order" in broken(log).reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seq": 1}, "comes out of order"),
        ({"previous": ""}, "the history was forked"),
        ({"service": "payments"}, "is another one: 3 of 'payments'"),
        ({"leaves": 1}, "does not sign this head"),
        ({"v": 2}, "it is not written as leaves"),
    ],
)
def test_a_statement_that_was_signed_wrongly_is_refused(log, changes, reason):
    log.fill(1, first=FIRST + MORE)
    log.anchor(**changes)

    assert reason in broken(log).reason


def signed_anew(log: ExportedLog, partition: int, leaf: int, **members: Any) -> Broken:
    """Write a header with other members, sign the log with it, and look."""
    line = log.commits[partition][leaf]
    header = msgspec.json.encode(msgspec.json.decode(line.header) | members, order="sorted")
    log.commits[partition][leaf] = msgspec.structs.replace(line, header=header)
    log.anchors.clear()
    log.anchor()
    return broken(log)


def test_a_stream_whose_time_stands_still_is_found_although_it_is_signed(log):
    lines = log.commits[2]
    before = msgspec.json.decode(lines[-2].header)["rt"]

    found = signed_anew(log, 2, len(lines) - 1, rt=before)

    assert "later" in found.reason


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"first": 100}, "comes 100"),
        ({"prev": "00" * 32}, "follow"),
        ({"n": 9}, "missing"),
        ({"events_root": "00" * 32}, "changed"),
        ({"tenant": "other"}, "tenant"),
        ({"v": 2}, "header"),
        ({"first": 0}, "comes 0"),
        ({"more": 1}, "header"),
    ],
)
def test_a_commit_that_does_not_follow_is_found_although_it_is_signed(log, members, word):
    last = len(log.commits[2]) - 1

    found = signed_anew(log, 2, last, **members)

    assert word in found.reason
    assert (found.partition, found.leaf) == (2, last)


def test_a_stream_that_begins_in_the_middle_is_found_although_it_is_signed(signer):
    log = ExportedLog(signer).fill(10)
    log.commits[2] = [
        msgspec.structs.replace(line, leaf=leaf, position=line.position - len(log.commits[2][0].events))
        for leaf, line in enumerate(log.commits[2][1:])
    ]
    log.commits[2][0] = msgspec.structs.replace(log.commits[2][0], position=1)
    log.anchor()

    assert "are missing" in broken(log).reason


def test_a_stream_in_a_partition_that_is_not_its_own_is_found_although_it_is_signed(signer):
    log = ExportedLog(signer).fill(10)
    log.commits[0], log.commits[2] = (
        [msgspec.structs.replace(line, partition=to) for line in log.commits[of]] for to, of in ((0, 2), (2, 0))
    )
    log.anchor()

    assert "another partition" in broken(log).reason
