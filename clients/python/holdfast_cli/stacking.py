"""The way from a command to the stacks: where to deploy, and what their errors are to the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast_cli.failures import ExitCode, Failure
from holdfast_cli.places import home
from holdfast_client.errors import NotRunning

if TYPE_CHECKING:
    from stacks.local.running import Running
    from stacks.target import Target

AwsFlag = Annotated[
    bool,
    typer.Option("--aws", help="The AWS account of the current credentials, instead of the running local engine."),
]
OnlyOption = Annotated[
    str | None, typer.Option("--only", metavar="A,B", help="Only these services; all of them without it.")
]


@contextmanager
def told_stack_errors() -> Iterator[None]:
    """Tell what the stacks raise as the end of a command."""
    from stacks import Refused, StackError  # noqa: PLC0415  only commands that deploy pay for boto3

    try:
        yield
    except Refused as error:
        raise Failure("refused", error.what, next_command=error.next_step, exit_code=ExitCode.REFUSED) from error
    except StackError as error:
        raise Failure("stack_failed", error.what, next_command=error.next_step) from error


def services_of(only: str | None) -> list[str]:
    """
    Read `--only audit,flags`; without it, every service there is.

    Raises:
        Failure: one of them does not exist.
    """
    from stacks.services import SERVICES  # noqa: PLC0415

    if only is None:
        return list(SERVICES)
    named = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in named if name not in SERVICES]
    if unknown or not named:
        raise Failure(
            "unknown_service",
            f"There is no service {', '.join(unknown) or repr(only)}; there are: {', '.join(SERVICES)}.",
            exit_code=ExitCode.USAGE,
        )
    return named


def running_in(folder: Path) -> "Running | None":
    """Read what the local stack in *folder* says of itself; None if none runs, whatever one has left there."""
    from stacks.local.running import Home, load  # noqa: PLC0415

    where = Home(folder)
    return load(where) if where.supervisor_pid() is not None else None


def target(*, aws: bool) -> "Target":
    """
    Say where to deploy: the running local engine, or with *aws* the account of the current credentials.

    The account has to be asked for by name: guessing one is how accidents happen.

    Raises:
        NotRunning: no local stack runs.
    """
    import boto3  # noqa: PLC0415

    from stacks.target import Target  # noqa: PLC0415

    if aws:
        return Target(session=boto3.Session(), endpoint_url=None, is_local=False)
    from stacks.local.engine import ACCESS_KEY, SECRET_KEY  # noqa: PLC0415

    running = running_in(home())
    if running is None:
        raise NotRunning("no_local_stack", f"No local stack runs in {home()}. For AWS, say --aws.")
    engine = running.engine
    session = boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=engine.region)
    return Target(session=session, endpoint_url=engine.endpoint_url, is_local=True)
