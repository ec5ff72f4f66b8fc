"""
`./holdfast test`: the command that tells the truth.

Static checks and the tests that need no stack run while one shared local stack starts in the
background, in a home and on ports of its own; then the tests that need it. What is counted is read from
the JUnit files that pytest writes, and whatever ends otherwise than by passing counts as failed.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated

import typer

from holdfast_cli.failures import ExitCode, Failure
from holdfast_cli.places import ROOT, home
from holdfast_cli.stacking import told_stack_errors
from holdfast_cli.terminal import JsonFlag, print_json, say
from holdfast_client.local import HOME_VARIABLE

TEST_HOME_VARIABLE = "HOLDFAST_TEST_HOME"
"""Where tests that need the stack find it."""
SOAK_VARIABLE = "HOLDFAST_SOAK"

ALONE = ("unit", "property", "faults")
"""The kinds of tests that need no running stack."""
ON_STACK = ("local", "browser")

STATIC: Mapping[str, Sequence[str]] = {
    "ruff check": ("-m", "ruff", "check", "--quiet"),
    "ruff format": ("-m", "ruff", "format", "--check", "--quiet"),
    "mypy": ("-m", "mypy"),
    "import-linter": ("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"),
}
"""What each check is run with, after this Python. cfn-lint is a unit test of the stacks."""

ONE_BY_ONE: Sequence[str] = ("-n", "2", "--dist", "worksteal")
"""How tests are shared among workers."""
BY_FILE: Sequence[str] = ("-n", "2", "--dist", "loadfile")
"""On the stack a file's tests tell one tenant's story, so they stay together."""
STATIC_SECONDS_MAX = 300.0
PYTEST_SECONDS_MAX = 1_800.0
PYTEST_SOAK_SECONDS_MAX = 6 * 3_600.0
SOAK_TEST_SECONDS_MAX = 3_600
READY_SECONDS_MAX = 240.0
"""A first start installs the engine."""
STOP_SECONDS_MAX = 30.0
POLL_SECONDS = 0.2
PORTS = range(20_000, 30_000)
"""Below the ports that systems hand out by themselves."""
PORT_TRIES_MAX = 50
LOG_TAIL_LINES = 25
NO_TESTS_COLLECTED = 5
"""pytest's exit code for it."""


def register(app: typer.Typer) -> None:
    app.command("test")(run_tests)


def run_tests(
    paths: Annotated[list[str] | None, typer.Argument(help="Only these tests (no static checks then).")] = None,
    *,
    keyword: Annotated[str | None, typer.Option("-k", metavar="EXPRESSION", help="As pytest's -k.")] = None,
    soak: Annotated[str | None, typer.Option(metavar="SERVICE", help="With the full counts of its spec.")] = None,
    json: JsonFlag = False,
) -> int:
    """Run every check and test that needs no network, and say honestly how it went."""
    selection = Selection.of(paths or [], keyword, soak)
    counts = run(selection)
    if json:
        print_json({kind: count.as_json() for kind, count in counts.items()})
    else:
        _show(counts)
    return ExitCode.FAILED if _is_failed(counts) else ExitCode.OK


@dataclass
class Count:
    """How the checks of one kind went."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def fail(self, what: str) -> None:
        self.failed += 1
        self.failures.append(what)

    def as_json(self) -> dict[str, object]:
        return {
            "passed": self.passed,
            "failed": self.failed,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 1),
            "failures": self.failures,
        }


@dataclass(frozen=True)
class Selection:
    """What to run."""

    is_everything: bool
    alone: tuple[str, ...]
    on_stack: tuple[str, ...]
    keyword: str | None
    soak: str | None

    @classmethod
    def of(cls, paths: Sequence[str], keyword: str | None, soak: str | None) -> "Selection":
        """
        Sort the paths by whether they need the stack; a folder above both is taken apart.

        Raises:
            Failure: a path does not exist.
        """
        missing = [path for path in paths if not (ROOT / path.split("::")[0]).exists()]
        if missing:
            raise Failure("no_tests", f"There is no {', '.join(missing)}.", exit_code=ExitCode.USAGE)
        return cls(not paths, _within(paths, ALONE), _within(paths, ON_STACK), keyword, soak)


def _within(paths: Sequence[str], kinds: Sequence[str]) -> tuple[str, ...]:
    folders = [Path("tests", kind) for kind in kinds if (ROOT / "tests" / kind).is_dir()]
    chosen: dict[str, None] = {}
    for path in paths or ["tests"]:
        relative = Path(os.path.relpath(ROOT / path, ROOT))
        for folder in folders:
            if relative == folder or folder in relative.parents:
                chosen[str(relative)] = None
            elif relative in (folder, *folder.parents):
                chosen[str(folder)] = None
    return tuple(chosen)


def run(selection: Selection) -> dict[str, Count]:
    """Run what is selected; the stack starts first and is waited for last."""
    counts: dict[str, Count] = {}
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-test-") as results,
        _stack(needed=bool(selection.on_stack)) as stack,
    ):
        if selection.is_everything:
            counts["static"] = _run_static()
        if selection.alone:
            _run_pytest(selection.alone, selection, Path(results, "alone.xml"), {}, counts, among=ONE_BY_ONE)
        if stack is not None:
            _run_on_stack(stack, selection, Path(results, "stack.xml"), counts)
    return counts


def _run_static() -> Count:
    count = Count()
    for name, arguments in STATIC.items():
        started = time.monotonic()
        say(f"── {name}")
        if _call([sys.executable, *arguments], {}, STATIC_SECONDS_MAX) == 0:
            count.passed += 1
        else:
            count.fail(name)
        count.seconds += time.monotonic() - started
    return count


def _run_on_stack(stack: "_Stack", selection: Selection, report: Path, counts: dict[str, Count]) -> None:
    started = time.monotonic()
    say("── waiting for the local stack")
    if stack.wait_until_ready():
        say(f"── the stack is ready (waited {time.monotonic() - started:.1f} s more)")
        variables = {TEST_HOME_VARIABLE: str(stack.home)}
        _run_pytest(selection.on_stack, selection, report, variables, counts, among=BY_FILE)
    else:
        counts.setdefault("local", Count()).fail("the local stack did not start")
        say(stack.last_words())


def _run_pytest(
    paths: Sequence[str],
    selection: Selection,
    report: Path,
    variables: Mapping[str, str],
    counts: dict[str, Count],
    *,
    among: Sequence[str],
) -> None:
    say(f"── pytest {' '.join(paths)}")
    options = ["-q", *among, f"--junitxml={report}", "-o", "junit_family=xunit2"]
    if selection.keyword is not None:
        options += ["-k", selection.keyword]
    if selection.soak is None:
        options += ["-m", "not soak"]
        seconds_max = PYTEST_SECONDS_MAX
    else:
        options += ["-o", f"timeout={SOAK_TEST_SECONDS_MAX}"]
        variables = {**variables, SOAK_VARIABLE: selection.soak}
        seconds_max = PYTEST_SOAK_SECONDS_MAX
    status = _call([sys.executable, "-m", "pytest", *options, *paths], variables, seconds_max)
    failed_before = sum(count.failed for count in counts.values())
    seen = read_report(report, counts)
    has_told = sum(count.failed for count in counts.values()) > failed_before
    if (status not in {0, NO_TESTS_COLLECTED} and not has_told) or (status == 0 and not seen):
        # An interrupted or broken run, or a crash before the report: its silence is no success.
        counts.setdefault(Path(paths[0]).parts[1], Count()).fail(f"pytest itself ended with {status}")


def read_report(report: Path, counts: dict[str, Count]) -> int:
    """Add up a JUnit file by kind (the folder under tests/), and give the number of tests in it."""
    if not report.exists():
        return 0
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314  pytest wrote it a moment ago
    for case in cases:
        parts = case.get("classname", "").split(".")
        kind = parts[1] if len(parts) > 1 and parts[0] == "tests" else "unit"
        count = counts.setdefault(kind, Count())
        count.seconds += float(case.get("time", "0"))
        if case.find("failure") is not None or case.find("error") is not None:
            count.fail(f"{'/'.join(parts)}::{case.get('name')}")
        elif case.find("skipped") is not None:
            count.skipped += 1
        else:
            count.passed += 1
    return len(cases)


def _call(command: Sequence[str], variables: Mapping[str, str], seconds_max: float) -> int:
    """Run a command at the root, its output on our stderr; a command that takes too long has failed."""
    try:
        return subprocess.run(  # noqa: S603
            command, cwd=ROOT, env={**os.environ, **variables}, stdout=sys.stderr, timeout=seconds_max, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        say(f"   gave up after {seconds_max:.0f} s")
        return -signal.SIGKILL


@dataclass(frozen=True)
class _Stack:
    """The shared local stack: this command line itself, as a child process in a home of its own."""

    home: Path
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_ready(self) -> bool:
        from stacks.local import stack  # noqa: PLC0415

        ends_at = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < ends_at and self.process.poll() is None:
            if stack.status(self.home).ready:
                return True
            time.sleep(POLL_SECONDS)
        return False

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join(["The local stack did not get ready. It said:", *lines, f"All of it: {self.log}"])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_SECONDS_MAX)


@contextmanager
def _stack(*, needed: bool) -> Iterator[_Stack | None]:
    if not needed:
        yield None
        return
    folder = home() / "test"
    with _only_one(folder):
        stack = _start(folder)
        try:
            yield stack
        finally:
            stack.stop()


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    from stacks.local import locks  # noqa: PLC0415

    lock = folder / "test.lock"
    with locks.held(lock) as is_ours:
        if not is_ours:
            raise Failure(
                "test_running",
                f"Another ./holdfast test runs (process {locks.owner(lock)}).",
                exit_code=ExitCode.REFUSED,
            )
        yield


def _start(folder: Path) -> _Stack:
    from stacks.local import stack  # noqa: PLC0415
    from stacks.local.running import Home  # noqa: PLC0415

    Home(folder).share_installed(Home(home()))
    with told_stack_errors():
        # Whatever a killed run left behind goes first: its processes, then its data.
        stack.reset(folder, _Silence())
    log = folder / "test-stack.log"
    command = [sys.executable, "-m", "holdfast_cli", "up", "--port", str(_free_ports())]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=ROOT,
            env={**os.environ, HOME_VARIABLE: str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us; we stop the stack when we are done with it.
            start_new_session=True,
        )
    return _Stack(folder, process, log)


class _Silence:
    def step(self, text: str) -> None:
        """Nobody is waiting to hear it."""


def _free_ports() -> int:
    """Find a port that is free together with the one after it."""
    for _ in range(PORT_TRIES_MAX):
        port = random.choice(PORTS)  # noqa: S311  not a secret
        if _is_free(port) and _is_free(port + 1):
            return port
    raise Failure("no_port", f"No two neighbouring ports are free among {PORT_TRIES_MAX} tried.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _is_failed(counts: Mapping[str, Count]) -> bool:
    """Nothing having run is no success either."""
    return any(count.failed for count in counts.values()) or not any(count.passed for count in counts.values())


def _show(counts: Mapping[str, Count], output: IO[str] = sys.stdout) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("kind", "passed", "failed", "skipped", "seconds of work")
    for kind in ("static", *ALONE, *ON_STACK):
        if kind in counts:
            count = counts[kind]
            table.add_row(kind, str(count.passed), str(count.failed), str(count.skipped), f"{count.seconds:.1f}")
    Console(file=output).print(table)
    for failure in (failure for count in counts.values() for failure in count.failures):
        output.write(f"failed: {failure}\n")
    passed, failed, skipped = (
        sum(getattr(count, name) for count in counts.values()) for name in ("passed", "failed", "skipped")
    )
    output.write(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "") + "\n")
