"""Tokens that were revoked: known within half a minute, or nobody enters."""

import pytest

from holdfast.auth import RevocationList
from holdfast.clock import ManualClock
from tests.unit.kernel.auth.signing import SECOND, refusal


class Table:
    """A table of revocations that can be away."""

    def __init__(self) -> None:
        self.revoked: frozenset[str] = frozenset()
        self.is_away = False
        self.reads = 0

    def __call__(self) -> frozenset[str]:
        self.reads += 1
        if self.is_away:
            raise ConnectionError("away")
        return self.revoked


def test_a_revocation_is_known_within_half_a_minute(clock: ManualClock):
    table = Table()
    revocations = RevocationList(table, clock)
    assert not revocations.is_revoked("t")

    table.revoked = frozenset({"t"})
    clock.advance(29 * SECOND)
    assert not revocations.is_revoked("t")
    clock.advance(1 * SECOND)
    assert revocations.is_revoked("t")
    assert table.reads == 2


def test_an_old_list_serves_for_a_minute_and_then_nobody_enters(clock: ManualClock):
    table = Table()
    revocations = RevocationList(table, clock)
    revocations.is_revoked("t")
    table.is_away = True

    clock.advance(60 * SECOND)
    assert not revocations.is_revoked("t")
    clock.advance(1 * SECOND)
    assert refusal(lambda: revocations.is_revoked("t")) == ("revocations_unknown", 503)

    table.is_away = False
    clock.advance(9 * SECOND)
    assert not revocations.is_revoked("t")


def test_nobody_enters_before_the_list_was_read(clock: ManualClock):
    table = Table()
    table.is_away = True

    assert refusal(lambda: RevocationList(table, clock).is_revoked("t")) == ("revocations_unknown", 503)


def test_not_every_request_waits_for_a_table_that_is_away(clock: ManualClock):
    table = Table()
    table.is_away = True
    revocations = RevocationList(table, clock)

    for _ in range(10):
        refusal(lambda: revocations.is_revoked("t"))
    clock.advance(9 * SECOND)
    refusal(lambda: revocations.is_revoked("t"))
    assert table.reads == 1
    clock.advance(SECOND)
    refusal(lambda: revocations.is_revoked("t"))
    assert table.reads == 2


@pytest.mark.parametrize("jump_seconds", [-3_600, 3_600])
def test_a_clock_that_jumps_does_not_keep_a_list_young(clock: ManualClock, jump_seconds: int):
    table = Table()
    revocations = RevocationList(table, clock)
    revocations.is_revoked("t")
    table.revoked = frozenset({"t"})

    clock.jump(jump_seconds * SECOND)
    clock.advance(30 * SECOND)

    assert revocations.is_revoked("t")


def test_a_list_is_as_old_as_the_question_that_got_it(clock: ManualClock):
    def slow() -> frozenset[str]:
        clock.advance(29 * SECOND)
        return frozenset({str(clock.monotonic())})

    revocations = RevocationList(slow, clock)
    revocations.is_revoked("t")
    clock.advance(SECOND)

    assert revocations.is_revoked("59.0")
