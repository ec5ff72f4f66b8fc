"""The small pure rooms: clock, ids, retry, proofs, packing, attributes."""

import uuid
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256

import msgspec
import pytest

from holdfast.clock import ManualClock, from_micros, from_text, to_micros, to_text
from holdfast.dynamodb.attributes import from_item, to_attribute, to_item
from holdfast.errors import Invalid, Unavailable
from holdfast.ids import derived, uuid7
from holdfast.proofs import EMPTY_ROOT, leaf_hash, node_hash, root
from holdfast.retry import Budget, repeat
from holdfast.streams import JsonCodec, RawCodec
from holdfast.streams.packing import fingerprint_of, header_of, pack, root_of, unpack


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2010-04-06T11:12:57Z", datetime(2010, 4, 6, 11, 12, 57, tzinfo=UTC)),
        ("2010-04-06t11:12:57.5z", datetime(2010, 4, 6, 11, 12, 57, 500_000, tzinfo=UTC)),
        ("2010-04-06T11:12:57+02:00", datetime(2010, 4, 6, 9, 12, 57, tzinfo=UTC)),
        ("2010-04-06T11:12:57.123456789-23:59", datetime(2010, 4, 7, 11, 11, 57, 123_456, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_rfc_3339_times_are_read(text, moment):
    assert from_text(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "yesterday", "", "2010-04-06", "2010-04-06T11:12:57", "2010-04-06 11:12:57Z", "2010-04-06T11:12:60Z",
        "2010-04-06T24:00:00Z", "2010-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-00:01", "2010-04-06T11:12:57+2:00", "2010-04-06T11:12:57.Z",
        "٢٠١٠-04-06T11:12:57Z", "2010-04-06T11:12:57Z\n", "2010-04-06T11:12:57+24:00",
    ],
)  # fmt: skip
def test_times_that_are_not_are_refused(text):
    with pytest.raises(Invalid) as refused:
        from_text(text)
    assert refused.value.code == "invalid_time"


def test_times_are_written_in_utc_with_microseconds():
    moment = datetime(33, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))

    assert to_text(moment) == "0033-01-01T00:00:00.000000Z"


def test_microseconds_are_exact_before_and_after_1970():
    for micros in (-1, 0, 1, 253_402_300_799_999_999):
        assert to_micros(from_micros(micros)) == micros


def test_uuid7_sorts_by_time_and_is_a_uuid():
    early, late = (uuid7(datetime(2026, 1, day, tzinfo=UTC)) for day in (1, 2))

    assert early < late
    assert (uuid.UUID(early).version, uuid.UUID(early).variant) == (7, uuid.RFC_4122)
    assert uuid7(datetime(2026, 1, 1, tzinfo=UTC), bytes(10)) == "019b76da-a800-7000-8000-000000000000"


def test_derived_ids_never_change():
    assert derived("a", "bc") == "1881f07e-55f9-51c6-9d78-4b146090d159"
    assert derived("a", "bc") != derived("ab", "c")


def test_repeating_ends_with_the_answer():
    clock, failures = ManualClock(), iter([Unavailable("x", "y"), Unavailable("x", "y")])

    def call() -> str:
        for error in failures:
            raise error
        return "answer"

    assert repeat(call, on=Unavailable, budget=Budget(), clock=clock) == "answer"


def test_repeating_is_bounded_by_attempts_and_by_time():
    def calls_made(budget: Budget, seconds_each: float) -> int:
        clock, calls = ManualClock(), []

        def call() -> None:
            calls.append(1)
            clock.sleep(seconds_each)
            raise Unavailable("x", "y")

        with pytest.raises(Unavailable):
            repeat(call, on=Unavailable, budget=budget, clock=clock)
        return len(calls)

    assert calls_made(Budget(attempts_max=3), 0) == 3
    assert calls_made(Budget(attempts_max=100, seconds_max=10), 5) == 2


def test_what_is_not_named_is_not_repeated():
    calls = []

    def call() -> None:
        calls.append(1)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        repeat(call, on=Unavailable, budget=Budget(), clock=ManualClock())
    assert len(calls) == 1


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


@pytest.mark.parametrize("size", [*range(41), 255, 256, 257, 258])
def test_roots_are_those_of_rfc_6962(size):
    leaves = [leaf_hash(str(number).encode()) for number in range(size)]

    assert root(leaves) == naive_root(leaves)


def test_the_empty_tree_and_single_leaf_have_known_hashes():
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    # The first test vectors of the reference implementation of certificate transparency.
    assert root([leaf_hash(b"")]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert (
        root([leaf_hash(b""), leaf_hash(b"\x00")]).hex()
        == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    )


def test_packed_events_come_back_to_the_byte():
    events = (b"", b"{}", b"x" * 70_000)

    assert unpack(pack(events)) == events


def test_fingerprints_know_where_one_part_ends():
    assert fingerprint_of([b"ab", b"c"]) != fingerprint_of([b"a", b"bc"])


def test_a_header_is_sorted_compact_json_without_the_events():
    header = header_of(
        tenant="t", stream="s", first_version=3, count=1, events_root=root_of([b"{}"]), commit_id="c", actor="Zoë",
        recorded_at=from_micros(7), previous_hash=b"\x01",
    )  # fmt: skip

    assert header.decode() == (
        '{"actor":"Zoë","commit_id":"c","events_root":"' + leaf_hash(b"{}").hex() + '","first":3,"n":1,"prev":"01",'
        '"rt":7,"stream":"s","tenant":"t","v":1}'
    )


class Happened(msgspec.Struct, frozen=True, tag="happened"):
    b: int
    a: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    pass


def test_typed_events_are_stored_with_sorted_keys_and_their_tag():
    codec: JsonCodec[Happened | Ended] = JsonCodec(Happened | Ended)

    assert codec.encode(Happened(1, "x")) == b'{"a":"x","b":1,"type":"happened"}'
    assert codec.decode(codec.encode(Ended())) == Ended()
    assert codec.time_of(Ended()) is None


def test_raw_events_may_say_their_time():
    assert RawCodec().time_of(b'{"time":"2026-01-01T00:00:00Z"}') == datetime(2026, 1, 1, tzinfo=UTC)
    assert RawCodec().time_of(b"{}") is None


def test_rows_come_back_as_they_were():
    row = {"s": "é", "n": -(10**30), "b": b"\x00", "t": True, "none": None, "l": [1, "a", {"x": [b""]}], "m": {}}

    assert from_item(to_item(row)) == row


def test_floats_are_not_kept_in_rows():
    with pytest.raises(TypeError, match="float"):
        to_attribute(0.1)
