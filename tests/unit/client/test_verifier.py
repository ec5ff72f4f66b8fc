"""What an offline check believes, and every change to a history that it must find."""

import base64
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from holdfast.anchors import Anchor, MemorySigner
from holdfast.clock import ManualClock
from holdfast.streams.packing import root_of
from holdfast_client.export import closed
from holdfast_client.verifier import Broken, Proven, State, verify
from tests.exported_log import STREAMS, ExportedLog, closed_parts, event, pem
from tests.soak import IS_SOAK

FIRST = 20
MORE = 15

Parts = list[dict[str, Any]]


@pytest.fixture(scope="module")
def signer() -> MemorySigner:
    return MemorySigner()


def made(signer: MemorySigner) -> ExportedLog:
    log = ExportedLog(signer).fill(FIRST)
    log.anchor()
    log.fill(MORE, first=FIRST)
    log.anchor()
    return log


@pytest.fixture
def log(signer: MemorySigner) -> ExportedLog:
    return made(signer)


def checked(log: ExportedLog, parts: Parts | None = None, state: State | None = None) -> Proven | Broken:
    """Verify a log, or what somebody has made of its export; whoever changes an export mends its digest."""
    return verify(log.lines() if parts is None else closed_parts(parts), pem(log.signer), state)


def proven(log: ExportedLog, parts: Parts | None = None, state: State | None = None) -> Proven:
    result = checked(log, parts, state)
    assert isinstance(result, Proven), result
    return result


def broken(log: ExportedLog, parts: Parts | None = None, state: State | None = None) -> Broken:
    result = checked(log, parts, state)
    assert isinstance(result, Broken), result
    return result


def seen(log: ExportedLog, anchors: int = 1) -> State:
    """What somebody remembers who has looked when there were so many anchors."""
    return proven(log, log.parts(log.anchors[:anchors])).state


def commits(parts: Parts) -> Parts:
    return [part for part in parts if part["type"] == "commit"]


def anchors(parts: Parts) -> Parts:
    return [part for part in parts if part["type"] == "anchor"]


def opened(encoded: str) -> Any:
    return msgspec.json.decode(base64.b64decode(encoded))


def b64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def change(part: dict[str, Any], name: str, **members: Any) -> None:
    """Change members of JSON that lies inside a line as bytes, and write it as it is always written."""
    part[name] = b64(msgspec.json.encode(opened(part[name]) | members, order="sorted"))


# --- What is proven


def test_a_whole_log_is_proven(log):
    result = proven(log)

    assert (result.commits, result.not_yet_anchored) == (FIRST + MORE, 0)
    assert result.events == sum(1 + number % 3 for number in range(FIRST + MORE))
    assert result.from_leaves == {0: 0, 1: 0, 2: 0, 3: 0}
    assert result.state.seq == 2
    assert {partition: size for partition, (size, _) in result.state.heads.items()} == {
        partition: len(lines) for partition, lines in log.commits.items()
    }


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


def test_an_export_may_begin_where_the_last_one_ended(log):
    state = proven(log).state
    log.fill(9, first=FIRST + MORE)
    log.anchor()
    from_leaves = {partition: size for partition, (size, _) in state.heads.items()}

    result = proven(log, log.parts(log.anchors[-1:], from_leaves), state)

    assert (result.commits, result.from_leaves) == (9, from_leaves)
    assert result.state == proven(log).state


def test_any_of_several_pinned_keys_may_have_signed(log):
    both = pem(MemorySigner()) + pem(log.signer)

    assert isinstance(verify(log.lines(), both), Proven)


@pytest.mark.parametrize(
    "key",
    [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", b"no key"],
    ids=["nothing", "no key in it", "no PEM"],
)
def test_a_pin_that_is_no_key_is_refused(log, key):
    with pytest.raises(ValueError, match=r"key"):
        verify(log.lines(), key)


# --- Changes whose maker mends the digest, and nothing that would take the key


def edit_event(parts: Parts) -> None:
    commits(parts)[12]["events"][0] = b64(event(999))


def edit_header(parts: Parts) -> None:
    change(commits(parts)[12], "header", actor="mallory")


def edit_event_and_header(parts: Parts) -> None:
    commit = commits(parts)[12]
    commit["events"] = [b64(event(999))]
    change(commit, "header", n=1, events_root=root_of([event(999)]).hex())


def edit_newest_commit(parts: Parts) -> None:
    """Nothing in its stream comes after it, so only the root can tell."""
    change(commits(parts)[-1], "header", actor="mallory")


def delete_commit(parts: Parts) -> None:
    parts.remove(commits(parts)[12])


def delete_commit_and_renumber(parts: Parts) -> None:
    gone = commits(parts)[12]
    for part in commits(parts):
        if part["partition"] == gone["partition"] and part["leaf"] > gone["leaf"]:
            part["leaf"] -= 1
            part["position"] -= len(gone["events"])
    parts[0]["partitions"][gone["partition"]]["size"] -= 1
    parts.remove(gone)


def swap_commits(parts: Parts) -> None:
    first, second = parts.index(commits(parts)[0]), parts.index(commits(parts)[1])
    parts[first], parts[second] = parts[second], parts[first]


def swap_commits_and_renumber(parts: Parts) -> None:
    swap_commits(parts)
    first, second = commits(parts)[:2]
    for name in ("leaf", "position"):
        first[name], second[name] = second[name], first[name]


def swap_events_of_two_commits(parts: Parts) -> None:
    first, second = commits(parts)[3:5]
    first["events"], second["events"] = second["events"], first["events"]


def swap_events_in_a_commit(parts: Parts) -> None:
    next(part for part in commits(parts) if len(part["events"]) > 1)["events"].reverse()


def leave_out_an_event(parts: Parts) -> None:
    next(part for part in commits(parts) if len(part["events"]) > 1)["events"].pop()


def repeat_a_commit(parts: Parts) -> None:
    parts.insert(parts.index(commits(parts)[5]), commits(parts)[5])


def cut_the_tail(parts: Parts) -> None:
    last = commits(parts)[-1]
    parts.remove(last)
    parts[0]["partitions"][last["partition"]]["size"] -= 1


def cut_a_partition(parts: Parts) -> None:
    parts[0]["partitions"].pop()
    for part in commits(parts):
        if part["partition"] == 3:
            parts.remove(part)


def empty_a_partition(parts: Parts) -> None:
    for part in commits(parts):
        if part["partition"] == 3:
            parts.remove(part)
    parts[0]["partitions"][3]["size"] = 0


def begin_later(parts: Parts) -> None:
    """Claim that the first commit lies before the export."""
    parts[0]["partitions"][commits(parts)[0]["partition"]]["from_leaf"] = 1
    parts.remove(commits(parts)[0])


def write_a_header_in_another_way(parts: Parts) -> None:
    header = base64.b64decode(commits(parts)[12]["header"])
    commits(parts)[12]["header"] = b64(header.replace(b'":', b'": ', 1))


def name_another_tenant(parts: Parts) -> None:
    change(commits(parts)[12], "header", tenant="other")


def move_a_stream(parts: Parts) -> None:
    """Write a stream anew in a partition that is not its own."""
    first = next(part for part in commits(parts) if part["partition"] == 2)
    change(first, "header", stream="orders/8x")


def shift_a_position(parts: Parts) -> None:
    commits(parts)[1]["position"] += 1


def claim_more_in_the_manifest(parts: Parts) -> None:
    parts[0]["partitions"][0]["size"] += 1


def claim_another_log(parts: Parts) -> None:
    parts[0]["log_id"] = "00000000-0000-0000-0000-000000000000"


def claim_another_tenant(parts: Parts) -> None:
    parts[0]["tenant"] = "t1"
    for part in commits(parts):
        change(part, "header", tenant="t1")


def claim_another_service(parts: Parts) -> None:
    parts[0]["service"] = "payments"


def name_a_partition_twice(parts: Parts) -> None:
    parts[0]["partitions"][1] = parts[0]["partitions"][0]


def say_that_a_commit_is_gone(parts: Parts) -> None:
    gone = commits(parts)[12]
    parts[parts.index(gone)] = damaged(gone)


def damaged(gone: dict[str, Any], stream: str = "orders/3", version: int = 7) -> dict[str, Any]:
    place = {"partition": gone["partition"], "leaf": gone["leaf"], "stream": stream, "version": version}
    return {"type": "damaged", **place, "reason": "it is gone"}


def swap_anchors(parts: Parts) -> None:
    parts[-2], parts[-1] = parts[-1], parts[-2]


def take_the_heads_of_another_anchor(parts: Parts) -> None:
    parts[-1]["heads"] = parts[-2]["heads"]


def take_the_signature_of_another_anchor(parts: Parts) -> None:
    parts[-1]["signature"] = parts[-2]["signature"]


def number_an_anchor_otherwise(parts: Parts) -> None:
    parts[-1]["seq"] += 1


def leave_out_the_anchors(parts: Parts) -> None:
    del parts[-2:]


def leave_out_a_head(parts: Parts) -> None:
    parts[-1]["heads"].pop()


def double_a_head(parts: Parts) -> None:
    parts[-1]["heads"][0] = parts[-1]["heads"][1]


def say_another_root(parts: Parts) -> None:
    parts[-1]["heads"][0]["root"] = b64(bytes(32))


def say_another_size(parts: Parts) -> None:
    parts[-1]["heads"][0]["size"] -= 1


def change_a_head_leaf(parts: Parts) -> None:
    head = parts[-1]["heads"][0]
    head["size"] -= 1
    change(head, "leaf", size=head["size"])


def misplace_a_head(parts: Parts) -> None:
    parts[-1]["heads"][0]["index"] += 1


def place_a_head_outside(parts: Parts) -> None:
    parts[-1]["heads"][0]["index"] += 1 << 40


def cut_a_path(parts: Parts) -> None:
    parts[-1]["heads"][0]["path"].pop()


def stretch_a_path(parts: Parts) -> None:
    parts[-1]["heads"][0]["path"].append(b64(bytes(32)))


def append_after_the_anchors(parts: Parts) -> None:
    parts.append(parts.pop(parts.index(commits(parts)[-1])))


def begin_twice(parts: Parts) -> None:
    parts.insert(1, parts[0])


def begin_without_a_manifest(parts: Parts) -> None:
    del parts[0]


def explain_what_lies_before_leaf_0(parts: Parts) -> None:
    parts.insert(1, {"type": "frontier", "partition": 0, "size": 1, "hashes": [b64(bytes(32))]})


CHANGES: tuple[Callable[[Parts], None], ...] = (
    edit_event, edit_header, edit_event_and_header, edit_newest_commit,
    delete_commit, delete_commit_and_renumber, swap_commits, swap_commits_and_renumber,
    swap_events_of_two_commits, swap_events_in_a_commit, leave_out_an_event, repeat_a_commit,
    cut_the_tail, cut_a_partition, empty_a_partition, begin_later,
    write_a_header_in_another_way, name_another_tenant, move_a_stream, shift_a_position,
    claim_more_in_the_manifest, claim_another_log, claim_another_tenant, claim_another_service, name_a_partition_twice,
    say_that_a_commit_is_gone,
    swap_anchors, take_the_heads_of_another_anchor, take_the_signature_of_another_anchor, number_an_anchor_otherwise,
    leave_out_the_anchors, leave_out_a_head, double_a_head, say_another_root, say_another_size, change_a_head_leaf,
    misplace_a_head, place_a_head_outside, cut_a_path, stretch_a_path,
    append_after_the_anchors, begin_twice, begin_without_a_manifest, explain_what_lies_before_leaf_0,
)  # fmt: skip


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


# --- Whoever holds the key


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


def forked(signer: MemorySigner, *, at: int) -> ExportedLog:
    """Make the same log with one other event, and sign it with the same key: all of it fits together."""
    log = ExportedLog(signer)
    for number in range(FIRST + MORE):
        if number == FIRST:
            log.anchor()
        if number == at:
            log.append(STREAMS[at % len(STREAMS)], *[event(9_000 + each) for each in range(1 + at % 3)])
        else:
            log.fill(1, first=number)
    log.anchor()
    return log


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
def test_the_head_of_a_partition_that_was_seen_cannot_be_kept_back(log, more):
    state = proven(log).state
    if more:
        log.fill(more, first=FIRST + MORE)
        log.anchor()
    parts = log.parts(log.anchors[-1:])
    gone = parts[-1]["heads"].pop()["partition"]
    parts[0]["partitions"][gone]["size"] = 0
    parts = [part for part in parts if part.get("partition") != gone]

    assert broken(log, parts, state).partition == (gone if more else None)


def test_what_was_seen_of_one_log_says_nothing_of_another(log):
    state = replace(proven(log).state, log_id="another")

    assert "another log" in broken(log, state=state).reason


def test_an_anchor_that_is_not_later_than_the_one_before_is_refused(log):
    log.fill(1, first=FIRST + MORE)
    log.anchor(time=log.anchors[-1].said.time)

    assert "order" in broken(log).reason


@pytest.mark.parametrize("changes", [{"seq": 1}, {"previous": ""}, {"service": "payments"}, {"leaves": 1}, {"v": 2}])
def test_a_statement_that_was_signed_wrongly_is_refused(log, changes):
    log.fill(1, first=FIRST + MORE)
    log.anchor(**changes)

    broken(log)


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
        ({"first": 0}, "header"),
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


# --- Exports that begin later


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


# --- The file


def test_a_file_that_was_cut_short_is_found(log):
    lines = log.lines()

    assert "cut short" in verify_broken(log, lines[:-1])
    assert "cut short" in verify_broken(log, [])
    assert "no line" in verify_broken(log, [*lines[:-1], lines[-1][:-10]])


def test_a_file_with_another_digest_or_more_lines_is_found(log):
    lines = log.lines()
    end = msgspec.json.decode(lines[-1])

    for wrong in (end | {"lines": end["lines"] + 1}, end | {"sha256": "0" * 64}):
        assert "digest" in verify_broken(log, [*lines[:-1], msgspec.json.encode(wrong)])
    assert "may stand here" in verify_broken(log, [*lines, lines[-1]])
    assert "digest" in verify_broken(log, [lines[0].replace(b"Z", b"z"), *lines[1:]])


def verify_broken(log: ExportedLog, lines: list[bytes]) -> str:
    result = verify(lines, pem(log.signer))
    assert isinstance(result, Broken)
    return result.reason


def small(signer: MemorySigner) -> ExportedLog:
    log = ExportedLog(signer, ManualClock())
    log.append("orders/1", event(1), event(2))
    log.append("orders/1", event(3))
    log.anchor()
    return log


def flips(body: bytes) -> range:
    """Name the bits to flip: every one in a soak, and else one of each byte, another one each time."""
    return range(0, len(body) * 8, 1 if IS_SOAK else 9)


def flipped(body: bytes, at: int) -> bytes:
    changed = bytearray(body)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def test_one_bit_flipped_anywhere_in_a_small_export_is_found(signer):
    log, key = small(signer), pem(signer)
    whole = b"".join(log.lines())

    for at in flips(whole):
        assert isinstance(verify(flipped(whole, at).splitlines(keepends=True), key), Broken), at


def test_one_bit_flipped_in_what_counts_is_found_without_the_digest(signer):
    """What an export says of itself without proof (when it was made, what its key is called) may say anything."""
    log, key = small(signer), pem(signer)

    def told(lines: list[bytes]) -> list[Any]:
        free = {"exported_at": "", "key_id": ""}
        return [decoded(line) | {name: "" for name in free if name in line.decode()} for line in lines]

    whole = list(log.unclosed())
    original = told(whole)
    for number, line in enumerate(whole):
        for at in flips(line):
            lines = [*whole[:number], flipped(line, at), *whole[number + 1 :]]
            result = verify(closed(lines), key)
            if isinstance(result, Proven):
                assert told(lines) == original, (number, at)


BYTES = frozenset({"header", "events", "root", "leaf", "path", "statement", "signature", "hashes"})


def decoded(value: Any, name: str = "") -> Any:
    """Read a line with its bytes as bytes: base64 has spare bits at its end."""
    match value:
        case bytes():
            return decoded(msgspec.json.decode(value))
        case dict():
            return {member: decoded(each, member) for member, each in value.items()}
        case list():
            return [decoded(each, name) for each in value]
        case str() if name in BYTES:
            return base64.b64decode(value)
        case _:
            return value


# --- Nonsense


NONSENSE = (
    b"", b"\n", b"null", b"[]", b"{}", b"0", b'"commit"', b'{"type":"commit"}', b'{"type":"else"}', b"\xff\xfe",
    b'{"type":"commit","partition":9}', b'{"type":"end","lines":-1,"sha256":""}', b'{"type":"end","lines":1e400}',
    b"[" * 100_000, b'{"a":' * 100_000, b'{"type":"end","lines":' + b"9" * 5_000 + b',"sha256":""}',
    b'{"type":"manifest","v":1,"v":1}', b'{"type":"manifest"}{"type":"manifest"}', b'{"type":"\xed\xa0\x80"}',
)  # fmt: skip


@pytest.mark.parametrize("line", NONSENSE, ids=lambda line: repr(line[:24]))
def test_nonsense_is_broken_and_never_a_traceback(log, line):
    lines = log.lines()
    for at in (0, 1, len(lines) - 2, len(lines)):
        assert isinstance(verify([*lines[:at], line, *lines[at:]], pem(log.signer)), Broken)
    assert isinstance(verify([line], pem(log.signer)), Broken)


WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**53,
    2**70,
    1.5,
    "",
    "x",
    "é",
    "0" * 65,
    [],
    [None],
    {},
    {"a": 1},
    b64(bytes(31)),
)


def test_a_wrong_value_anywhere_is_broken_and_never_a_traceback(signer):
    log, key = small(signer), pem(signer)
    parts = log.parts()
    tried = 0
    for number, part in enumerate(parts):
        for path in paths(part):
            for wrong in WRONG:
                changed = msgspec.json.decode(msgspec.json.encode(parts))
                target, name = changed[number], path[-1]
                for step in path[:-1]:
                    target = target[step]
                if target[name] == wrong or (name in {"exported_at", "key_id"} and isinstance(wrong, str)):
                    continue
                target[name] = wrong
                tried += 1
                assert isinstance(verify(closed_parts(changed), key), Broken), (number, path, wrong)
    assert tried > 500


def paths(value: Any) -> list[tuple[Any, ...]]:
    members = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [path for name, member in members for path in ((name,), *((name, *rest) for rest in paths(member)))]


def test_what_is_hashed_may_be_nonsense_too(log, signer):
    rng = random.Random(1)
    for wrong in (b"", b"null", b"{}", b"\xff", b"[" * 5_000, rng.randbytes(200)):
        parts = log.parts()
        commits(parts)[12]["header"] = b64(wrong)
        assert "header" in broken(log, parts).reason
        parts = log.parts()
        parts[-1]["statement"], parts[-1]["signature"] = b64(wrong), b64(signer.sign(wrong))
        assert "no line" in broken(log, parts).reason
        parts = log.parts()
        parts[-1]["heads"][0]["leaf"] = b64(wrong)
        assert "no line" in broken(log, parts).reason
