"""
What the command line calls: up, down, status and reset, of the one stack that belongs to a home directory.

There is one supervisor per home, told by a lock that ends with it. `up` in the background starts this module as a
process of its own and follows its log; a second `up` asks the first to deploy again.
"""

import argparse
import http.client
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from holdfast import clock
from stacks import StackError
from stacks.local import engine, files, health, locks, processes
from stacks.local.environment import ensure_engine
from stacks.local.errors import CannotStart, Report
from stacks.local.gateway import CONTROL_PATH
from stacks.local.running import TENANT, Home, Running, ServiceHealth, Status, load
from stacks.local.supervisor import DEPLOY, DONE, FAILED, STEP, Supervisor, gateway_url, stop_leftovers

LINE_END = " | "
"""How the end of a line is written within one line of the log."""
SILENCE_SECONDS_MAX = 120.0
"""How long a stack that starts in the background, or deploys again, may go without a sign of progress."""
DOWN_SECONDS_MAX = engine.STOP_SECONDS_MAX + 30.0
"""The engine's bound, and those of the gateway, the ticker, the dispatcher and the sweeper."""
FOLLOW_SECONDS = 0.05

_in_background: list["subprocess.Popen[bytes]"] = []
"""Stacks that this process has started and will not wait for; kept, because a forgotten child is a warning."""


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
    _in_background.append(child)
    return _require_running(where)


def down(home: Path, report: Report) -> bool:
    """
    Stop the stack, and an engine that outlived its supervisor; say whether there was anything to stop.

    The data stay, and the next `up` has them; where something of them may be missing, the report is told.
    """
    where = Home(home.resolve())
    was_running = False
    pid = where.supervisor_pid()
    identity = processes.identify(pid) if pid is not None else None
    if identity is not None:
        report.step("Stopping Holdfast (its state is being written)")
        was_running = True
        where.last_word_file.unlink(missing_ok=True)
        if not processes.stop(identity, patience_seconds=DOWN_SECONDS_MAX):
            report.step(f"The supervisor did not end within {DOWN_SECONDS_MAX:.0f} s and was killed")
        if word := files.read(where.last_word_file, str):
            report.step(word)
    return stop_leftovers(where, report) or was_running


def status(home: Path) -> Status:
    """Say what runs and what answers, within a few seconds whatever state it is in."""
    where = Home(home.resolve())
    running = load(where) if where.supervisor_pid() is not None else None
    if running is None:
        return Status(
            ready=False, console=None, services={}, tenant=TENANT, token_file=str(where.token_file), engine=None
        )
    with ThreadPoolExecutor(max_workers=max(1, len(running.services))) as asked_together:
        answers = asked_together.map(health.is_healthy, [service.url for service in running.services.values()])
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
    if running.gateway_url != gateway_url(port):
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


def _require_running(where: Home) -> Running:
    running = load(where)
    if running is None:
        raise CannotStart(
            f"Holdfast is starting or stopping just now (see {where.stack_log}).", "Ask again: ./holdfast status"
        )
    return running


@dataclass(frozen=True)
class LogReport:
    """Progress as lines of a log, readable by people and by the process that waits."""

    def step(self, text: str) -> None:
        self.line(STEP, text)

    def line(self, kind: str, text: str) -> None:
        moment = clock.to_text(clock.SystemClock().now())
        sys.stdout.write(f"{moment} {kind} {text.replace(chr(10), LINE_END)}\n")
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
                raise _why_it_ended(where)
            if time.monotonic() - heard_at > SILENCE_SECONDS_MAX:
                raise CannotStart(
                    f"The stack gave no sign for {SILENCE_SECONDS_MAX:.0f} s and was stopped.\n"
                    f"{files.last_lines(where.stack_log)}",
                    f"All of it: {where.stack_log}",
                )
            time.sleep(FOLLOW_SECONDS)


def _why_it_ended(where: Home) -> CannotStart:
    """Tell what the stack itself said it failed by, or else show the end of its log."""
    last = files.last_lines(where.stack_log, 1)
    match last.split(" ", 2):
        case [_, kind, told] if kind == FAILED and LINE_END in told:
            what, _, next_step = told.rpartition(LINE_END)
            return CannotStart(what, next_step)
    return CannotStart(f"The stack ended.\n{files.last_lines(where.stack_log)}", f"All of it: {where.stack_log}")


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
