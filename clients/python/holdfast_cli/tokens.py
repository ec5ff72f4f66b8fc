"""`./holdfast token`: create and revoke."""

import re
from typing import Annotated

import typer

from holdfast_cli.stacking import AwsFlag, target, told_stack_errors
from holdfast_cli.terminal import JsonFlag, print_json, say

app = typer.Typer(help="Tokens: who may do what, for which tenant, until when.")

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TTL = re.compile(r"([1-9][0-9]{0,8})([smhd])")


@app.command()
def create(
    *,
    tenant: Annotated[str, typer.Option(help="The tenant that the token speaks for.")],
    scopes: Annotated[str, typer.Option(metavar="A,B", help="What it allows, such as audit:append,audit:read.")],
    ttl: Annotated[str, typer.Option(help="How long it is good for: 90s, 30m, 1h, 7d.")] = "1h",
    subject: Annotated[str, typer.Option(help="Who holds it; recorded as the actor of what is done with it.")] = "cli",
    aws: AwsFlag = False,
    json: JsonFlag = False,
) -> None:
    """Make a token and print it on stdout."""
    names = [name.strip() for name in scopes.split(",") if name.strip()]
    if not names:
        raise typer.BadParameter("name at least one scope", param_hint="--scopes")
    seconds = _ttl_seconds(ttl)
    with told_stack_errors():
        from stacks.tokens import create_token  # noqa: PLC0415

        token = create_token(target(aws=aws), tenant, subject, names, seconds)
    if json:
        print_json(
            {"token": token, "tenant": tenant, "subject": subject, "scopes": names, "expires_in_seconds": seconds}
        )
    else:
        typer.echo(token)


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="TOKEN|JTI", help="The token, or its id.")],
    *,
    aws: AwsFlag = False,
    json: JsonFlag = False,
) -> None:
    """Refuse a token everywhere, within a minute."""
    with told_stack_errors():
        from stacks.tokens import revoke_token  # noqa: PLC0415

        revoke_token(target(aws=aws), token)
    if json:
        print_json({"revoked": True, "effective_within_seconds": 60})
    else:
        say("Revoked; every function refuses it within 60 seconds.")


def _ttl_seconds(text: str) -> int:
    match = _TTL.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no time such as 90s, 30m, 1h or 7d", param_hint="--ttl")
    return int(match[1]) * _UNIT_SECONDS[match[2]]
