"""`./holdfast up | down | status | logs | reset`: the local stack."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from holdfast_cli.audit_verify import VERIFIER_DIRECTORY
from holdfast_cli.failures import ExitCode, Failure
from holdfast_cli.places import home
from holdfast_cli.stacking import AwsFlag, OnlyOption, services_of, target, told_stack_errors
from holdfast_cli.terminal import JsonFlag, Steps, print_json, say, visible

if TYPE_CHECKING:
    from stacks.target import Target

PORT = 4600
"""The gateway's; the engine takes the one after it."""

FOLLOW_SECONDS = 1.0
LOG_LINES = 200
"""How much of a file's end `logs engine` and `logs stack` show."""
LOG_MINUTES = 15
"""How far back `logs <service>` looks."""


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(logs)
    app.command()(reset)


def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Come back when it is ready; it goes on.")] = False,
    only: OnlyOption = None,
    port: Annotated[
        int, typer.Option(min=1024, max=65534, help="The gateway's port; the engine's is the next.")
    ] = PORT,
    endpoint_url: Annotated[str | None, typer.Option(help="Use this engine (LocalStack, say), not our own.")] = None,
    json: JsonFlag = False,
) -> None:
    """Start everything on this machine, or bring what runs up to date; safe to repeat."""
    services = services_of(only)
    say(f"Bringing up {', '.join(services)} in {home()}.")
    with told_stack_errors():
        from stacks.local import stack  # noqa: PLC0415

        if not detach:
            stack.up(home(), services=services, port=port, endpoint_url=endpoint_url, report=Steps())
            return
        stack.up_detached(home(), services=services, port=port, endpoint_url=endpoint_url, report=Steps())
        now = stack.status(home())
    if json:
        print_json(msgspec.to_builtins(now))
        return
    _show_status(msgspec.to_builtins(now))
    say("Next: ./holdfast demo audit   Stop it with: ./holdfast down")


def down(*, json: JsonFlag = False) -> None:
    """Stop the local stack cleanly; its data stays."""
    with told_stack_errors():
        from stacks.local import stack  # noqa: PLC0415

        was_running = stack.down(home(), Steps())
    if json:
        print_json({"stopped": was_running})
    elif not was_running:
        say(f"Nothing runs in {home()}.")


def status(*, json: JsonFlag = False) -> int:
    """Show what runs, where it answers, and whether it is well."""
    with told_stack_errors():
        from stacks.local import stack  # noqa: PLC0415

        now: dict[str, Any] = msgspec.to_builtins(stack.status(home()))
    if json:
        print_json(now)
    else:
        _show_status(now)
    return ExitCode.OK if now["ready"] else ExitCode.FAILED


def _show_status(now: dict[str, Any]) -> None:
    if not now["ready"] and not now["services"]:
        say(f"Nothing runs in {home()}.\nNext: ./holdfast up --detach")
        return
    say("ready" if now["ready"] else "not ready; ./holdfast doctor says why")
    addresses = {name: f"{service['url']}{'' if service['healthy'] else '   (does not answer)'}"
                 for name, service in now["services"].items()}  # fmt: skip
    if now["console"]:
        addresses["console"] = now["console"]
    if now["engine"]:
        addresses["engine"] = now["engine"]["endpoint_url"]
    addresses |= {"tenant": now["tenant"], "token": now["token_file"]}
    for name, address in addresses.items():
        say(f"  {name:<8} {address}")


def reset(
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonFlag = False,
) -> None:
    """Stop the local stack and forget its data; what was built and installed stays."""
    if not yes:
        require_terminal("this deletes every local stream", "./holdfast reset --yes")
        typer.confirm(f"Delete every stream, token and object in {home()}?", abort=True, err=True)
    with told_stack_errors():
        from stacks.local import stack  # noqa: PLC0415

        stack.reset(home(), Steps())
    # The next stack signs with another key, and begins another history: what was pinned and seen is of the one before.
    shutil.rmtree(home() / VERIFIER_DIRECTORY, ignore_errors=True)
    if json:
        print_json({"reset": True})
    else:
        say("Forgotten. Next: ./holdfast up --detach")


def require_terminal(why: str, next_command: str) -> None:
    """
    Refuse to take an answer from something that is nobody.

    Raises:
        Failure: stdin is no terminal.
    """
    if not sys.stdin.isatty():
        raise Failure(
            "not_confirmed",
            f"There is nobody to ask, and {why}; nothing was changed.",
            next_command=next_command,
            exit_code=ExitCode.REFUSED,
        )


def logs(
    service: Annotated[str, typer.Argument(help="A service; or engine, or stack: the two local processes.")],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more; end with Ctrl-C.")] = False,
    aws: AwsFlag = False,
    json: JsonFlag = False,
) -> None:
    """Show what the functions of a service wrote lately, oldest first."""
    lines: Iterator[dict[str, Any]]
    if service in {"engine", "stack"}:
        lines = _file_lines(home() / "logs" / f"{service}.log", follow=follow)
    else:
        services_of(service)
        lines = _function_lines(target(aws=aws), f"holdfast-{service}", follow=follow)
    for line in lines:
        if json:
            print_json(line)
        else:
            sys.stdout.write(" ".join(visible(str(word)) for word in line.values()) + "\n")
        sys.stdout.flush()


def _file_lines(path: Path, *, follow: bool) -> Iterator[dict[str, Any]]:
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Failure(
            "no_log", f"{path} cannot be read: {error.strerror}.", next_command="./holdfast status"
        ) from error
    with file:
        for line in file.readlines()[-LOG_LINES:]:
            yield {"message": line.rstrip("\n")}
        while follow:
            for line in file:
                yield {"message": line.rstrip("\n")}
            if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                return
            time.sleep(FOLLOW_SECONDS)


def _function_lines(where: "Target", stack: str, *, follow: bool) -> Iterator[dict[str, Any]]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        groups = [f"/aws/lambda/{name}" for name in _functions(where, stack)]
        since = {group: int((time.time() - LOG_MINUTES * 60) * 1000) for group in groups}
        while True:
            for group in groups:
                for event in _events(where, group, since[group]):
                    since[group] = event["timestamp"] + 1
                    yield {
                        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event["timestamp"] / 1000)),
                        "function": group.removeprefix("/aws/lambda/"),
                        "message": event["message"].rstrip("\n"),
                    }
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)
    except (BotoCoreError, ClientError) as error:
        raise Failure(
            "no_logs", f"The logs cannot be read: {error}", next_command="./holdfast status", exit_code=ExitCode.REMOTE
        ) from error


def _functions(where: "Target", stack: str) -> list[str]:
    pages = where.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    resources = (resource for page in pages for resource in page["StackResourceSummaries"])
    return [each["PhysicalResourceId"] for each in resources if each["ResourceType"] == "AWS::Lambda::Function"]


def _events(where: "Target", group: str, since_millis: int) -> list[Any]:
    client = where.client("logs")
    try:
        pages = client.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=since_millis)
        return [event for page in pages for event in page["events"]]
    except client.exceptions.ResourceNotFoundException:
        # A function that was never called has no log group yet.
        return []
