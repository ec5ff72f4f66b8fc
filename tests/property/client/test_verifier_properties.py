"""Whatever the history: what was signed is proven, what was changed is not, and nobody forgets what was seen."""

import base64
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.anchors import MemorySigner
from holdfast_client.verifier import Broken, Proven, State, verify
from tests.exported_log import STREAMS, ExportedLog, closed_parts, event, pem
from tests.soak import examples

SIGNER = MemorySigner()
KEY = pem(SIGNER)
FREE = {"exported_at", "key_id"}
"""What an export says of itself, and nothing rests on."""

Step = tuple[int, int] | None
"""A commit by the stream it goes to and its events; None is an anchor."""

steps = st.lists(st.none() | st.tuples(st.integers(0, len(STREAMS) - 1), st.integers(1, 3)), min_size=1, max_size=25)


def played(script: list[Step], *, changed: int | None = None) -> ExportedLog:
    """Make the log of *script*, with one other event at commit *changed*."""
    log = ExportedLog(SIGNER)
    commits = 0
    for step in script:
        if step is None:
            if commits:
                log.anchor()
            continue
        stream, events = step
        first = 9_000 if commits == changed else commits * 10
        log.append(STREAMS[stream], *[event(first + each) for each in range(events)])
        commits += 1
    return log


def whole(script: list[Step]) -> list[Step]:
    return [(0, 1), *script, None]


@settings(max_examples=examples(12, soak=2_000), deadline=None)
@given(script=steps)
def test_what_was_signed_is_proven_visit_after_visit(script):
    state: State | None = None
    log = ExportedLog(SIGNER)
    played_so_far: list[Step] = []
    for step in whole(script):
        played_so_far.append(step)
        if step is not None:
            continue
        log = played(played_so_far)
        result = verify(log.lines(), KEY, state)
        assert isinstance(result, Proven), result
        assert result.commits == sum(map(len, log.commits.values()))
        assert result.not_yet_anchored == 0
        state = result.state
    assert state
    assert state.seq == len(log.anchors)


@settings(max_examples=examples(12, soak=2_000), deadline=None)
@given(script=steps, data=st.data())
def test_an_export_may_begin_anywhere_up_to_what_was_seen(script, data):
    first = played(whole(script))
    seen = verify(first.lines(), KEY)
    assert isinstance(seen, Proven)
    log = played([*whole(script), *script, (0, 2), None])
    sizes = {partition: size for partition, (size, _) in seen.state.heads.items()}
    from_leaves = {partition: data.draw(st.integers(0, size)) for partition, size in sizes.items()}

    anchors = [anchor for anchor in log.anchors if anchor.said.seq > seen.state.seq]
    result = verify(log.lines(anchors, from_leaves), KEY, seen.state)

    assert isinstance(result, Proven), result
    assert result.commits == sum(map(len, log.commits.values())) - sum(from_leaves.values())


@settings(max_examples=examples(12, soak=2_000), deadline=None)
@given(script=steps, data=st.data())
def test_a_history_rewritten_by_who_holds_the_key_does_not_meet_what_was_seen(script, data):
    script = whole(script)
    honest = verify(played(script).lines(), KEY)
    assert isinstance(honest, Proven)
    changed = data.draw(st.integers(0, sum(step is not None for step in script) - 1))
    forged = played([*script, (1, 1), None], changed=changed)

    assert isinstance(verify(forged.lines(), KEY), Proven)
    assert isinstance(verify(forged.lines(), KEY, honest.state), Broken)
    assert isinstance(verify(forged.lines(forged.anchors[-1:]), KEY, honest.state), Broken)


@settings(max_examples=examples(12, soak=2_000), deadline=None)
@given(script=steps, data=st.data())
def test_a_log_cut_short_by_who_holds_the_key_does_not_meet_what_was_seen(script, data):
    script = whole(script)
    honest = verify(played(script).lines(), KEY)
    assert isinstance(honest, Proven)
    commits = [at for at, step in enumerate(script) if step is not None]
    cut = data.draw(st.sampled_from(commits))
    shorter = played([step for at, step in enumerate(script) if at != cut] + [None])

    result = verify(shorter.lines(), KEY, honest.state)

    assert isinstance(result, Broken)


@settings(max_examples=examples(40, soak=5_000), deadline=None)
@given(script=steps, data=st.data())
def test_a_value_changed_anywhere_is_found_though_the_digest_is_mended(script, data):
    log = played(whole(script))
    parts = log.parts()
    number = data.draw(st.integers(0, len(parts) - 1))
    path = data.draw(st.sampled_from(leaves_of(parts[number])))
    target, name = parts[number], path[-1]
    for step in path[:-1]:
        target = target[step]
    target[name] = data.draw(other_than(target[name]))

    result = verify(closed_parts(parts), KEY)

    assert isinstance(result, Broken), (parts[number], path)


@settings(max_examples=examples(25, soak=3_000), deadline=None)
@given(script=steps, data=st.data())
def test_lines_that_are_lost_doubled_or_moved_are_found_though_the_digest_is_mended(script, data):
    log = played(whole(script))
    parts = log.parts(log.anchors[-1:])
    count = data.draw(st.integers(0, len(parts) - 1))
    to = data.draw(st.integers(0, len(parts) - 1))
    changed = list(parts)
    match data.draw(st.sampled_from(["lose", "double", "move"])):
        case "lose":
            changed.pop(count)
        case "double":
            changed.insert(to, changed[count])
        case _:
            changed.insert(to, changed.pop(count))
    result = verify(closed_parts(changed), KEY)

    # Partitions may stand in any order; within each, what counts is that of its leaves.
    if by_partition(changed) == by_partition(parts):
        assert isinstance(result, Proven)
    else:
        assert isinstance(result, Broken)


def by_partition(parts: list[dict[str, Any]]) -> Any:
    kinds = [part["type"] for part in parts]
    commits: dict[int, list[dict[str, Any]]] = {}
    for part in parts:
        if part["type"] == "commit":
            commits.setdefault(part["partition"], []).append(part)
    others = [(at, part) for at, part in enumerate(parts) if part["type"] != "commit"]
    return kinds, sorted(commits.items()), others


def leaves_of(value: Any) -> list[tuple[Any, ...]]:
    members = list(value.items() if isinstance(value, dict) else enumerate(value))
    return [
        path
        for name, member in members
        if name not in FREE
        for path in ([(name, *rest) for rest in leaves_of(member)] if isinstance(member, dict | list) else [(name,)])
    ]


def other_than(value: Any) -> st.SearchStrategy[Any]:
    if isinstance(value, int):
        return st.integers(-1, 2**54).filter(lambda other: other != value)
    text = st.text(max_size=12).filter(lambda other: other != value)
    try:
        body = base64.b64decode(value, validate=True)
    except ValueError:
        return text
    if not body:
        return text
    # Signatures have no fixed length, so the range of what is drawn may not depend on it.
    flips = st.integers(0, 9_999).map(lambda at: flipped(body, at % (len(body) * 8)))
    return flips | text


def flipped(body: bytes, at: int) -> str:
    changed = bytearray(body)
    changed[at // 8] ^= 1 << at % 8
    return msgspec.to_builtins(bytes(changed))
