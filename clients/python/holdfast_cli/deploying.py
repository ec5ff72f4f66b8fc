"""`./holdfast plan | deploy | destroy`: show what would change, ask, change it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from holdfast_cli.failures import ExitCode, Failure
from holdfast_cli.places import home
from holdfast_cli.stack import PORT, require_terminal
from holdfast_cli.stacking import AwsFlag, OnlyOption, services_of, target, told_stack_errors
from holdfast_cli.terminal import JsonFlag, Steps, print_json, say
from holdfast_client.local import find_local_stack

if TYPE_CHECKING:
    from stacks.changes import StackPlan
    from stacks.target import Target

YesFlag = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask; what replaces or removes data is asked for all the same.")
]
ConfirmOption = Annotated[
    list[str] | None,
    typer.Option("--confirm", metavar="STACK", help="The name of a stack whose data may be replaced or removed."),
]

SIGNS = {"add": "+", "change": "~", "replace": "±", "delete": "-"}


def register(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(deploy)
    app.command()(destroy)


def plan(*, only: OnlyOption = None, aws: AwsFlag = False, json: JsonFlag = False) -> None:
    """Show what a deploy would add, change, replace and delete, what it would allow, and what data it risks."""
    with told_stack_errors():
        from stacks import deploy as deploying  # noqa: PLC0415

        where = target(aws=aws)
        with deploying.planned(where, services_of(only), Steps(), home=home()) as plans:
            pass
    if json:
        print_json({"stacks": [as_json(each) for each in plans]})
    else:
        _show(plans)


def deploy(
    *,
    only: OnlyOption = None,
    yes: YesFlag = False,
    confirm: ConfirmOption = None,
    aws: AwsFlag = False,
    json: JsonFlag = False,
) -> None:
    """Plan, show, ask, apply."""
    with told_stack_errors():
        from stacks import Outdated  # noqa: PLC0415

        where, services = target(aws=aws), services_of(only)
        typed = set(confirm or ())
        try:
            plans, addresses = _plan_and_apply(where, services, typed, yes=yes, quiet=json)
        except Outdated as error:
            # A shared stack gave another layer than was foreseen; the next plan knows it. Twice is somebody else.
            say(f"{error.what} Planning once more.")
            plans, addresses = _plan_and_apply(where, services, typed, yes=yes, quiet=json)
        if not aws:
            addresses = _taken_up(services)
    if json:
        print_json({"stacks": [as_json(each) for each in plans], "services": addresses})
        return
    for name, address in addresses.items():
        say(f"  {name:<8} {address}")


def _plan_and_apply(
    where: "Target", services: Sequence[str], typed: set[str], *, yes: bool, quiet: bool
) -> tuple[list["StackPlan"], dict[str, str]]:
    from stacks import changes  # noqa: PLC0415
    from stacks import deploy as deploying  # noqa: PLC0415

    with deploying.planned(where, services, Steps(), home=home()) as plans:
        if not quiet:
            _show(plans)
        if changes.has_changes(plans):
            typed |= _ask(changes.names_to_type(plans), yes=yes, typed=typed)
        return plans, deploying.apply(where, plans, Steps(), typed=typed)


def _taken_up(services: Sequence[str]) -> dict[str, str]:
    """Have the running stack take up what was deployed (it knows functions by their ids), and give its addresses."""
    from stacks.local import stack  # noqa: PLC0415

    local = find_local_stack(home())
    running = stack.up_detached(
        home(),
        services=sorted({*services, *local.services}),
        port=urlsplit(local.url).port or PORT,
        endpoint_url=None,
        report=Steps(),
    )
    return {name: service.url for name, service in running.services.items() if name in services}


def destroy(
    *,
    only: OnlyOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    aws: AwsFlag = False,
    json: JsonFlag = False,
) -> None:
    """Delete the stacks; what holds data (tables, keys, buckets) is kept, and named."""
    services = services_of(only)
    what = f"the stacks of {', '.join(services)} {'in your AWS account' if aws else 'on the local engine'}"
    if not yes:
        require_terminal(f"this deletes {what}", "./holdfast destroy --yes")
        typer.confirm(f"Delete {what}?", abort=True, err=True)
    with told_stack_errors():
        from stacks import deploy as deploying  # noqa: PLC0415

        kept = deploying.destroy(target(aws=aws), services, Steps())
    if json:
        print_json({"destroyed": services, "kept": [{"type": each.type, "id": each.physical_id} for each in kept]})
        return
    say("Deleted." if not kept else "Deleted; kept, because it holds data:")
    for each in kept:
        say(f"  {each.type:<28} {each.physical_id}")


def _ask(names_to_type: Sequence[str], *, yes: bool, typed: set[str]) -> set[str]:
    """Ask what is still open, and give the stack names that were typed."""
    missing = [name for name in names_to_type if name not in typed]
    if missing:
        require_terminal(
            f"{', '.join(missing)} would lose data", " ".join(f"--confirm {name}" for name in missing) + " says it may"
        )
    elif not yes:
        require_terminal("a deploy changes things", "./holdfast deploy --yes")
    if not yes:
        typer.confirm("Apply?", abort=True, err=True)
    for name in missing:
        if typer.prompt(f"This replaces or removes what holds data. Type {name} to go on", err=True) != name:
            raise Failure("not_confirmed", "The name differs; nothing was changed.", exit_code=ExitCode.REFUSED)
    return set(missing)


def as_json(plan: "StackPlan") -> dict[str, Any]:
    """Write a plan with stable keys."""
    return {
        "stack": plan.stack,
        "service": plan.source.service,
        "new": plan.is_new,
        "changes": [
            {
                "kind": str(each.kind),
                "logical_id": each.logical_id,
                "type": each.type,
                "physical_id": each.physical_id,
                "why": list(each.why),
            }
            for each in plan.changes
        ],
        "permissions_widened": [
            {"logical_id": each.logical_id, "grant": each.grant, "why": each.why} for each in plan.permissions_widened
        ],
        "data_at_risk": [
            {"logical_id": each.logical_id, "type": each.type, "what": each.what, "is_loss": each.is_loss}
            for each in plan.data_at_risk
        ],
    }


def _show(plans: Sequence["StackPlan"]) -> None:
    for each in plans:
        typer.echo(f"{each.stack}{' (new)' if each.is_new else ''}")
        for change in each.changes:
            why = f"   {'; '.join(change.why)}" if change.why else ""
            typer.echo(f"  {SIGNS[change.kind]} {change.kind:<8} {change.logical_id:<32} {change.type}{why}")
        for widening in each.permissions_widened:
            typer.echo(f"  ! allows   {widening.grant}   ({widening.logical_id}: {widening.why})")
        for risk in each.data_at_risk:
            typer.echo(f"  ! DATA     {risk.logical_id} {risk.what}")
        if not each.changes:
            typer.echo("  nothing changes")
