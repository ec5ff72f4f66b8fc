"""`./holdfast audit bench`: every figure of the audit trail, measured here and now, beside its peers."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import msgspec
import typer

from holdfast_cli.failures import ExitCode, Failure
from holdfast_cli.places import ROOT, home
from holdfast_cli.terminal import JsonFlag, print_json, say
from holdfast_client.local import HOME_VARIABLE, find_local_stack

BENCH: Final = ROOT / "tests" / "bench" / "audit"
SECONDS_MAX: Final = 3 * 3_600
"""For the whole of it; it takes a good half hour on two cores."""


def bench(
    *,
    small: Annotated[bool, typer.Option("--small", help="Only see that it works, in a minute.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep audit.json and audit.svg here; without it, nothing.")
    ] = None,
    json: JsonFlag = False,
) -> int:
    """
    Measure the audit trail beside its peers on the local deployment, and compare every answer with a plain fold.

    Exit 1 if an answer is wrong. Figures below their targets are told and fail nothing: machines differ.
    """
    _check_repository()
    find_local_stack(home())
    with TemporaryDirectory() as folder:
        kept = out.resolve() if out else Path(folder)
        command = [sys.executable, "-m", "tests.bench", "audit", "--out", str(kept), *(["--small"] if small else [])]
        _run(command)
        result = msgspec.json.decode((kept / "audit.json").read_bytes())
    _tell(result, out, as_json=json)
    return ExitCode.OK


def _run(command: list[str]) -> None:
    """Run the bench in a process of its own; it tells its progress on stderr, and its numbers are read from a file."""
    variables = {**os.environ, HOME_VARIABLE: str(home())}
    try:
        done = subprocess.run(  # noqa: S603 - our own module, by our own interpreter
            command, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, timeout=SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Failure("bench_too_slow", f"The bench was ended after {SECONDS_MAX / 3_600:.0f} hours.") from error
    if done.returncode:
        raise Failure("bench_failed", "The bench did not come to its end; what it said stands above.")


def _check_repository() -> None:
    """
    Refuse to run where the bench is not.

    Raises:
        Failure: this command was installed by itself, and its peers and fixtures were not.
    """
    if not BENCH.is_dir():
        raise Failure(
            "not_a_repository",
            "The bench belongs to the repository of Holdfast, and this command does not run from a clone of it.",
            next_command="git clone the repository, then there: ./holdfast audit bench",
            exit_code=ExitCode.REFUSED,
        )


def _tell(result: dict[str, Any], out: Path | None, *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for figure in result["results"]["figures"]:
        say(f"  {_SIGNS[figure.get('is_met')]} {figure['name']:<52} {_value_of(figure)}")
    if result["results"]["is_small"]:
        say("These are the small sizes: they show that the bench works, and nothing else.")
    if out:
        say(f"Kept: {out / 'audit.json'} and {out / 'audit.svg'}")


_SIGNS: Final = {True: "met   ", False: "missed", None: "      "}


def _value_of(figure: dict[str, Any]) -> str:
    told = f"{figure['value']:,.6g} {figure['unit']}"
    if "ratio" in figure:
        told += f", {figure['ratio']:,.3g} times {figure['peer']}"
    if "target" in figure:
        told += f" (target: {'at most ' if figure.get('at_most') else ''}{figure['target']:,.6g})"
    return told
