"""The live tail of the running audit trail: events come as they are appended, through cuts, without loss or repeats."""

import threading
import uuid
from collections.abc import Iterator

import pytest

from holdfast_client import Event, Holdfast
from holdfast_client.tail_sockets import Socket, open_websocket
from tests.local.conftest import LocalStack

EVENTS = 40
CUT_EVERY = 12
OPENS_IN_SECONDS = 60.0


@pytest.fixture
def holdfast(stack: LocalStack) -> Iterator[Holdfast]:
    with Holdfast.local(stack.home) as connected:
        yield connected


def test_events_are_followed_through_cuts_without_loss_or_repeats(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch):
    prefix, sockets, is_open = f"tail-{uuid.uuid4().hex[:8]}/", list[Socket](), threading.Event()

    def remembered(url: str) -> Socket:
        sockets.append(open_websocket(url))
        is_open.set()
        return sockets[-1]

    monkeypatch.setattr("holdfast_client.tail.open_websocket", remembered)
    # The function behind may take longer to begin than a handshake waits; until then the log is polled.
    monkeypatch.setattr("holdfast_client.tail.REFUSED_SECONDS", 1.0)
    tail = holdfast.audit.tail(prefix)
    assert tail.positions.keys() == {0, 1, 2, 3}

    def write() -> None:
        is_open.wait(OPENS_IN_SECONDS)
        for number in range(EVENTS):
            holdfast.audit.append(f"{prefix}{number % 5}", [Event(type="x", data=number)])
            if number % CUT_EVERY == CUT_EVERY - 1 and sockets:
                sockets[-1].close()

    writing = threading.Thread(target=write)
    writing.start()
    told = [next(tail) for _ in range(EVENTS)]
    writing.join()
    tail.close()

    assert sockets
    assert sorted(int(str(each.event.data)) for each in told) == list(range(EVENTS))
    for partition in range(4):
        positions = [each.position for each in told if each.partition == partition]
        assert positions == sorted(set(positions))


def test_a_tail_goes_on_where_an_earlier_one_ended(holdfast: Holdfast):
    prefix = f"tail-{uuid.uuid4().hex[:8]}/"
    earlier = holdfast.audit.tail(prefix)
    before = earlier.positions
    for number in range(6):
        holdfast.audit.append(f"{prefix}{number}", [Event(type="x", data=number)])

    first = [int(str(next(earlier).event.data)) for _ in range(3)]
    earlier.close()
    later = holdfast.audit.tail(prefix, after=earlier.positions)
    rest = [int(str(next(later).event.data)) for _ in range(3)]
    later.close()

    assert before.keys() == {0, 1, 2, 3}
    assert sorted(first + rest) == list(range(6))
