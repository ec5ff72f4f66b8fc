"""The way from a command to the stacks: where to deploy, and what their errors are to the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from holdfast_cli.failures import ExitCode, Failure
from holdfast_cli.places import home
from holdfast_client.errors import NotRunning

if TYPE_CHECKING:
    from stacks.target import Target

AwsFlag = Annotated[
    bool,
    typer.Option("--aws", help="The AWS account of the current credentials, instead of the running local engine."),
]
OnlyOption = Annotated[
    str | None, typer.Option("--only", metavar="A,B", help="Only these services; all of them without it.")
]

ENGINE_KEY = "test"
"""Access key and secret of the engine's root: it listens on loopback only, and guards nothing of value."""


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


class EngineAddress(msgspec.Struct, frozen=True):
    """Where the running engine answers, as `run.json` says."""

    endpoint_url: str
    region: str


class _Run(msgspec.Struct, frozen=True):
    engine: EngineAddress


def engine_address(folder: Path) -> EngineAddress:
    """
    Read where the engine of the local stack in *folder* answers.

    Raises:
        NotRunning: nothing runs there.
    """
    try:
        return msgspec.json.decode((folder / "run.json").read_bytes(), type=_Run).engine
    except (OSError, msgspec.MsgspecError) as error:
        raise NotRunning("no_local_stack", f"No local stack runs in {folder}. For AWS, say --aws.") from error


def target(*, aws: bool) -> "Target":
    """
    Say where to deploy: the running local engine, or with *aws* the account of the current credentials.

    The account has to be asked for by name: guessing one is how accidents happen.
    """
    import boto3  # noqa: PLC0415

    from stacks.target import Target  # noqa: PLC0415

    if aws:
        return Target(session=boto3.Session(), endpoint_url=None, is_local=False)
    engine = engine_address(home())
    session = boto3.Session(aws_access_key_id=ENGINE_KEY, aws_secret_access_key=ENGINE_KEY, region_name=engine.region)
    return Target(session=session, endpoint_url=engine.endpoint_url, is_local=True)
