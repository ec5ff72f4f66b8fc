"""Whatever befalls an import, running it again ends with exactly the streams that the file says."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_cli.importing.git import path_text
from holdfast_cli.importing.importer import Tally, import_items
from holdfast_cli.importing.items import SPLIT_BYTES_MAX, SPLIT_MEMBERS_MAX, Item, make_item, split
from holdfast_client import Budget, Holdfast, HoldfastError
from tests.soak import examples
from tests.unit.client.loopback import TOKEN, LostReply, LostRequest, Says, Trail, serving

ONCE_AGAIN = Budget(attempts_max=2, seconds_max=5, first_wait_seconds=0.0001, longest_wait_seconds=0.0001)

faults = st.one_of(
    st.none(), st.just(LostReply()), st.just(LostRequest()), st.just(Says(503)), st.just(Says(429)), st.just(Says(500))
)


class Killed(Exception):
    """The process ended here."""


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Trail, Holdfast]]:
    trail = Trail()
    with serving(trail) as url, Holdfast(url, TOKEN, budget=ONCE_AGAIN, timeout_seconds=5) as holdfast:
        yield trail, holdfast


def items_of(streams: Sequence[int]) -> list[Item]:
    events: list[tuple[str, dict[str, Any]]] = [
        (f"s/{stream}", {"specversion": "1.0", "id": f"e{number}", "source": "x", "type": "t", "data": {"n": number}})
        for number, stream in enumerate(streams)
    ]
    return [
        make_item(f"line {number}", stream, event, owns_source=False)
        for number, (stream, event) in enumerate(events, start=1)
    ]


def killed_after(items: Sequence[Item], count: int) -> Iterator[Item]:
    for number, item in enumerate(items):
        if number == count:
            raise Killed
        yield item


def ignore(_tally: Tally) -> None: ...


@settings(max_examples=examples(20, soak=500), deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), st.lists(faults, max_size=8)), max_size=4),
)
def test_an_import_that_was_killed_anywhere_and_is_run_again_ends_with_the_file(server, streams, runs):
    trail, holdfast = server
    trail.clear()
    items = items_of(streams)
    for killed_at, batch, befalls in runs:
        trail.befall(befalls)
        with suppress(Killed, HoldfastError):
            import_items(holdfast.audit, killed_after(items, killed_at), batch_events=batch, on_progress=ignore)
    trail.befall([])

    tally = import_items(holdfast.audit, items, batch_events=5, on_progress=ignore)

    for stream in {item.stream for item in items}:
        wanted = [item.event["id"] for item in items if item.stream == stream]
        assert [event["id"] for event in trail.streams[stream]] == wanted
    assert tally.events_appended + tally.events_already_there == len(items)
    assert import_items(holdfast.audit, items, batch_events=3, on_progress=ignore).events_appended == 0


paths = st.binary(min_size=1).filter(lambda path: b"\0" not in path)


@given(paths, paths)
def test_no_two_paths_share_a_text(one, other):
    assert (path_text(one) == path_text(other)) == (one == other)


@given(st.one_of(paths, st.text(min_size=1).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_the_text_of_any_path_is_i_json(path):
    text = path_text(path)

    assert text.encode()
    assert not any(ord(each) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(each) <= 0xFDEF for each in text)


@settings(max_examples=examples(8, soak=200), deadline=None)
@given(st.integers(0, SPLIT_MEMBERS_MAX * 3), st.integers(1, 400))
def test_the_parts_of_a_commit_are_bounded_and_together_are_the_commit(members, name_length):
    values: dict[str, str | None] = {f"{number:0{name_length}d}": "a" * 40 for number in range(members)}

    parts = list(split(values))

    assert {name: value for part in parts for name, value in part.items()} == values
    assert sum(map(len, parts)) == len(values)
    assert all(len(part) <= SPLIT_MEMBERS_MAX for part in parts)
    assert all(sum(len(name) + 47 for name in part) <= SPLIT_BYTES_MAX for part in parts)
    assert len(parts) == 1 or all(parts)
