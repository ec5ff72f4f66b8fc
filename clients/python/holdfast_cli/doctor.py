"""`./holdfast doctor`: look at everything that has to be right, and say how to put right what is not."""

import base64
import binascii
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import typer

from holdfast_cli.failures import ExitCode
from holdfast_cli.findings import Finding, Verdict
from holdfast_cli.places import ROOT, home
from holdfast_cli.repairing import repairs
from holdfast_cli.stack import PORT
from holdfast_cli.stacking import AwsFlag, running_in, target
from holdfast_cli.terminal import JsonFlag, console, print_json, progress_of

if TYPE_CHECKING:
    from stacks.local.running import Running

PYTHON_MIN = (3, 11)
DISK_FREE_BYTES_MIN = 1_000_000_000
CLOCK_SKEW_SECONDS_MAX = 60
"""A clock further off than this may not append (503 `clock_skew`)."""
ASK_TIMEOUT_SECONDS = 5.0


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(*, aws: AwsFlag = False, json: JsonFlag = False) -> int:
    """
    Check the machine and the running stack, and have its logs take in what they missed.

    Every finding that is not ok names its fix. With --aws it is the logs there that are looked after.
    """
    findings = list(_logs(aws=True)) if aws else list(examine(home()))
    failed = [finding for finding in findings if finding.verdict == "failed"]
    if json:
        print_json({"ok": not failed, "findings": [msgspec.to_builtins(finding) for finding in findings]})
    else:
        _show(findings)
    return ExitCode.FAILED if failed else ExitCode.OK


def examine(folder: Path) -> Iterator[Finding]:
    """Look at one thing after the other; what rests on a running stack is left out where none runs."""
    run = running_in(folder)
    yield _python()
    yield _environment(Path(sys.prefix), ROOT / ".venv")
    yield _engine_environment(folder)
    yield from _ports(run)
    yield _disk(folder)
    if run is None:
        yield Finding("stack", "warning", f"No local stack runs in {folder}.", "./holdfast up --detach")
        return
    for check in (_clock, _services, _token):
        yield from check(run)
    yield from _logs(aws=False)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON_MIN:
        return Finding("python", "failed", f"This is Python {version}.", "install Python 3.11 or newer")
    return Finding("python", "ok", f"Python {version}")


def _environment(used: Path, made: Path) -> Finding:
    if used.resolve() != made.resolve():
        return Finding(
            "environment", "warning", f"This runs in {used}, and not in the clone's {made.name}.", "call ./holdfast"
        )
    return Finding("environment", "ok", str(used))


def _engine_environment(folder: Path) -> Finding:
    if not (folder / "engine" / "bin" / "python").exists():
        return Finding(
            "engine", "warning", "The local engine is not installed yet.", "./holdfast up --detach (installs it)"
        )
    return Finding("engine", "ok", str(folder / "engine"))


def _ports(run: "Running | None") -> Iterator[Finding]:
    from stacks.local import processes  # noqa: PLC0415

    gateway = PORT if run is None else urlsplit(run.gateway_url).port or PORT
    for port, whose in ((gateway, "gateway"), (gateway + 1, "engine")):
        check, is_held = f"port {port}", processes.is_listening(port)
        if run is not None and is_held:
            yield Finding(check, "ok", f"the running {whose}: {processes.describe_holder(port)}")
        elif run is not None:
            yield Finding(check, "failed", f"The {whose} does not listen.", "./holdfast down && ./holdfast up --detach")
        elif is_held:
            holder = processes.describe_holder(port)
            yield Finding(check, "warning", f"Held by {holder}.", "end it, or: ./holdfast up --port 4700")
        else:
            yield Finding(check, "ok", f"free, for the {whose}")


def _disk(folder: Path) -> Finding:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / 1e9:.1f} GB free at {existing}"
    if free < DISK_FREE_BYTES_MIN:
        return Finding("disk", "failed", f"Only {detail}.", "free 1 GB, or ./holdfast reset to drop local data")
    return Finding("disk", "ok", detail)


def _clock(run: "Running") -> Iterator[Finding]:
    """Compare with the `Date` of whoever stores: that is the clock which appends are held against."""
    answer = _ask(f"{run.gateway_url}/audit/openapi.json")
    if answer is None or "date" not in answer.headers:
        return
    skew = abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time())
    if skew > CLOCK_SKEW_SECONDS_MAX:
        yield Finding("clock", "failed", f"The clock is {skew:.0f} s off the stack's.", "set the clock (timedatectl)")
    else:
        yield Finding("clock", "ok", f"within {max(1.0, skew):.0f} s of the stack's")


def _services(run: "Running") -> Iterator[Finding]:
    for name, service in run.services.items():
        answer = _ask(f"{service.url}/openapi.json")
        if answer is not None and answer.is_success:
            yield Finding(f"service {name}", "ok", service.url)
        else:
            said = "does not answer" if answer is None else f"answers {answer.status_code}"
            yield Finding(f"service {name}", "failed", f"{service.url} {said}.", f"./holdfast logs {name}")


def _token(run: "Running") -> Iterator[Finding]:
    path = Path(run.token_file)
    remake = "./holdfast down && ./holdfast up --detach (makes a fresh one)"
    try:
        token = path.read_text().strip()
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        yield Finding("token", "failed", f"{path} cannot be read: {error.strerror}.", remake)
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and os.name == "posix":
        yield Finding("token", "failed", f"Others may read {path} (mode {mode:o}).", f"chmod 600 {path}")
        return
    seconds_left = _expiry(token) - time.time()
    if seconds_left <= 0:
        yield Finding("token", "failed", f"The token in {path} has expired.", remake)
    elif refusal := _refusal(run, token):
        yield Finding("token", "failed", f"The token in {path} is refused: {refusal}.", remake)
    else:
        yield Finding("token", "ok", f"accepted, and good for {seconds_left / 3600:.1f} h")


def _expiry(token: str) -> float:
    """Read `exp` without verifying anything: whether it is accepted, the service is asked."""
    try:
        body = token.split(".")[1]
        claims: Any = msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error, msgspec.DecodeError):
        return 0.0


def _refusal(run: "Running", token: str) -> str | None:
    from holdfast_client import Budget, Denied, Holdfast, HoldfastError, NotFound  # noqa: PLC0415

    addresses = {name: service.url for name, service in run.services.items()}
    once = Budget(attempts_max=1)
    with Holdfast(
        run.gateway_url, token, services=addresses, timeout_seconds=ASK_TIMEOUT_SECONDS, budget=once
    ) as holdfast:
        try:
            holdfast.audit.page("doctor/asks", limit=1)
        except NotFound:
            return None
        except Denied as error:
            return error.detail
        except HoldfastError as error:
            return f"nobody can tell, since {error.detail}"
    return None


def _logs(*, aws: bool) -> Iterator[Finding]:
    from stacks.services import SERVICES  # noqa: PLC0415

    with progress_of(None, "commits") as show:
        yield from repairs(target(aws=aws), list(SERVICES), show)


def _ask(url: str) -> Any:
    import httpx  # noqa: PLC0415

    try:
        return httpx.get(url, timeout=ASK_TIMEOUT_SECONDS, trust_env=False)
    except httpx.HTTPError:
        return None


_MARK: dict[Verdict, str] = {"ok": "[green]ok[/]", "warning": "[yellow]note[/]", "failed": "[red]failed[/]"}


def _show(findings: list[Finding]) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("check", "", "what was found", "what to do")
    for finding in findings:
        table.add_row(finding.check, _MARK[finding.verdict], Text(finding.detail), Text(finding.fix or ""))
    console().print(table)
