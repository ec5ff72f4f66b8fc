"""The command tree, and the one place where an ending becomes an exit code."""

import os
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import Abort, TyperException

from holdfast_cli import audit, demo, deploying, doctor, stack, testing, tokens
from holdfast_cli.failures import ExitCode, Failure, failure_of
from holdfast_cli.terminal import show_failure
from holdfast_client.errors import HoldfastError

app = typer.Typer(
    name="./holdfast",
    help="Ten reliability backends in your own AWS account, and all of it on your laptop.",
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 refused by a guard, 4 remote error, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for noun in (stack, doctor, testing, deploying):
    noun.register(app)
app.add_typer(tokens.app, name="token")
app.add_typer(audit.app, name="audit")
app.add_typer(demo.app, name="demo")


def main(arguments: Sequence[str]) -> int:
    """Run one command, and tell every expected ending in words (or in JSON, where JSON was asked for)."""
    as_json = "--json" in arguments
    try:
        return int(app(args=list(arguments), prog_name="./holdfast", standalone_mode=False) or ExitCode.OK)
    except Failure as failure:
        ending = failure
    except HoldfastError as error:
        ending = failure_of(error)
    except TyperException as error:
        ending = Failure("usage", error.format_message(), next_command=_help_for(error), exit_code=ExitCode.USAGE)
    except Abort:
        ending = Failure("not_confirmed", "Not confirmed; nothing was changed.", exit_code=ExitCode.REFUSED)
    except BrokenPipeError:
        # Whoever read our output has seen enough; without this, Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    show_failure(ending, as_json=as_json)
    return ending.exit_code


def _help_for(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else './holdfast'} --help"
