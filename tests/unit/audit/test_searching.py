"""Which rows a search reads, and where its pages end."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from functions.audit.domain.searching import (
    BUCKETS_MAX,
    ROWS_MAX,
    Bookmark,
    Rows,
    Search,
    SearchPage,
    check_search,
    find,
)
from functions.audit.domain.views import EventRow
from holdfast.errors import Invalid
from tests.search_rows import Shelf, found_event

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FIVE_YEARS = NOON.replace(year=2031) - NOON
LEAP = datetime(2024, 2, 29, 12, tzinfo=UTC)


def refusal(search: Search) -> str:
    with pytest.raises(Invalid) as caught:
        check_search(search)
    return caught.value.code


def pages(shelf: Shelf, search: Search, limit: int = 10) -> Iterator[SearchPage]:
    place = None
    while True:
        page = find(search, shelf.span, shelf.read, place=place, limit=limit)
        yield page
        if page.goes_on is None:
            return
        place = page.goes_on


def found(shelf: Shelf, search: Search, limit: int = 10) -> list[EventRow]:
    return [each for page in pages(shelf, search, limit) for _, each in page.found]


@pytest.mark.parametrize(
    ("search", "facet"),
    [
        (Search(actor="a", type="t", subject="s"), "subject"),
        (Search(actor="a", type="t"), "actor"),
        (Search(type="t", stream="s"), "type"),
        (Search(stream="s", first=NOON), "day"),
    ],
)
def test_the_most_selective_facet_is_read(search: Search, facet: str):
    asked: list[Rows] = []

    def read(rows: Rows) -> Iterator[tuple[str, Mapping[str, Any]]]:
        asked.append(rows)
        return iter(())

    find(search, (NOON, NOON), read, place=None, limit=10)

    assert [rows.pk.split("#")[0] for rows in asked] == [facet]


@pytest.mark.parametrize("search", [Search(), Search(stream="s"), Search(last=NOON), Search(known_at=NOON)])
def test_a_search_without_a_facet_says_from_when_on(search: Search):
    assert refusal(search) == "unbounded_search"


@pytest.mark.parametrize("facet", ["actor", "type", "subject"])
@pytest.mark.parametrize("value", ["", "x" * 513, "é" * 257])
def test_a_value_that_no_event_holds_is_refused_before_it_becomes_a_key(facet: str, value: str):
    assert refusal(msgspec.convert({facet: value}, Search)) == "invalid_query"


def test_bounds_are_in_order_and_at_most_five_years_apart():
    assert refusal(Search(actor="a", first=NOON, last=NOON - DAY)) == "invalid_range"
    check_search(Search(actor="a", first=NOON, last=NOON))


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (NOON, datetime(2031, 1, 1, 12, tzinfo=UTC)),
        (LEAP, datetime(2029, 3, 1, 12, tzinfo=UTC)),
        (LEAP + DAY, datetime(2029, 3, 1, 12, tzinfo=UTC)),
    ],
)
def test_five_years_are_those_of_the_calendar(first: datetime, last: datetime):
    check_search(Search(actor="a", first=first, last=last))
    assert refusal(Search(actor="a", first=first, last=last + timedelta(microseconds=1))) == "invalid_range"


def test_a_span_may_end_with_the_calendar():
    check_search(Search(actor="a", first=datetime(9996, 1, 1, tzinfo=UTC), last=datetime.max.replace(tzinfo=UTC)))


def test_days_up_to_an_event_that_claims_a_far_future_are_not_walked():
    shelf = Shelf([found_event(1, NOON), found_event(2, NOON + FIVE_YEARS + 2 * DAY)])

    with pytest.raises(Invalid) as caught:
        list(pages(shelf, Search(first=NOON)))

    assert caught.value.code == "invalid_range"
    assert len(found(shelf, Search(first=NOON, last=NOON + DAY))) == 1
    assert len(found(shelf, Search(first=NOON + 2 * DAY))) == 1
    assert len(found(shelf, Search(actor="ann"))) == 2


def test_a_search_begun_goes_on_when_an_event_claims_a_far_future_meanwhile():
    shelf = Shelf([found_event(n, NOON) for n in range(3)])
    search = Search(first=NOON)
    begun = find(search, shelf.span, shelf.read, place=None, limit=1)
    assert shelf.span

    span = (shelf.span[0], NOON + 2 * FIVE_YEARS)
    page = find(search, span, shelf.read, place=begun.goes_on, limit=1)

    assert [each.position for _, each in page.found] == [1]


def test_nothing_is_found_where_there_is_nothing():
    assert find(Search(actor="a"), None, Shelf([]).read, place=None, limit=1) == SearchPage((), None)
    shelf = Shelf([found_event(1, NOON)])
    assert found(shelf, Search(actor="ann", first=NOON + DAY)) == []
    assert found(shelf, Search(actor="ann", last=NOON - DAY)) == []


def test_the_bounds_are_included():
    shelf = Shelf([found_event(n, NOON + n * timedelta(microseconds=1)) for n in range(4)])
    search = Search(actor="ann", first=NOON + timedelta(microseconds=1), last=NOON + timedelta(microseconds=2))

    assert [each.position for each in found(shelf, search)] == [1, 2]


@pytest.mark.parametrize(("newest_first", "expected"), [(False, [1, 2, 3]), (True, [3, 2, 1])])
def test_a_page_that_goes_on_ends_at_the_far_bound_all_the_same(newest_first: bool, expected: list[int]):
    shelf = Shelf([found_event(n, NOON + n * timedelta(hours=1)) for n in range(5)])
    first, last = NOON + timedelta(hours=1), NOON + timedelta(hours=3)
    search = Search(actor="ann", newest_first=newest_first, first=first, last=last)

    assert [each.position for each in found(shelf, search, limit=1)] == expected


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_page_that_is_full_tells_whether_anything_follows(newest_first: bool):
    shelf = Shelf([found_event(n, NOON) for n in range(4)])
    search = Search(actor="ann", newest_first=newest_first)

    assert [len(page.found) for page in pages(shelf, search, limit=2)] == [2, 2]
    assert [len(page.found) for page in pages(shelf, search, limit=3)] == [3, 1]
    assert shelf.rows_read <= 2 * (4 + 4)


def test_a_page_that_finds_nothing_still_ends_and_says_where_the_next_begins():
    many = [found_event(n, NOON, stream="other") for n in range(ROWS_MAX + 5)]
    shelf = Shelf([*many, found_event(9_999, NOON, stream="wanted")])

    first, second = pages(shelf, Search(actor="ann", stream="wanted"))

    assert (len(first.found), len(second.found)) == (0, 1)
    assert first.goes_on


def test_no_page_reads_more_rows_than_its_bound():
    shelf = Shelf([found_event(n, NOON + n * DAY, stream="other") for n in range(ROWS_MAX + 100)])

    find(Search(actor="ann", stream="wanted"), shelf.span, shelf.read, place=None, limit=10)

    assert shelf.rows_read == ROWS_MAX


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_page_looks_into_so_many_buckets_and_no_more(newest_first: bool):
    shelf = Shelf([found_event(1, NOON), found_event(2, NOON + (BUCKETS_MAX + 1) * DAY)])
    search = Search(first=NOON, newest_first=newest_first)

    walk = pages(shelf, search)
    first = next(walk)
    assert shelf.reads == BUCKETS_MAX
    (second,) = walk

    assert (len(first.found), len(second.found)) == (1, 1)
    assert first.goes_on
    assert not first.goes_on.after


def test_every_time_that_an_event_may_claim_is_found():
    times = [datetime(1, 1, 1, tzinfo=UTC), datetime(999, 12, 31, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    shelf = Shelf([found_event(n, time) for n, time in enumerate(times)])

    for newest_first in (False, True):
        for time in times:
            near = Search(first=time, last=time, newest_first=newest_first)
            assert [each.time for each in found(shelf, near)] == [time]
    page = find(Search(actor="ann"), shelf.span, shelf.read, place=Bookmark("9999-12"), limit=10)
    assert [each.time for _, each in page.found] == [times[2]]
