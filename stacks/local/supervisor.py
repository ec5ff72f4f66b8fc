"""
The supervisor: one process that starts the engine, deploys to it, serves it on stable addresses, and stops it whole.

The order of stopping is the promise: no new requests and no new ticks, then the streams are read to their end, because
the engine keeps no stream record over a restart, then the engine writes its state and ends. Functions that take too
long for that are not waited for, and the last word says so.

A running supervisor can be asked to deploy again, over its gateway with a secret out of run.json: unlike a signal,
that has an answer, so the one who asks sees the progress and the failure.
"""

import asyncio
import contextlib
import json
import logging
import os
import queue
import secrets
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

import msgspec
from aiohttp import web

from holdfast import clock
from stacks import StackError
from stacks.local import clients, engine, files, health, processes, settings
from stacks.local.deployment import Deploy, Deployed, deploy_services
from stacks.local.dispatcher import Dispatcher
from stacks.local.engine import Engine
from stacks.local.environment import ensure_engine
from stacks.local.errors import CannotStart, Report
from stacks.local.forgetter import Forgetter
from stacks.local.gateway import Control, Gateway, route
from stacks.local.running import TENANT, EngineAddress, Home, Running, ServiceAddress, load
from stacks.local.sweeper import Sweeper
from stacks.local.ticker import Ticker

DRAIN_SECONDS_MAX = 5.0
"""How long a stop waits for functions to take what their streams still hold."""
WATCH_SECONDS = 0.25
"""How soon the death of a part is noticed."""

STEP, DONE, FAILED = "step", "done", "failed"
"""What a line of progress tells whoever waits: the second word of a line in stack.log, a member of an answer's line."""
DEPLOY = "deploy"
"""The one thing that a running supervisor can be asked for over the gateway."""

_log = logging.getLogger(__name__)


class StopRequested(BaseException):
    """A signal asked for the end. Not an Exception, so that nothing on the way swallows it."""


class Signals:
    """Turns SIGINT, SIGTERM and SIGHUP into one `StopRequested`, where that is safe."""

    def __init__(self) -> None:
        self._is_requested = False
        self._deferrals = 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._receive)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self._is_requested = True
        if not self._deferrals:
            raise StopRequested

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a block finish that would leave something behind if it were cut short."""
        self._deferrals += 1
        try:
            yield
        finally:
            self._deferrals -= 1
        if self._is_requested and not self._deferrals:
            raise StopRequested

    def ignore(self) -> None:
        """From here on the end is under way, and a second Ctrl-C must not make it a worse one."""
        self._deferrals += 1


class _Wish(msgspec.Struct, frozen=True):
    """The body of an order to deploy again."""

    services: tuple[str, ...]


@dataclass(frozen=True)
class _Order:
    """A wish to deploy again, and the way back to whoever has it."""

    services: Sequence[str]
    tell: Callable[[dict[str, str]], None]

    def step(self, text: str) -> None:
        self.tell({STEP: text})


@dataclass
class Supervisor:
    """Everything of one running stack. Made under the home's lock, run once."""

    home: Home
    services: Sequence[str]
    port: int
    endpoint_url: str | None
    """Another engine than our own, which is then not started."""
    report: Report
    deploy: Deploy = deploy_services
    _signals: Signals = field(default_factory=Signals)
    _orders: "queue.Queue[_Order]" = field(default_factory=queue.Queue)
    _control_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    _started_at: str = field(default_factory=lambda: clock.to_text(clock.SystemClock().now()))
    _engine: Engine | None = None
    _parts: "_Parts | None" = None

    def run(self) -> None:
        """
        Start everything, keep it running until a signal asks for the end, and stop everything.

        Raises:
            StackError: a part could not be started, or died; the others are stopped all the same.
        """
        self._signals.install()
        try:
            parts = self._start()
            self._watch(parts)
        except StopRequested:
            self.report.step("Stopping Holdfast (the engine writes its state now)")
        finally:
            self._signals.ignore()
            self._stop()

    # Starting

    def _start(self) -> "_Parts":
        self.report.step(f"Starting Holdfast in {self.home.path}")
        stop_leftovers(self.home, self.report)
        engine.require_free_port(self.port, "the gateway")
        endpoint_url = self.endpoint_url or self._start_engine()
        with self._signals.deferred():
            parts = self._parts = _Parts.started(self.home, self.port, endpoint_url, self._take_order)
            self._write_running(endpoint_url, {})
        self._deploy(parts, self.services, self.report)
        return parts

    def _start_engine(self) -> str:
        ensure_engine(self.home.path / "engine", self.report)
        self.report.step("Starting the local engine")
        # Until run.json names it, nobody else knows of it: not the moment to be interrupted.
        with self._signals.deferred():
            self._engine = engine.start(self.home.path, self.port + 1, self.report)
            self._write_running(self._engine.endpoint_url, {})
        return self._engine.endpoint_url

    def _deploy(self, parts: "_Parts", services: Sequence[str], report: Report) -> None:
        try:
            deployed = self.deploy(self.home.path, parts.endpoint_url, services, report)
            parts.serve(deployed)
        except clients.REFUSALS as error:
            raise CannotStart(
                f"The engine at {parts.endpoint_url} did not do what was asked: {error}",
                f"Look into {self.home.engine_log} if the engine is ours; then: ./holdfast up",
            ) from error
        files.write_bytes(self.home.token_file, f"{deployed.token}\n".encode())
        addresses = {name: ServiceAddress(url=f"{parts.gateway.url}/{name}") for name in deployed.api_urls}
        report.step("Waiting for the services to answer")
        health.warm_up([address.url for address in addresses.values()])
        report.step(f"Ready at {parts.gateway.url}")
        report.step("Data are written when Holdfast stops (Ctrl-C or ./holdfast down), and lost if it is killed")
        # Last, because whoever waits for a stack in the background waits for this.
        self._write_running(parts.endpoint_url, addresses)

    def _write_running(self, endpoint_url: str, services: dict[str, ServiceAddress]) -> None:
        identity = self._engine.identity if self._engine else None
        files.write(
            self.home.run_file,
            Running(
                pid=os.getpid(),
                engine_pid=identity.pid if identity else None,
                engine_began=identity.began if identity else None,
                started_at=self._started_at,
                gateway_url=gateway_url(self.port),
                services=services,
                tenant=TENANT,
                token_file=str(self.home.token_file),
                engine=EngineAddress(
                    endpoint_url=endpoint_url, region=engine.REGION, dynamodb_endpoint_url=endpoint_url
                ),
                control_secret=self._control_secret,
            ),
        )

    # Running

    def _watch(self, parts: "_Parts") -> NoReturn:
        """Carry out orders to deploy, and notice when a part dies."""
        while True:
            # Looked at first, because a follower may trip over the engine's death.
            is_following = parts.dispatcher.is_alive() and parts.ticker.is_alive()
            if self._engine is not None and not self._engine.is_alive():
                raise CannotStart(
                    f"The local engine died; what was written since the last stop is lost.\n"
                    f"{files.last_lines(self.home.engine_log)}",
                    "Start again: ./holdfast up",
                )
            if not is_following:
                raise CannotStart(
                    "A stream dispatcher or a schedule met a bug and died.",
                    f"See {self.home.stack_log}, then: ./holdfast up",
                )
            with contextlib.suppress(queue.Empty):
                self._carry_out(parts, self._orders.get(timeout=WATCH_SECONDS))

    def _carry_out(self, parts: "_Parts", order: "_Order") -> None:
        try:
            self._deploy(parts, order.services, order)
        except StackError as error:
            order.tell({FAILED: error.what, "next_step": error.next_step})
        except StopRequested:
            order.tell({FAILED: "Holdfast was stopped while deploying.", "next_step": "Start it again: ./holdfast up"})
            raise
        # Whatever it was is logged whole and told to whoever asked; the stack goes on with what it had.
        except Exception as error:  # noqa: BLE001
            _log.exception("Deploying again failed")
            order.tell({FAILED: f"{type(error).__name__}: {error}", "next_step": f"See {self.home.stack_log}"})
        else:
            order.tell({DONE: gateway_url(self.port)})

    async def _take_order(self, request: web.BaseRequest) -> web.StreamResponse:
        """`POST /_holdfast/deploy`: deploy again, telling the progress as lines of JSON."""
        given = request.headers.get("Authorization", "")
        if request.method != "POST" or not secrets.compare_digest(given, f"Bearer {self._control_secret}"):
            return web.Response(status=403)
        wish = msgspec.json.decode(await request.read(), type=_Wish)
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[dict[str, str]]()
        self._orders.put(_Order(wish.services, lambda line: _tell(loop, lines, line)))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        while True:
            line = await lines.get()
            await response.write(json.dumps(line).encode() + b"\n")
            if STEP not in line:
                return response

    # Stopping

    def _stop(self) -> None:
        is_drained = self._parts is None or self._parts.stop(can_drain=self._engine is None or self._engine.is_alive())
        if self._engine is not None:
            self._say_last(last_word(self.home, is_written=self._engine.stop(), is_drained=is_drained))
        elif self._parts is not None:
            self._say_last(f"Stopped; the engine at {self._parts.endpoint_url} goes on")
        # Last: as long as anything may run, a later `up` or `down` has to find it.
        self.home.run_file.unlink(missing_ok=True)

    def _say_last(self, word: str) -> None:
        self.report.step(word)
        files.write(self.home.last_word_file, word)


@dataclass(frozen=True)
class _Parts:
    """What stands beside the engine."""

    endpoint_url: str
    gateway: Gateway
    dispatcher: Dispatcher
    ticker: Ticker
    sweeper: Sweeper
    forgetter: Forgetter

    @classmethod
    def started(cls, home: Home, port: int, endpoint_url: str, take_order: Control) -> "_Parts":
        client = clients.factory(endpoint_url)
        gateway = Gateway(port, control={DEPLOY: take_order})
        gateway.start()
        sweeper = Sweeper(client("dynamodb"))
        sweeper.start()
        forgetter = Forgetter(client("logs"))
        forgetter.start()
        return cls(endpoint_url, gateway, Dispatcher(client, home.checkpoints), Ticker(client), sweeper, forgetter)

    def serve(self, deployed: Deployed) -> None:
        """Turn to what stands after a deployment."""
        settings.apply(clients.factory(self.endpoint_url), deployed.profile)
        self.dispatcher.follow(deployed.profile.streams)
        self.ticker.tick(deployed.profile.schedules)
        self.sweeper.watch(deployed.profile.ttl)
        self.gateway.routes = {name: route(url, self.endpoint_url) for name, url in deployed.api_urls.items()}
        self.gateway.websockets = deployed.websockets

    def stop(self, *, can_drain: bool) -> bool:
        """
        Take no more requests, begin nothing new, and then let the functions have what the streams still hold.

        Returns whether they have had all of it.
        """
        self.gateway.stop()
        self.ticker.stop()
        self.sweeper.stop()
        self.forgetter.stop()
        is_drained = can_drain and self.dispatcher.drain(DRAIN_SECONDS_MAX)
        self.dispatcher.stop()
        return is_drained


def last_word(home: Home, *, is_written: bool, is_drained: bool) -> str:
    """Say how a stop has ended, and what to do where it has not ended well."""
    if not is_written:
        return f"Stopped, but the data may not be whole; see {home.engine_log}"
    kept = f"Stopped; the data are kept in {home.path}"
    if is_drained:
        return kept
    return (
        f"{kept}. Functions have not had all that the streams held, and the engine keeps no stream: sweeps find it "
        "after the next start, and ./holdfast doctor at once"
    )


def gateway_url(port: int) -> str:
    return f"http://{processes.LOOPBACK}:{port}"


def _tell(loop: asyncio.AbstractEventLoop, lines: "asyncio.Queue[dict[str, str]]", line: dict[str, str]) -> None:
    loop.call_soon_threadsafe(lines.put_nowait, line)


def stop_leftovers(where: Home, report: Report) -> bool:
    """Stop the engine of a supervisor that was killed; say whether there was one."""
    left = load(where)
    identity = left.engine_identity if left else None
    was_running = identity is not None and processes.is_alive(identity)
    if identity is not None and was_running:
        report.step(
            f"Stopping the engine (process {identity.pid}) whose supervisor was killed; it writes its state now"
        )
        if not engine.end(identity):
            report.step("It did not end by itself and was killed: what was written since its start is lost")
    where.run_file.unlink(missing_ok=True)
    return was_running
