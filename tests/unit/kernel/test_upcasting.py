"""Events of old are folded as what they would say today, and never make a state unreadable."""

import itertools
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from holdfast import folds
from holdfast.errors import Invalid
from holdfast.folds import MERGE_PATCH, Folded, FoldEvent, Reducers, Upcast, Within, fold
from holdfast.streams import Commit, Instant

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
V2, V3 = "urn:shop:order:2", "urn:shop:order:3"


def commit(*events: dict[str, Any], first_version: int = 1) -> Commit[bytes]:
    stored = tuple(msgspec.json.encode({"type": "order.placed", **event}) for event in events)
    return Commit("t", "orders/1", first_version, stored, "c", b"", "ann", NOON, b"", b"", Instant(NOON, 0))


def into(dataschema: str | None, **changes: Any) -> Upcast:
    """Make an upcaster that adds members, and names the next schema."""
    return lambda event: msgspec.structs.replace(event, dataschema=dataschema, data={**event.data, **changes})


@pytest.fixture
def reducers() -> Reducers:
    """Euros became cents, and later got a currency."""
    reducers = Reducers()

    @reducers.upcaster("order.placed", version=1)
    def in_cents(event: FoldEvent) -> FoldEvent:
        data = {"cents": event.data["euros"] * 100}
        return msgspec.structs.replace(event, dataschema=V2, data=data)

    reducers.upcaster("order.placed", dataschema=V2, version=1)(into(V3, currency="EUR"))
    return reducers


def folded(reducers: Reducers, *events: dict[str, Any]) -> Folded:
    return fold([commit(*events)], reducers.of("orders/1"), Within())


def test_an_event_is_led_through_every_schema_that_followed_its_own(reducers: Reducers):
    history: list[dict[str, Any]] = [
        {"data": {"euros": 3}},
        {"dataschema": V2, "data": {"cents": 250}},
        {"dataschema": V3, "data": {"x": 1}},
    ]

    assert [fold([commit(each)], reducers.of("orders/1"), Within()).state for each in history] == [
        {"cents": 300, "currency": "EUR"},
        {"cents": 250, "currency": "EUR"},
        {"x": 1},
    ]


def test_events_of_other_types_stay_as_they_are(reducers: Reducers):
    assert folded(reducers, {"type": "order.paid", "data": {"euros": 3}}).state == {"euros": 3}


def test_every_reducer_sees_what_was_made_of_an_event(reducers: Reducers):
    seen: list[FoldEvent] = []

    @reducers.register("orders", version=7, initial=list)
    def collect(state: Any, event: FoldEvent) -> Any:
        seen.append(event)
        return [*state, event.data["cents"]]

    assert folded(reducers, {"data": {"euros": 3}}).state == [300]
    assert (seen[0].type, seen[0].dataschema) == ("order.placed", V3)
    assert reducers.of("orders/1").label.startswith("orders@7+")


def test_an_event_may_become_one_of_another_type(reducers: Reducers):
    reducers.upcaster("order.made", version=1)(lambda event: msgspec.structs.replace(event, type="order.placed"))

    assert folded(reducers, {"type": "order.made", "data": {"euros": 1}}).state == {"cents": 100, "currency": "EUR"}


def test_when_an_event_happened_is_what_it_said_itself(reducers: Reducers):
    reducers.upcaster("order.old", version=1)(lambda event: msgspec.structs.replace(event, type="x", time=None))
    events = [{"type": "order.old", "time": "2020-01-01T00:00:00Z", "data": {"a": 1}}]

    assert fold([commit(*events)], reducers.of("orders/1"), Within(at=NOON.replace(year=2021))).state == {"a": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda event: 1 // 0,
        lambda event: None,
        lambda event: msgspec.structs.replace(event, type="x", data=object()),
        lambda event: event,
        lambda event: msgspec.structs.replace(event, type="there"),
    ],
    ids=["raises", "makes nothing", "makes no JSON", "goes nowhere", "goes in a circle"],
)
def test_an_upcaster_that_fails_takes_one_event_away_and_is_listed(wrong: Upcast):
    reducers = Reducers()
    reducers.upcaster("bad", version=1)(wrong)
    reducers.upcaster("there", version=1)(lambda event: msgspec.structs.replace(event, type="bad"))

    found = folded(reducers, {"data": {"a": 1}}, {"type": "bad", "data": {"a": 2}}, {"data": {"b": 3}})

    assert found == Folded({"a": 1, "b": 3}, 3, 2, (2,))


def test_what_an_upcaster_hands_out_twice_is_not_changed_by_the_fold():
    shared = {"list": [1]}
    reducers = Reducers()
    reducers.upcaster("order.placed", version=1)(lambda event: msgspec.structs.replace(event, type="x", data=shared))
    append = [{"op": "add", "path": "/list/-", "value": 2}]
    patch = {"type": "p", "datacontenttype": "application/json-patch+json", "data": append}

    assert folded(reducers, {"data": 1}, patch, patch).state == {"list": [1, 2, 2]}
    assert shared == {"list": [1]}


def test_an_upcaster_without_end_makes_no_state_that_outgrows_every_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folds, "STATE_BYTES_MAX", 10_000)
    reducers, numbers = Reducers(), itertools.count()
    reducers.upcaster("order.placed", version=1)(
        lambda event: msgspec.structs.replace(event, type="x", data={str(next(numbers)): "x" * 4_000})
    )

    with pytest.raises(Invalid) as refused:
        folded(reducers, *[{"data": 1}] * 100)
    assert refused.value.code == "state_too_large"
    assert next(numbers) < 10


def test_a_schema_has_one_upcaster(reducers: Reducers):
    with pytest.raises(ValueError, match="have an upcaster"):
        reducers.upcaster("order.placed", dataschema=V2, version=2)(into(V3))


def test_what_was_folded_with_other_upcasters_is_told_apart():
    def label(*upcasters: tuple[str, str | None, int]) -> str:
        reducers = Reducers()
        for event_type, dataschema, version in upcasters:
            reducers.upcaster(event_type, dataschema=dataschema, version=version)(into(None))
        return reducers.of("orders/1").label

    one, other = ("a", None, 1), ("a", V2, 1)
    assert label() == MERGE_PATCH.label == "merge-patch@1"
    assert label(one, other) == label(other, one)
    labels = [label(), label(one), label(other), label(("a", None, 2)), label(("a", "", 1)), label(("b", None, 1))]
    assert len({*labels, label(one, other)}) == 7
