"""`./holdfast audit tail`: what it prints, where it begins, and how it goes on."""

import json
from collections.abc import Iterator, Mapping

import pytest

from holdfast_client.audit import Audit
from holdfast_client.errors import Invalid
from holdfast_client.events import RecordedEvent
from holdfast_client.tail_cursor import TailedEvent

CLOUDEVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "urn:x",
    "type": "placed",
    "actor": "ann",
    "subject": "\x1b[2J",
    "time": "2026-01-01T00:00:00Z",
    "recordedat": "2026-01-01T00:00:00Z",
    "streamversion": 7,
    "commitid": "c",
}


class Told:
    """A tail that tells two events and then is interrupted."""

    def __init__(self, prefix: str, after: Mapping[int, int] | None) -> None:
        self.asked = (prefix, dict(after or {}))
        self.positions = dict.fromkeys(range(4), 9)
        self.is_closed = False

    def __iter__(self) -> Iterator[TailedEvent]:
        for position in (1, 2):
            yield TailedEvent(3, position, "orders/1", RecordedEvent.of(CLOUDEVENT))
        raise KeyboardInterrupt

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def tails(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    made: list[Told] = []

    def tail(_audit: Audit, prefix: str = "", *, after: Mapping[int, int] | None = None) -> Told:
        made.append(Told(prefix, after))
        return made[-1]

    monkeypatch.setattr(Audit, "tail", tail)
    return made


def test_every_event_is_a_line_of_json_with_its_place(run, tails: list[Told]):
    code, out, _ = run("audit", "tail", "--json", "--limit", "2")

    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(each["partition"], each["position"], each["stream"]) for each in told] == [
        (3, 1, "orders/1"),
        (3, 2, "orders/1"),
    ]
    assert told[0]["event"] == CLOUDEVENT
    assert tails[0].is_closed


def test_it_begins_where_it_is_told_to(run, tails: list[Told]):
    run("audit", "tail", "--prefix", "orders/", "--after", "0=120", "--after", "3=7", "--limit", "1")

    assert tails[0].asked == ("orders/", {0: 120, 3: 7})


def test_an_interruption_is_no_failure_and_names_the_command_that_goes_on(run, tails: list[Told]):
    code, _, err = run("audit", "tail", "--prefix", "orders/")

    assert code == 0
    assert "audit tail --prefix orders/ --after 0=9 --after 1=9 --after 2=9 --after 3=9" in err


def test_somebodys_text_does_not_steer_the_terminal(run, tails: list[Told]):
    _, out, _ = run("audit", "tail", "--limit", "1")

    assert out.startswith("orders/1@7  2026-01-01 00:00:00  ann  placed")
    assert "\x1b" not in out


def test_positions_of_another_log_end_with_the_command_that_begins_anew(run, tails: list[Told], monkeypatch):
    def refused(_told: Told) -> Iterator[TailedEvent]:
        raise Invalid("beyond_the_log", "The log does not reach position 120.", facts={"heads": {0: 9}})

    monkeypatch.setattr(Told, "__iter__", refused)

    code, out, err = run("audit", "tail", "--prefix", "a b/", "--after", "0=120", "--json")

    error = json.loads(err)["error"]
    assert (code, out, error["code"], error["heads"]) == (2, "", "beyond_the_log", {"0": 9})
    assert error["next_command"] == (
        "./holdfast audit tail --prefix 'a b/' --after 0=0 --after 1=0 --after 2=0 --after 3=0"
    )
    assert tails[0].is_closed


@pytest.mark.parametrize("after", ["0", "x=1", "0=-1", "=", "1=2=3", "4=0", "7=120"])
def test_a_position_that_is_none_is_a_usage_error(run, tails: list[Told], after: str):
    assert run("audit", "tail", "--after", after)[0] == 2
    assert not tails
