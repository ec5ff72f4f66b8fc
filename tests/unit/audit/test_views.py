"""The audit trail's read models, as functions of events."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from functions.audit.domain.views import ACTIVITY, EVENTS, STREAMS, VIEWS
from holdfast.clock import to_micros
from holdfast.projections.views import Counting, Key, Listing, Recorded

RECORDED = datetime(2026, 3, 1, 12, tzinfo=UTC)
HAPPENED = datetime(2026, 2, 27, 23, 59, 59, 999_999, tzinfo=UTC)


def recorded(*, version: int = 3, position: int = 41, **attributes: Any) -> Recorded:
    stored = {
        "specversion": "1.0",
        "id": "e1",
        "source": "urn:shop",
        "type": "order.placed",
        "time": "2026-02-27T23:59:59.999999Z",
        "subject": "cust#7",
        "data": {"secret": "plain"},
        **attributes,
    }
    present = {name: value for name, value in stored.items() if value is not None}
    return Recorded(
        tenant="acme",
        stream="orders/42",
        version=version,
        first_version=2,
        partition=1,
        position=position,
        stored=msgspec.json.encode(present, order="sorted"),
        actor="ann",
        recorded_at=RECORDED,
        commit_id="c",
    )


def test_the_views_are_of_the_two_kinds():
    assert [isinstance(view, Listing) for view in VIEWS] == [True, False, False]
    assert [isinstance(view, Counting) for view in VIEWS] == [False, True, True]
    assert len({view.name for view in VIEWS}) == len(VIEWS)


def test_an_event_lies_under_its_day_its_actor_its_type_and_its_subject():
    rows = dict(EVENTS.rows(recorded()))

    place = "2026-02-27T23:59:59.999999Z#1#0000000000000041"
    assert set(rows) == {
        Key("day#2026-02-27#", place),
        Key("actor#2026-02#ann", place),
        Key("type#2026-02#order.placed", place),
        Key("subject#2026-02#cust#7", place),
    }


def test_every_row_of_an_event_is_its_envelope_without_its_data():
    (attributes,) = {msgspec.json.encode(row) for row in dict(EVENTS.rows(recorded())).values()}

    assert msgspec.json.decode(attributes) == {
        "stream": "orders/42",
        "v": 3,
        "fv": 2,
        "id": "e1",
        "source": "urn:shop",
        "type": "order.placed",
        "subject": "cust#7",
        "actor": "ann",
        "time": to_micros(HAPPENED),
        "rt": to_micros(RECORDED),
        "p": 1,
        "pos": 41,
    }


def test_an_event_without_a_subject_has_three_rows():
    rows = dict(EVENTS.rows(recorded(subject=None)))

    assert len(rows) == 3
    assert all("subject" not in row for row in rows.values())


def test_an_event_without_a_time_happened_when_it_was_recorded():
    rows = dict(EVENTS.rows(recorded(time=None)))

    assert {key.sk[:27] for key in rows} == {"2026-03-01T12:00:00.000000Z"}
    assert {row["time"] for row in rows.values()} == {to_micros(RECORDED)}


def test_an_actor_that_the_event_names_stands_before_the_writer():
    keys = {key.pk for key, _ in EVENTS.rows(recorded(actor="bob"))}

    assert "actor#2026-02#bob" in keys


def test_what_is_no_cloudevent_cannot_be_taken():
    with pytest.raises(msgspec.ValidationError):
        dict(EVENTS.rows(recorded(id=None)))


def test_a_stream_shows_its_end_the_bounds_of_its_times_and_who_wrote_last():
    key = Key("1", "orders/42")
    early, late = recorded(version=1, time="2020-01-01T00:00:00Z"), recorded(version=2, actor="bob")
    assert list(STREAMS.keys(early)) == [key]

    first = STREAMS.change(key, None, late)
    second = STREAMS.change(key, first, early)

    assert first == {
        "version": 2,
        "first_time": to_micros(HAPPENED),
        "last_time": to_micros(HAPPENED),
        "last_actor": "bob",
    }
    assert second["first_time"] == to_micros(datetime(2020, 1, 1, tzinfo=UTC))
    assert second["last_time"] == to_micros(HAPPENED)


def test_activity_counts_by_day_and_type():
    (key,) = ACTIVITY.keys(recorded(type="a#b"))

    assert key == Key("1", "2026-02-27#a#b")
    assert ACTIVITY.change(key, {"count": 4}, recorded()) == {"count": 5}
    assert ACTIVITY.change(key, None, recorded()) == {"count": 1}
