"""A search finds what a straight filter finds, in the same order, whatever its pages."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from functions.audit.domain.searching import Search, find
from functions.audit.domain.views import EventRow
from holdfast.clock import to_text
from tests.search_rows import Shelf, found_event
from tests.soak import examples

START = datetime(2026, 1, 30, 22, tzinfo=UTC)
# Around the ends of days, months and years, and often equal.
MOMENTS = st.builds(
    lambda days, hours, micros: START + timedelta(days=days, hours=hours, microseconds=micros),
    st.sampled_from([0, 1, 1, 40, 365]),
    st.sampled_from([0, 1, 2, 3]),
    st.sampled_from([0, 0, 1]),
)
NAMES = {
    "actor": st.sampled_from(["ann", "bob", "b"]),
    "type": st.sampled_from(["t", "t#2026-01"]),
    "subject": st.sampled_from([None, "s", "s/1"]),
    "stream": st.sampled_from(["orders/1", "orders/12"]),
}


@st.composite
def histories(draw: Any) -> list[EventRow]:
    count = draw(st.integers(0, 40))
    return [
        found_event(
            position,
            draw(MOMENTS),
            recorded_at=draw(MOMENTS),
            partition=draw(st.integers(0, 3)),
            **{name: draw(values) for name, values in NAMES.items()},
        )
        for position in range(count)
    ]


@st.composite
def searches(draw: Any) -> Search:
    named = draw(st.sets(st.sampled_from(sorted(NAMES)), max_size=2))
    facets = {name: draw(NAMES[name]) for name in sorted(named)}
    first, last = draw(st.none() | MOMENTS), draw(st.none() | MOMENTS)
    if first and last and first > last:
        first, last = last, first
    if not any(facets.get(name) for name in ("actor", "type", "subject")):
        first = first or START
    last = None if first and last and last < first else last
    return Search(
        **facets,
        first=first,
        last=last,
        known_at=draw(st.sampled_from([None, None, START + timedelta(days=2)])),
        newest_first=draw(st.booleans()),
    )


def straight(events: list[EventRow], search: Search) -> list[EventRow]:
    """Filter and sort, without buckets, bounds or pages."""
    chosen = [
        each
        for each in events
        if all(getattr(search, name) in (None, getattr(each, name)) for name in NAMES)
        and (search.first is None or each.time >= search.first)
        and (search.last is None or each.time <= search.last)
        and (search.known_at is None or each.recorded_at <= search.known_at)
    ]
    return sorted(
        chosen, key=lambda each: (to_text(each.time), each.partition, each.position), reverse=search.newest_first
    )


@settings(max_examples=examples(80, soak=5_000))
@given(histories(), searches(), st.integers(1, 5))
def test_pages_together_are_what_a_straight_filter_finds(events: list[EventRow], search: Search, limit: int):
    shelf = Shelf(events)
    pages: list[list[EventRow]] = []
    place = None
    while True:
        page = find(search, shelf.span, shelf.read, place=place, limit=limit)
        pages.append([each for _, each in page.found])
        if page.goes_on is None:
            break
        place = page.goes_on

    assert [each for page in pages for each in page] == straight(events, search)
    assert all(len(page) <= limit for page in pages)
    assert len(pages) <= 1 + len(events) + 365 // 64 + 1
