"""Changes to an export whose maker mends the digest, and nothing that would take the key."""

import base64
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from holdfast.streams.packing import root_of
from tests.exported_log import event
from tests.unit.client.verifier.made_exports import Parts, anchors, b64, change, commits


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


def empty_the_last_partition(parts: Parts) -> None:
    for part in commits(parts):
        if part["partition"] == 3:
            parts.remove(part)
    parts[0]["partitions"][3]["size"] = 0


def keep_a_partition_back(parts: Parts) -> None:
    """Say nothing of the last partition, wherever something could be said of it."""
    empty_the_last_partition(parts)
    for anchor in anchors(parts):
        anchor["heads"].pop()


def call_a_partition_empty(parts: Parts) -> None:
    empty_the_last_partition(parts)
    root = sha256(b"")
    for anchor in anchors(parts):
        head = anchor["heads"][-1]
        head |= {"size": 0, "root": b64(root.digest())}
        change(head, "leaf", size=0, root=root.hexdigest())


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


def swap_heads(parts: Parts) -> None:
    parts[-1]["heads"].reverse()


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
    """Give as many hashes as fit the commits that are there when they come."""
    parts.insert(parts.index(commits(parts)[0]) + 1, frontier(commits(parts)[0]["partition"], 1))


def frontier(partition: int, size: int) -> dict[str, Any]:
    return {"type": "frontier", "partition": partition, "size": size, "hashes": [b64(bytes(32))] * size}


CHANGES: tuple[Callable[[Parts], None], ...] = (
    edit_event, edit_header, edit_event_and_header, edit_newest_commit,
    delete_commit, delete_commit_and_renumber, swap_commits, swap_commits_and_renumber,
    swap_events_of_two_commits, swap_events_in_a_commit, leave_out_an_event, repeat_a_commit,
    cut_the_tail, cut_a_partition, empty_the_last_partition,
    keep_a_partition_back, call_a_partition_empty, begin_later,
    write_a_header_in_another_way, name_another_tenant, move_a_stream, shift_a_position,
    claim_more_in_the_manifest, claim_another_log, claim_another_tenant, claim_another_service, name_a_partition_twice,
    say_that_a_commit_is_gone,
    swap_anchors, take_the_heads_of_another_anchor, take_the_signature_of_another_anchor, number_an_anchor_otherwise,
    leave_out_the_anchors, leave_out_a_head, swap_heads, double_a_head, say_another_root, say_another_size,
    change_a_head_leaf, misplace_a_head, place_a_head_outside, cut_a_path, stretch_a_path,
    append_after_the_anchors, begin_twice, begin_without_a_manifest, explain_what_lies_before_leaf_0,
)  # fmt: skip
