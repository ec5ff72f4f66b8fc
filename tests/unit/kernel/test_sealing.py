"""Sealed events: what is stored of them, what is read, what a fold sees, and what recognises a repeat."""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cloudevents.v1.http import from_json

from holdfast import cloudevents
from holdfast.clock import ManualClock
from holdfast.envelope import DataKey, Forged, keyed_digest, unseal
from holdfast.errors import Conflict, Invalid
from holdfast.folds import MERGE_PATCH, Folded, Within, fold
from holdfast.sealing import Erased, KeyLost, Keys, Sealer
from holdfast.streams import Commit, MemoryEventStores, RawCodec

PLAIN = {"specversion": "1.0", "id": "1", "source": "urn:test", "type": "test.happened"}
ABOUT_ANN = {**PLAIN, "shredkey": "ann"}
STREAM = "people/1"


@dataclass
class DictKeys:
    """Keys by subject."""

    keys: dict[str, DataKey | Erased] = field(default_factory=lambda: {"ann": DataKey(b"a" * 32)})

    def key_for(self, subject: str) -> DataKey:
        key = self.keys.setdefault(subject, DataKey(subject.encode().ljust(32)))
        if isinstance(key, Erased):
            raise Conflict("subject_erased", "")
        return key

    def peek(self, subject: str) -> DataKey | Erased | None:
        return self.keys.get(subject)


@pytest.fixture
def keys() -> DictKeys:
    return DictKeys()


@pytest.fixture
def sealer(keys: DictKeys) -> Sealer:
    is_port: Keys = keys
    return Sealer(is_port, "acme")


CONTENTS: list[dict[str, Any]] = [
    {"data": {"name": "Ann", "age": 40}},
    {"data": None},
    {"data": "text é", "datacontenttype": "text/plain"},
    {"data": [1.5, True, {"data": {}}]},
    {"data_base64": "AQID"},
    {"data_base64": ""},
]


@pytest.mark.parametrize("content", CONTENTS)
def test_what_was_sealed_is_read_as_it_was(sealer: Sealer, content: dict[str, Any]):
    event = {**ABOUT_ANN, **content}

    assert sealer.unsealed(STREAM, sealer.sealed(STREAM, event)) == event


def test_nothing_of_the_content_is_stored_in_clear(sealer: Sealer):
    stored = sealer.sealed(STREAM, {**ABOUT_ANN, "datacontenttype": "application/json", "data": {"name": "Ann"}})

    box = base64.b64decode(stored.pop("data_base64"))
    assert stored == {**ABOUT_ANN, "datacontenttype": "application/json", "sealed": "1"}
    assert b"Ann" not in box
    assert b"name" not in box


def test_a_box_holds_the_content_and_is_bound_to_its_place(sealer: Sealer, keys: DictKeys):
    stored = sealer.sealed(STREAM, {**ABOUT_ANN, "data": {"b": 1, "a": 2}})

    place = {"tenant": "acme", "subject": "ann", "stream": STREAM, "source": "urn:test", "id": "1"}
    box = base64.b64decode(stored["data_base64"])
    assert unseal(box, keys.key_for("ann"), place) == b'{"data":{"a":2,"b":1}}'


@pytest.mark.parametrize("event", [PLAIN, {**PLAIN, "data": {"a": 1}}, {**PLAIN, "data_base64": "AQID"}])
def test_an_event_about_nobody_stays_as_it_is(sealer: Sealer, keys: DictKeys, event: dict[str, Any]):
    assert sealer.sealed(STREAM, event) == sealer.unsealed(STREAM, event) == event
    assert list(keys.keys) == ["ann"]


def test_without_content_there_is_nothing_to_seal(sealer: Sealer):
    assert sealer.sealed(STREAM, ABOUT_ANN) == sealer.unsealed(STREAM, ABOUT_ANN) == ABOUT_ANN


@pytest.mark.parametrize("content", [{}, {"data": 1}])
def test_nothing_is_stored_about_who_was_erased(sealer: Sealer, keys: DictKeys, content: dict[str, Any]):
    keys.keys["ann"] = Erased()

    for act in (lambda event: sealer.sealed(STREAM, event), sealer.fingerprint_part):
        with pytest.raises(Conflict) as refused:
            act({**ABOUT_ANN, **content})
        assert refused.value.code == "subject_erased"


def test_an_event_whose_key_is_gone_is_read_without_data(sealer: Sealer, keys: DictKeys):
    stored = sealer.sealed(STREAM, {**ABOUT_ANN, "data": {"name": "Ann"}})
    keys.keys["ann"] = Erased()

    assert sealer.unsealed(STREAM, stored) == {**ABOUT_ANN, "erased": True}


def test_a_subject_that_never_had_a_key_is_not_taken_for_an_erased_one(sealer: Sealer, keys: DictKeys):
    stored = sealer.sealed(STREAM, {**ABOUT_ANN, "data": 1})
    del keys.keys["ann"]

    with pytest.raises(KeyLost):
        sealer.unsealed(STREAM, stored)


@pytest.mark.parametrize(
    ("tenant", "stream", "changes"),
    [
        ("other", STREAM, {}),
        ("acme", "people/2", {}),
        ("acme", STREAM, {"id": "2"}),
        ("acme", STREAM, {"source": "urn:other"}),
        ("acme", STREAM, {"shredkey": "bob"}),
        ("acme", STREAM, {"data_base64": ""}),
    ],
)
def test_an_event_that_lies_elsewhere_is_forged(keys: DictKeys, tenant: str, stream: str, changes: dict[str, Any]):
    keys.keys["bob"] = keys.keys["ann"]
    stored = Sealer(keys, "acme").sealed(STREAM, {**ABOUT_ANN, "data": 1})

    with pytest.raises(Forged):
        Sealer(keys, tenant).unsealed(stream, {**stored, **changes})


@pytest.mark.parametrize("name", ["sealed", "erased"])
@pytest.mark.parametrize("value", ["1", True, 1, ""])
def test_clients_do_not_say_what_is_sealed_or_erased(name: str, value: Any):
    with pytest.raises(Invalid) as refused:
        cloudevents.check({**PLAIN, name: value}, "/events/3")

    assert (refused.value.code, refused.value.pointer) == ("invalid_event", f"/events/3/{name}")


@pytest.mark.parametrize("subject", ["", "a b", "a#b", "../x", "é", "x" * 192, 7, True])
def test_a_shredkey_names_a_subject(subject: Any):
    with pytest.raises(Invalid) as refused:
        cloudevents.check({**PLAIN, "shredkey": subject}, "/events/3")

    assert (refused.value.code, refused.value.pointer) == ("invalid_event", "/events/3/shredkey")


def test_checked_events_go_through(sealer: Sealer):
    event = cloudevents.check({**ABOUT_ANN, "data": None, "subject": None, "shredkey": "users/1"}, "")

    assert (
        sealer.unsealed(STREAM, sealer.sealed(STREAM, event)) == event == {**PLAIN, "shredkey": "users/1", "data": None}
    )


# --- recognising a repeat


def test_a_fingerprint_recognises_content_and_does_not_betray_it(sealer: Sealer, keys: DictKeys):
    part = msgspec.json.decode(sealer.fingerprint_part({**ABOUT_ANN, "data": {"b": 1, "a": "Ann"}}))

    digest = keyed_digest(b'{"data":{"a":"Ann","b":1}}', keys.key_for("ann")).hex()
    assert part == {**ABOUT_ANN, "sealed": digest}


def test_the_fingerprint_of_an_open_event_is_what_it_was(sealer: Sealer):
    event = {**PLAIN, "data": {"b": 1, "a": 2}}

    assert sealer.fingerprint_part(event) == msgspec.json.encode(event, order="sorted")
    assert sealer.fingerprint_part({**event, "shredkey": None}) == msgspec.json.encode(
        {**event, "shredkey": None}, order="sorted"
    )


def test_other_requests_have_other_fingerprints(sealer: Sealer):
    events: list[dict[str, Any]] = [
        ABOUT_ANN,
        {**ABOUT_ANN, "data": None},
        {**ABOUT_ANN, "data": 1},
        {**ABOUT_ANN, "data": "1"},
        {**ABOUT_ANN, "data_base64": "AQID"},
        {**ABOUT_ANN, "data": {"data_base64": "AQID"}},
        {**ABOUT_ANN, "data": 1, "shredkey": "bob"},
        {**ABOUT_ANN, "data": 1, "reason": "x"},
        {**PLAIN, "data": 1},
    ]

    parts = [sealer.fingerprint_part(event) for event in events]
    assert len(set(parts)) == len(events)
    assert parts == [sealer.fingerprint_part(event) for event in events]


def test_a_repeat_in_another_box_gets_the_first_answer(sealer: Sealer):
    store = MemoryEventStores(RawCodec(), ManualClock()).of("acme", "bob")
    event = {**ABOUT_ANN, "data": {"name": "Ann"}}

    def append() -> Any:
        stored = cloudevents.encode(sealer.sealed(STREAM, event), "")
        return stored, store.append(STREAM, 0, [stored], commit_id="c", fingerprint=sealer.fingerprint_part(event))

    (first, answer), (second, again) = append(), append()
    assert first != second
    assert again.is_replay
    assert again.version == answer.version == 1
    assert [event for commit in store.read(STREAM) for event in commit.events] == [first]


# --- folding


def commits_of(sealer: Sealer, *events: dict[str, Any]) -> list[Commit[bytes]]:
    store = MemoryEventStores(RawCodec(), ManualClock()).of(sealer.tenant, "bob")
    stored = [cloudevents.encode(sealer.sealed(STREAM, event), "") for event in events]
    store.append(STREAM, 0, stored, commit_id="c")
    return list(store.read(STREAM))


ORDERS: list[dict[str, Any]] = [
    {**PLAIN, "id": "1", "data": {"total": 1}},
    {**ABOUT_ANN, "id": "2", "data": {"name": "Ann", "total": 2}},
    {**ABOUT_ANN, "id": "3", "shredkey": "bob", "data": {"helper": "Bob"}},
    {**ABOUT_ANN, "id": "4", "datacontenttype": "application/json-patch+json", "data": [{"op": "test", "path": "/no"}]},
    {**ABOUT_ANN, "id": "5"},
]


def test_a_fold_sees_what_was_sealed(sealer: Sealer):
    folded = fold(commits_of(sealer, *ORDERS), MERGE_PATCH, Within(), opened=sealer.opened)

    assert folded == Folded(
        {"total": 2, "name": "Ann", "helper": "Bob"}, 5, 4, (4,), events_erased=0, subjects=("ann", "bob")
    )


def test_erased_events_count_and_change_nothing(sealer: Sealer, keys: DictKeys):
    commits = commits_of(sealer, *ORDERS)
    keys.keys["ann"] = Erased()

    folded = fold(commits, MERGE_PATCH, Within(), opened=sealer.opened)

    assert folded == Folded({"total": 1, "helper": "Bob"}, 5, 3, (), events_erased=2, subjects=("bob",))


def test_what_does_not_count_is_not_opened(sealer: Sealer, keys: DictKeys):
    commits = commits_of(sealer, *ORDERS)
    keys.keys.clear()

    folded = fold(commits, MERGE_PATCH, Within(version=1), opened=sealer.opened)

    assert (folded.state, folded.subjects) == ({"total": 1}, ())


def test_a_fold_that_opens_nothing_holds_nothing_of_anybody(sealer: Sealer):
    folded = fold(commits_of(sealer, *ORDERS), MERGE_PATCH, Within())

    assert folded == Folded({"total": 1}, 5, 2, (), events_erased=0, subjects=())


def test_a_fold_that_goes_on_counts_on(sealer: Sealer, keys: DictKeys):
    commits = commits_of(sealer, *ORDERS)
    keys.keys["ann"] = Erased()
    start = Folded({"x": 1}, 0, 7, (), events_erased=10, subjects=("cai",))

    folded = fold(commits, MERGE_PATCH, Within(), start=start, opened=sealer.opened)

    assert folded == Folded({"x": 1, "total": 1, "helper": "Bob"}, 5, 10, (), events_erased=12, subjects=("bob", "cai"))


def test_sealed_binary_content_changes_no_state(sealer: Sealer):
    folded = fold(commits_of(sealer, {**ABOUT_ANN, "data_base64": "AQID"}), MERGE_PATCH, Within(), opened=sealer.opened)

    assert (folded.state, folded.events_applied) == ({}, 1)


def test_an_attribute_called_sealed_that_was_stored_before_it_had_a_meaning_is_only_that(sealer: Sealer):
    store = MemoryEventStores(RawCodec(), ManualClock()).of("acme", "bob")
    store.append(STREAM, 0, [msgspec.json.encode({**PLAIN, "sealed": 1, "data": {"a": 1}})], commit_id="c")

    assert fold(store.read(STREAM), MERGE_PATCH, Within(), opened=sealer.opened).state == {"a": 1}


# --- for others


def test_stored_opened_and_erased_events_are_cloudevents(sealer: Sealer, keys: DictKeys):
    event = {
        **ABOUT_ANN,
        "time": "2026-01-01T00:00:00Z",
        "datacontenttype": "application/json",
        "data": {"name": "Ann"},
    }
    stored = sealer.sealed(STREAM, event)
    opened = sealer.unsealed(STREAM, stored)
    keys.keys["ann"] = Erased()
    erased = sealer.unsealed(STREAM, stored)

    assert from_json(json.dumps(stored)).data == base64.b64decode(stored["data_base64"])
    assert from_json(json.dumps(opened)).data == {"name": "Ann"}
    parsed = from_json(json.dumps(erased))
    assert (parsed.data, parsed["erased"], parsed["shredkey"]) == (None, True, "ann")


def test_events_are_opened_as_they_are_rendered_too(sealer: Sealer):
    (commit,) = commits_of(sealer, {**ABOUT_ANN, "data": {"name": "Ann"}})

    (event,) = [sealer.unsealed(STREAM, rendered) for rendered in cloudevents.rendered(commit)]
    assert event["data"] == {"name": "Ann"}
    assert event["streamversion"] == 1
    assert "sealed" not in event
    assert datetime.fromisoformat(event["recordedat"]) == datetime(2026, 1, 1, tzinfo=UTC)
