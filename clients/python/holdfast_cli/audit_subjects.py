"""`./holdfast audit hold`, `release` and `erase`: a data subject's content, kept from being destroyed or destroyed."""

from typing import Annotated, Final

import msgspec
import typer

from holdfast_cli.places import connect
from holdfast_cli.stack import require_terminal
from holdfast_cli.terminal import JsonFlag, print_json, say, visible
from holdfast_client.audit_operations import Subject

SubjectName = Annotated[
    str, typer.Argument(metavar="SUBJECT", help="The data subject, as the events' `shredkey` names it.")
]
Reason = Annotated[str, typer.Option(help="Why; it is kept with the event that tells of it.")]
Key = Annotated[str | None, typer.Option("--idempotency-key", help="Ask again for a call whose answer was lost.")]


def hold(
    subject: SubjectName,
    *,
    reason: Reason,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Until then; without it, until released.")] = None,
    idempotency_key: Key = None,
    json: JsonFlag = False,
) -> None:
    """Keep a subject's content from being erased. Holding twice for one reason holds once."""
    with connect() as holdfast:
        found = holdfast.audit.hold(subject, reason, until=until, idempotency_key=idempotency_key)
    _tell(found, as_json=json)


def release(
    subject: SubjectName,
    *,
    reason: Annotated[str, typer.Option(help="The reason of the hold that ends.")],
    idempotency_key: Key = None,
    json: JsonFlag = False,
) -> None:
    """End the hold that runs for this reason."""
    with connect() as holdfast:
        found = holdfast.audit.release(subject, reason, idempotency_key=idempotency_key)
    _tell(found, as_json=json)


def erase(
    subject: SubjectName,
    *,
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    idempotency_key: Key = None,
    json: JsonFlag = False,
) -> None:
    """Destroy all that was sealed for a subject, for good. Events stay, without their data, and every proof holds."""
    if not yes:
        require_terminal("this destroys content for good", "the same command with --yes")
        typer.confirm(f"Destroy all content that was sealed for {visible(subject)}, for good?", abort=True, err=True)
    with connect() as holdfast:
        found = holdfast.audit.erase(subject, reason, idempotency_key=idempotency_key)
    _tell(found, as_json=json)


_STATES: Final = {"live": "can be read", "erased": "is destroyed"}


def _tell(found: Subject, *, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    say(f"What was sealed for {visible(found.subject)} {_STATES.get(found.state, found.state)}.")
    for each in found.holds:
        until = f"until {each.until:%Y-%m-%d %H:%M:%S}" if each.until else "until it is released"
        say(f"  Held by {visible(each.by)} {until}: {visible(each.reason)}")
    if found.final_at:
        say(f"  A backup could bring the key back until {found.final_at:%Y-%m-%d %H:%M:%S} UTC; then nothing can.")
