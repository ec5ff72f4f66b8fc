"""
The supervisor: one process that starts the engine, deploys to it, serves it on stable addresses, and stops it whole.

There is one supervisor per home directory, told by a lock that ends with it. A second `up` asks the first to
deploy again, over the gateway with a secret out of run.json: unlike a signal that has an answer, so the one who
asks sees the progress and the failure.

The order of stopping is the promise: no new requests, then the streams are read to their end, because the engine
keeps no stream record over a restart, then the engine writes its state and ends.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import logging
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec
from aiohttp import web

from holdfast import clock
from stacks import StackError
from stacks.local import clients, engine, files, locks, processes, settings
from stacks.local.deployment import Deploy, Deployed, deploy_services
from stacks.local.dispatcher import Dispatcher
from stacks.local.engine import Engine
from stacks.local.environment import ensure_engine
from stacks.local.errors import CannotStart, Report
from stacks.local.gateway import CONTROL_PATH, Control, Gateway, route
from stacks.local.running import (
    TENANT,
    EngineAddress,
    Home,
    Running,
    ServiceAddress,
    ServiceHealth,
    Status,
    load,
)
from stacks.local.sweeper import Sweeper

SILENCE_SECONDS_MAX = 120.0
"""How long a stack that starts in the background, or deploys again, may go without a sign of progress."""
DRAIN_SECONDS_MAX = 5.0
"""How long a stop waits for functions to take what their streams still hold."""
DOWN_SECONDS_MAX = engine.STOP_SECONDS_MAX + 30.0
"""The engine's bound, and those of the gateway, the dispatcher and the sweeper."""
HEALTH_SECONDS_MAX = 3.0
"""A cold function answers in about one."""
WARM_UP_SECONDS_MAX = 30.0
WATCH_SECONDS = 0.25
"""How soon the death of a part is noticed."""
FOLLOW_SECONDS = 0.05

STEP, DONE, FAILED = "step", "done", "failed"
"""What a line of progress tells whoever waits: the second word of a line in stack.log, a member of an answer's line."""
DEPLOY = "deploy"
"""The one thing that a running supervisor can be asked for over the gateway."""

_log = logging.getLogger(__name__)


# What the command line calls


def up(home: Path, *, services: Sequence[str], port: int, endpoint_url: str | None, report: Report) -> None:
    """
    Run the stack in the foreground until SIGINT or SIGTERM; if it runs already, deploy again what changed.

    Raises:
        StackError: it could not be started or deployed; what had been started is stopped again.
    """
    where = Home(home.resolve())
    with locks.held(where.lock) as is_ours:
        if is_ours:
            Supervisor(where, services, port, endpoint_url, report).run()
            return
    redeploy(where, services, port, report)


def up_detached(home: Path, *, services: Sequence[str], port: int, endpoint_url: str | None, report: Report) -> Running:
    """
    Start the stack in the background, and return when it is ready; if it runs already, deploy again what changed.

    Raises:
        StackError: it could not be started or deployed; the message holds the end of its log.
    """
    where = Home(home.resolve())
    if where.supervisor_pid() is not None:
        return redeploy(where, services, port, report)
    report.step(f"Starting Holdfast in the background (log: {where.stack_log})")
    if endpoint_url is None:
        # Here and not in the background, because this may take longer than anything there.
        ensure_engine(where.path / "engine", report)
    where.stack_log.parent.mkdir(parents=True, exist_ok=True)
    with where.stack_log.open("ab") as log:
        start = log.tell()
        child = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [
                *(sys.executable, "-m", "stacks.local.stack"),
                *("--home", str(where.path), "--port", str(port), "--services", ",".join(services)),
                *(("--endpoint-url", endpoint_url) if endpoint_url else ()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _follow_until_ready(where, child, start, report)
    except BaseException:
        # Whoever gave up waiting, by Ctrl-C too, does not want a stack that appears later.
        child.terminate()
        raise
    return _require_running(where)


def down(home: Path, report: Report) -> bool:
    """
    Stop the stack, and an engine that outlived its supervisor; say whether there was anything to stop.

    The data stay, and the next `up` has them.
    """
    where = Home(home.resolve())
    was_running = False
    pid = where.supervisor_pid()
    identity = processes.identify(pid) if pid is not None else None
    if identity is not None:
        report.step("Stopping Holdfast (its state is being written)")
        was_running = True
        if not processes.stop(identity, patience_seconds=DOWN_SECONDS_MAX):
            report.step(f"The supervisor did not end within {DOWN_SECONDS_MAX:.0f} s and was killed")
    return _stop_leftovers(where, report) or was_running


def status(home: Path) -> Status:
    """Say what runs and what answers, within a few seconds whatever state it is in."""
    where = Home(home.resolve())
    running = load(where) if where.supervisor_pid() is not None else None
    if running is None:
        return Status(
            ready=False, console=None, services={}, tenant=TENANT, token_file=str(where.token_file), engine=None
        )
    with ThreadPoolExecutor(max_workers=max(1, len(running.services))) as asked_together:
        answers = asked_together.map(is_healthy, [service.url for service in running.services.values()])
        services = {
            name: ServiceHealth(url=service.url, healthy=healthy)
            for (name, service), healthy in zip(running.services.items(), answers, strict=True)
        }
    return Status(
        ready=bool(services) and all(service.healthy for service in services.values()),
        console=running.console,
        services=services,
        tenant=running.tenant,
        token_file=running.token_file,
        engine=running.engine,
    )


def reset(home: Path, report: Report) -> None:
    """Stop the stack and forget all its data; what was installed and built stays."""
    down(home, report)
    where = Home(home.resolve())
    report.step(f"Forgetting all data under {where.path}")
    for directory in where.kept_data:
        shutil.rmtree(directory, ignore_errors=True)
    where.token_file.unlink(missing_ok=True)


def redeploy(where: Home, services: Sequence[str], port: int, report: Report) -> Running:
    """
    Ask the running supervisor to deploy again.

    Raises:
        StackError: it is elsewhere than asked for, cannot be reached, or failed to deploy.
    """
    running = _require_running(where)
    if running.gateway_url != _url(port):
        raise CannotStart(
            f"Holdfast already runs at {running.gateway_url} (process {running.pid}), not on port {port}.",
            "Stop it first: ./holdfast down",
        )
    report.step(f"Holdfast already runs at {running.gateway_url} (process {running.pid}); deploying what changed")
    connection = http.client.HTTPConnection(processes.LOOPBACK, port, timeout=SILENCE_SECONDS_MAX)
    try:
        connection.request(
            "POST",
            f"{CONTROL_PATH}{DEPLOY}",
            body=json.dumps({"services": list(services)}),
            headers={"Authorization": f"Bearer {running.control_secret}", "Content-Type": "application/json"},
        )
        _follow_answer(connection.getresponse(), report)
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise CannotStart(
            f"The running stack (process {running.pid}) broke off while deploying: {error or type(error).__name__}",
            f"See {where.stack_log}, then: ./holdfast down && ./holdfast up",
        ) from error
    finally:
        connection.close()
    return _require_running(where)


# The supervisor


class _StopRequested(BaseException):
    """A signal asked for the end. Not an Exception, so that nothing on the way swallows it."""


class _Signals:
    """Turns SIGINT, SIGTERM and SIGHUP into one `_StopRequested`, where that is safe."""

    def __init__(self) -> None:
        self._is_requested = False
        self._deferrals = 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._receive)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self._is_requested = True
        if not self._deferrals:
            raise _StopRequested

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a block finish that would leave something behind if it were cut short."""
        self._deferrals += 1
        try:
            yield
        finally:
            self._deferrals -= 1
        if self._is_requested and not self._deferrals:
            raise _StopRequested

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
    _signals: _Signals = field(default_factory=_Signals)
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
        except _StopRequested:
            self.report.step("Stopping Holdfast (the engine writes its state now)")
        finally:
            self._signals.ignore()
            self._stop()

    # Starting

    def _start(self) -> "_Parts":
        self.report.step(f"Starting Holdfast in {self.home.path}")
        _stop_leftovers(self.home, self.report)
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
        deployed = self.deploy(self.home.path, parts.endpoint_url, services, report)
        parts.serve(deployed)
        files.write_bytes(self.home.token_file, f"{deployed.token}\n".encode())
        addresses = {name: ServiceAddress(url=f"{parts.gateway.url}/{name}") for name in deployed.api_urls}
        report.step("Waiting for the services to answer")
        _warm_up([address.url for address in addresses.values()])
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
                gateway_url=_url(self.port),
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
            if self._engine is not None and not self._engine.is_alive():
                raise CannotStart(
                    f"The local engine died; what was written since the last stop is lost.\n"
                    f"{files.last_lines(self.home.engine_log)}",
                    "Start again: ./holdfast up",
                )
            if not parts.dispatcher.is_alive():
                raise CannotStart(
                    "A stream dispatcher met a bug and died.", f"See {self.home.stack_log}, then: ./holdfast up"
                )
            with contextlib.suppress(queue.Empty):
                self._carry_out(parts, self._orders.get(timeout=WATCH_SECONDS))

    def _carry_out(self, parts: "_Parts", order: "_Order") -> None:
        try:
            self._deploy(parts, order.services, order)
        except StackError as error:
            order.tell({FAILED: error.what, "next_step": error.next_step})
        except _StopRequested:
            order.tell({FAILED: "Holdfast was stopped while deploying.", "next_step": "Start it again: ./holdfast up"})
            raise
        except Exception as error:  # noqa: BLE001 - logged whole, and told to whoever asked; the stack goes on with what it had
            _log.exception("Deploying again failed")
            order.tell({FAILED: f"{type(error).__name__}: {error}", "next_step": f"See {self.home.stack_log}"})
        else:
            order.tell({DONE: _url(self.port)})

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
        if self._parts is not None:
            self._parts.stop(can_drain=self._engine is None or self._engine.is_alive())
        if self._engine is not None and not self._engine.stop():
            self.report.step(f"The engine's state may not be whole; see {self.home.engine_log}")
        # Last: as long as anything may run, a later `up` or `down` has to find it.
        self.home.run_file.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Parts:
    """What stands beside the engine."""

    endpoint_url: str
    gateway: Gateway
    dispatcher: Dispatcher
    sweeper: Sweeper

    @classmethod
    def started(cls, home: Home, port: int, endpoint_url: str, take_order: Control) -> "_Parts":
        client = clients.factory(endpoint_url)
        gateway = Gateway(port, control={DEPLOY: take_order})
        gateway.start()
        sweeper = Sweeper(client("dynamodb"))
        sweeper.start()
        return cls(endpoint_url, gateway, Dispatcher(client, home.checkpoints), sweeper)

    def serve(self, deployed: Deployed) -> None:
        """Turn to what stands after a deployment."""
        settings.apply(clients.factory(self.endpoint_url)("dynamodb"), deployed.profile)
        self.dispatcher.follow(deployed.profile.streams)
        self.sweeper.watch(deployed.profile.ttl)
        self.gateway.routes = {name: route(url, self.endpoint_url) for name, url in deployed.api_urls.items()}

    def stop(self, *, can_drain: bool) -> None:
        """Take no more requests, delete no more rows, and then let the functions have what the streams still hold."""
        self.gateway.stop()
        self.sweeper.stop()
        if can_drain:
            self.dispatcher.drain(DRAIN_SECONDS_MAX)
        self.dispatcher.stop()


# What they share


def _url(port: int) -> str:
    return f"http://{processes.LOOPBACK}:{port}"


def _tell(loop: asyncio.AbstractEventLoop, lines: "asyncio.Queue[dict[str, str]]", line: dict[str, str]) -> None:
    loop.call_soon_threadsafe(lines.put_nowait, line)


def _stop_leftovers(where: Home, report: Report) -> bool:
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


def _require_running(where: Home) -> Running:
    running = load(where)
    if running is None:
        raise CannotStart(
            f"Holdfast is starting or stopping just now (see {where.stack_log}).", "Ask again: ./holdfast status"
        )
    return running


def _warm_up(urls: Sequence[str]) -> None:
    """Have every function started once, so that the first real request does not wait for that; tell nothing."""
    if urls:
        with ThreadPoolExecutor(max_workers=len(urls)) as asked_together:
            list(asked_together.map(lambda url: is_healthy(url, WARM_UP_SECONDS_MAX), urls))


def is_healthy(service_url: str, timeout_seconds: float = HEALTH_SECONDS_MAX) -> bool:
    """Ask a service for its description, which takes no token, and say whether it answered."""
    # No proxy may stand between us and our own loopback address, whatever the developer's environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{service_url}/openapi.json", timeout=timeout_seconds) as answer:
            return bool(answer.status == http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):
        return False


# The background


@dataclass(frozen=True)
class LogReport:
    """Progress as lines of a log, readable by people and by the process that waits."""

    def step(self, text: str) -> None:
        self.line(STEP, text)

    def line(self, kind: str, text: str) -> None:
        moment = clock.to_text(clock.SystemClock().now())
        sys.stdout.write(f"{moment} {kind} {text.replace(chr(10), ' | ')}\n")
        sys.stdout.flush()


def _follow_until_ready(where: Home, child: "subprocess.Popen[bytes]", start: int, report: Report) -> None:
    heard_at = time.monotonic()
    with where.stack_log.open(errors="replace") as log:
        log.seek(start)
        while True:
            has_ended = child.poll() is not None
            running = load(where)
            for text in _steps(log.read()):
                heard_at = time.monotonic()
                report.step(text)
            # A child that ended well found another supervisor and asked it to deploy.
            if child.returncode == 0 or (running is not None and running.pid == child.pid and running.services):
                return
            if has_ended:
                raise CannotStart(
                    f"The stack ended.\n{files.last_lines(where.stack_log)}", f"All of it: {where.stack_log}"
                )
            if time.monotonic() - heard_at > SILENCE_SECONDS_MAX:
                raise CannotStart(
                    f"The stack gave no sign for {SILENCE_SECONDS_MAX:.0f} s and was stopped.\n"
                    f"{files.last_lines(where.stack_log)}",
                    f"All of it: {where.stack_log}",
                )
            time.sleep(FOLLOW_SECONDS)


def _steps(text: str) -> Iterator[str]:
    for line in text.splitlines():
        match line.split(" ", 2):
            case [_, kind, told] if kind == STEP:
                yield told


def _follow_answer(answer: http.client.HTTPResponse, report: Report) -> None:
    if answer.status != http.HTTPStatus.OK:
        raise CannotStart(f"The running stack refused to deploy ({answer.status}).", "./holdfast down && ./holdfast up")
    for raw in answer:
        line = msgspec.json.decode(raw, type=dict[str, str])
        if FAILED in line:
            raise CannotStart(line[FAILED], line["next_step"])
        if DONE in line:
            return
        report.step(line[STEP])
    raise http.client.IncompleteRead(b"")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stack as a process of its own, its progress as lines of a log: what `up_detached` starts."""
    parser = argparse.ArgumentParser(prog="python -m stacks.local.stack", description=main.__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--services", type=lambda text: text.split(","), required=True)
    parser.add_argument("--endpoint-url")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return run_logged(
        lambda report: up(
            given.home, services=given.services, port=given.port, endpoint_url=given.endpoint_url, report=report
        )
    )


def run_logged(run: Callable[["LogReport"], None]) -> int:
    """Run the stack with its progress and its failure told in log lines; give the exit code."""
    report = LogReport()
    try:
        run(report)
    except StackError as error:
        report.line(FAILED, str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
