"""WebSockets as they are deployed: client, gateway, the engine's API, a Lambda with the kernel's door, and back."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import stacks
from holdfast.aws import client
from holdfast.broadcast.posting import Gone
from holdfast_client.tail import Tail
from holdfast_client.tail_sockets import open_websocket
from stacks.local import websocket_proxy as module
from stacks.local.gateway import Gateway
from stacks.local.websocket_proxy import MESSAGE_BYTES_MAX
from stacks.websockets import upstream
from tests.local.conftest import free_ports
from tests.local.platform import wired as fixture
from tests.local.platform.conftest import Platform, wait_until
from tests.local.platform.wired import TENANT, Wired

PATIENCE_SECONDS = 15.0


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    running = Gateway(free_ports())
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def wired(platform: Platform, gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    patch = pytest.MonkeyPatch()
    for name, value in (("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")):
        patch.setenv(name, value)
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client.cache_clear()
    root = fixture.repository(tmp_path_factory.mktemp("repository"))
    deployed = Wired.deployed(platform.endpoint_url, gateway.url, stacks.home(), root)
    at = upstream({"WebsocketAPI": deployed.api_id}, platform.endpoint_url)
    assert at is not None
    gateway.websockets = {"wired": at, "gone": f"ws://127.0.0.1:{free_ports()}/x"}
    yield deployed
    client.cache_clear()
    patch.undo()


@contextlib.contextmanager
def opened(wired: Wired, **options: Any) -> Iterator[ClientConnection]:
    with connect(wired.ticket().url, open_timeout=PATIENCE_SECONDS, proxy=None, **options) as connection:
        yield connection


def messages(connection: ClientConnection, count: int) -> list[Any]:
    """Receive *count* messages, however they are joined in frames."""
    received: list[Any] = []
    while len(received) < count:
        received += [json.loads(line) for line in str(connection.recv(PATIENCE_SECONDS)).split("\n")]
    assert len(received) == count
    return received


def connections(wired: Wired) -> list[str]:
    return [member.connection.id for member in wired.broadcast.members(TENANT, "log")]


def subscribed(wired: Wired, connection: ClientConnection) -> str:
    """Have a connection listen, as the only one, and say what it is called on the other side."""
    wait_until(lambda: connections(wired) == [], "the connections of earlier tests are forgotten")
    connection.send('{"type":"subscribe"}')
    messages(connection, 1)
    [name] = connections(wired)
    return name


# --- The door


def test_a_function_learns_where_clients_connect_and_where_it_sends(wired: Wired, gateway: Gateway):
    at = f"{wired.endpoint_url}/restapis/{wired.rest_id}/live/_user_request_/settings"

    assert httpx.get(at, timeout=PATIENCE_SECONDS).json() == {
        "HOLDFAST_WEBSOCKET_URL": f"ws://{gateway.url.removeprefix('http://')}/wired/ws",
        "HOLDFAST_WEBSOCKET_ENDPOINT": wired.management_url,
    }


def test_a_ticket_opens_one_websocket_and_no_second(wired: Wired):
    url = wired.ticket().url
    with connect(url, open_timeout=PATIENCE_SECONDS, proxy=None) as connection:
        connection.send('{"type":"subscribe"}')
        assert messages(connection, 1)[0]["type"] == "at"
        with pytest.raises(InvalidStatus) as refused:
            connect(url, open_timeout=PATIENCE_SECONDS, proxy=None)
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("query", ["", "?ticket=x", "?ticket="])
def test_without_a_ticket_the_handshake_is_refused(wired: Wired, gateway: Gateway, query: str):
    url = f"ws://{gateway.url.removeprefix('http://')}/wired/ws{query}"

    with pytest.raises(InvalidStatus) as refused:
        connect(url, open_timeout=PATIENCE_SECONDS, proxy=None)
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["code"] == "websocket_refused"


def test_a_message_that_cannot_be_followed_is_answered_and_the_connection_stays(wired: Wired):
    with opened(wired) as connection:
        connection.send("nonsense")
        assert messages(connection, 1)[0]["code"] == "malformed_json"
        connection.send('{"type":"ping"}')
        assert messages(connection, 1)[0]["code"] == "not_subscribed"


def test_who_closes_is_forgotten(wired: Wired):
    with opened(wired) as connection:
        name = subscribed(wired, connection)

    wait_until(lambda: connections(wired) == [], "the function heard of the end")
    with pytest.raises(Gone):
        wired.broadcast.post.send(name, b"x")


def test_a_connection_that_the_service_closes_ends_at_the_client(wired: Wired):
    with opened(wired) as connection:
        wired.broadcast.close(subscribed(wired, connection))
        with pytest.raises(ConnectionClosed):
            connection.recv(PATIENCE_SECONDS)


# --- The gateway


def test_a_message_of_the_full_size_passes_and_a_larger_one_ends_the_connection(wired: Wired):
    with opened(wired, max_size=None) as connection:
        connection.send('"' + "x" * (MESSAGE_BYTES_MAX - 2) + '"')
        assert messages(connection, 1)[0]["code"] == "invalid_message"
        connection.send("x" * (MESSAGE_BYTES_MAX + 1))
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(PATIENCE_SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_a_plain_request_is_told_to_come_as_a_websocket(wired: Wired, gateway: Gateway):
    answer = httpx.get(f"{gateway.url}/wired/ws?ticket=x", timeout=PATIENCE_SECONDS)

    assert (answer.status_code, answer.json()["code"]) == (426, "websocket_required")


def test_a_page_that_points_its_own_name_here_is_refused(wired: Wired):
    address = urlsplit(wired.ticket().url)
    with socket.create_connection(("127.0.0.1", address.port or 0)) as other:
        url = urlunsplit(address._replace(netloc="evil.example"))
        with pytest.raises(InvalidStatus) as refused:
            connect(url, sock=other, open_timeout=PATIENCE_SECONDS, proxy=None)
    assert refused.value.response.status_code == 421


def test_an_engine_that_is_gone_is_told_as_such(wired: Wired, gateway: Gateway):
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{gateway.url.removeprefix('http://')}/gone/ws", open_timeout=PATIENCE_SECONDS, proxy=None)
    assert refused.value.response.status_code == 503


def test_only_so_many_connections_are_taken(wired: Wired, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 1)
    with opened(wired), pytest.raises(InvalidStatus) as refused, opened(wired):
        pass
    assert refused.value.response.status_code == 429


def test_a_connection_on_which_nothing_passes_ends(wired: Wired, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "IDLE_SECONDS_MAX", 0.3)
    with opened(wired) as connection:
        began = time.monotonic()
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(PATIENCE_SECONDS)
    assert time.monotonic() - began < 3
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


def test_a_gateway_that_stops_ends_its_connections_at_once(wired: Wired, gateway: Gateway):
    other = Gateway(free_ports())
    other.start()
    other.websockets = gateway.websockets
    url = wired.ticket().url.replace(gateway.url.removeprefix("http://"), other.url.removeprefix("http://"))
    with connect(url, open_timeout=PATIENCE_SECONDS, proxy=None) as connection:
        began = time.monotonic()
        other.stop()
        with pytest.raises(ConnectionClosed):
            connection.recv(PATIENCE_SECONDS)
    assert time.monotonic() - began < 4


# --- The tail


def test_events_come_as_they_are_appended(wired: Wired):
    with opened(wired) as connection:
        connection.send('{"type":"subscribe","prefix":"one/"}')
        messages(connection, 1)
        wired.append("one/1", 3)
        wired.push("one/1")
        told = messages(connection, 3)

    assert [each["event"]["streamversion"] for each in told] == [1, 2, 3]
    assert [each["position"] - each["after"] for each in told[1:]] == [1, 1]


def test_a_ping_brings_what_nobody_pushed(wired: Wired):
    with opened(wired) as connection:
        connection.send('{"type":"subscribe","prefix":"two/"}')
        messages(connection, 1)
        wired.append("two/1")
        connection.send('{"type":"ping"}')
        event, at = messages(connection, 2)

    assert event["event"]["source"] == "urn:two/1"
    assert at["positions"][str(event["partition"])] == event["position"]


def test_the_sdk_follows_through_cuts_without_loss_or_repeats(wired: Wired):
    streams = [f"three/{n}" for n in range(5)]
    heads = {partition: wired.head(partition) for partition in range(4)}
    sockets = []

    def remembered(url: str) -> Any:
        sockets.append(open_websocket(url))
        return sockets[-1]

    def write() -> None:
        cut = 0
        for n in range(20):
            wired.append(streams[n % 5], 1 + n % 3)
            if n % 4:
                wired.push(streams[n % 5])
            if n % 6 == 5:
                cut = len(sockets)
                sockets[-1].close()
            if n % 6 == 1 and n > 6:
                wait_until(lambda: len(sockets) > cut, "the tail has opened another")  # noqa: B023 - waits here

    tail = Tail(wired, "three/", heads, open_socket=remembered)
    total, handed = sum(1 + n % 3 for n in range(20)), list[tuple[str, int]]()
    writing = threading.Thread(target=write)
    for count, each in enumerate(_started(tail, wired, writing)):
        handed.append((each.event.source, each.event.streamversion))
        if count + 1 == total:
            break
    writing.join()
    tail.close()

    assert len(sockets) >= 4
    assert len(set(handed)) == len(handed) == total
    for stream in streams:
        own = [version for source, version in handed if source == f"urn:{stream}"]
        assert own == sorted(own)


def _started(tail: Tail, wired: Wired, writing: threading.Thread) -> Iterator[Any]:
    """Begin to write once the tail listens."""
    wired.append("three/first")
    tail_events = iter(tail)
    next(tail_events)
    writing.start()
    yield from tail_events
