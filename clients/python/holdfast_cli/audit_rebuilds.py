"""`./holdfast audit rebuild` and `rebuild-change`: a read model made again beside the live one, and swapped in."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal
from uuid import uuid4

import msgspec
import typer

from holdfast_cli.failures import ExitCode, Failure, same_command
from holdfast_cli.places import connect
from holdfast_cli.terminal import JsonFlag, print_json, progress_bar, say
from holdfast_client import Holdfast
from holdfast_client.audit_operations import Rebuild

POLL_SECONDS: Final = 0.5
"""How often a rebuild is asked how far it has come."""
STILL_SECONDS_MAX: Final = 300.0
"""How long a rebuild may stand still before following it ends."""
DIGESTS: Final = 2**256
"""A view's digest is the sum of its rows' hashes, modulo this: so those of partitions add up."""


def rebuild(
    view: Annotated[str, typer.Argument(metavar="VIEW", help="The read model: events, streams or activity.")],
    *,
    reason: Annotated[str, typer.Option(help="Why it is made again.")] = "asked for at the command line",
    as_of: Annotated[
        str | None, typer.Option(metavar="TIME", help="As it was known then; it never becomes live.")
    ] = None,
    no_flip: Annotated[bool, typer.Option("--no-flip", help="Do not swap it in, even if it is equal.")] = False,
    idempotency_key: Annotated[str | None, typer.Option(help="Go on following a rebuild that was begun.")] = None,
    json: JsonFlag = False,
) -> int:
    """
    Make a read model again from the whole log, compare it with the live one, and swap it in.

    Reads and appends go on meanwhile. Exit 1 if the two differ: then somebody must look before anything is swapped.
    """
    key = idempotency_key or str(uuid4())
    with connect() as holdfast:
        begun = holdfast.audit.rebuild(view, reason, as_of=as_of, auto_flip=not no_flip, idempotency_key=key)
        if not json:
            say(f"Rebuild {begun.rebuild_id} makes generation {begun.generation} of {begun.view}.")
        done = _followed(holdfast, begun.rebuild_id, key)
    return _tell(done, as_json=json)


def rebuild_change(
    rebuild_id: Annotated[str, typer.Argument(metavar="ID", help="The rebuild's id, as `rebuild` told it.")],
    change: Annotated[
        Literal["flip", "rollback", "abandon"],
        typer.Argument(help="Swap it in; take that back, within seven days; or give it up."),
    ],
    *,
    json: JsonFlag = False,
) -> int:
    """Swap in what a rebuild has made, take that back, or give it up."""
    with connect() as holdfast:
        changed = holdfast.audit.change_rebuild(rebuild_id, change)
    if json:
        print_json(_as_json(changed))
    else:
        say(f"Rebuild {changed.rebuild_id} of {changed.view} (generation {changed.generation}) is {changed.state}.")
    return ExitCode.OK


def _followed(holdfast: Holdfast, rebuild_id: str, key: str) -> Rebuild:
    """Ask until the rebuild is over, however long it takes, as long as it moves."""
    moved_at, last = time.monotonic(), None
    try:
        with _progress() as show:
            while (now := holdfast.audit.rebuild_state(rebuild_id)).state == "running":
                show(now)
                if (told := _positions(now)) != last:
                    moved_at, last = time.monotonic(), told
                elif time.monotonic() - moved_at > STILL_SECONDS_MAX:
                    raise Failure(
                        "rebuild_stands_still",
                        f"The rebuild has not moved for {STILL_SECONDS_MAX:.0f} s. Look at the function rebuilder, or "
                        f"give it up: ./holdfast audit rebuild-change {rebuild_id} abandon",
                        next_command="./holdfast doctor",
                        facts={"rebuild_id": rebuild_id},
                    )
                time.sleep(POLL_SECONDS)
            return now
    except KeyboardInterrupt as error:
        raise Failure(
            "interrupted",
            "The rebuild goes on without us; the same key follows it again.",
            next_command=same_command(idempotency_key=key),
            exit_code=ExitCode.INTERRUPTED,
            facts={"rebuild_id": rebuild_id, "idempotency_key": key},
        ) from error


def _positions(told: Rebuild) -> Any:
    return [(each["position"], each["compared"]) for each in told.partitions]


@contextmanager
def _progress() -> Iterator[Callable[[Rebuild], None]]:
    if not sys.stderr.isatty():
        yield lambda _told: None
        return
    with progress_bar(None, "events") as bar:
        task = bar.task_ids[0]

        def show(told: Rebuild) -> None:
            done = sum(min(each["position"], each["target"]) for each in told.partitions)
            total = sum(each["target"] for each in told.partitions)
            bar.update(task, total=total, completed=done, events=done, rate=told.rate or 0.0)

        yield show


def _tell(done: Rebuild, *, as_json: bool) -> int:
    """Say how it ended, with both digests; only what a person must look at is a failure."""
    compared = _compared(done)
    if as_json:
        print_json(_as_json(done))
    else:
        took = (done.finished_at - done.started_at).total_seconds() if done.finished_at and done.started_at else 0.0
        say(f"{done.rows:,} rows in {took:.1f} s.")
        if compared and done.as_of is None:
            say(f"  rebuilt  {compared['rows']:>9,} rows  {compared['digest']}")
            say(f"  live     {compared['live_rows']:>9,} rows  {compared['live_digest']}")
        say(_ENDINGS[done.state].format(done=done))
    return ExitCode.OK if done.state in {"flipped", "ready"} else ExitCode.FAILED


_ENDINGS: Final = {
    "flipped": "Equal, or made by a newer version of the view: generation {done.generation} is live now.\n"
    "  Back, within seven days: ./holdfast audit rebuild-change {done.rebuild_id} rollback",
    "ready": "Generation {done.generation} is ready; it is read with ?generation={done.generation}, and is not live.",
    "needs_review": "The two differ, so nothing was swapped in. Look at both: what was rebuilt is read with "
    "?generation={done.generation}.\n"
    "  Then: ./holdfast audit rebuild-change {done.rebuild_id} flip, or abandon",
    "abandoned": "The rebuild was given up.",
    "rolled_back": "The rebuild was swapped in and taken back.",
}


def _as_json(told: Rebuild) -> dict[str, Any]:
    return {**msgspec.to_builtins(told), "compared": _compared(told)}


def _compared(told: Rebuild) -> dict[str, Any] | None:
    """Add up what the partitions show; None until all have been compared."""
    parts = [each["compared"] for each in told.partitions]
    if not parts or None in parts:
        return None

    def added(name: str) -> str:
        return f"{sum(int(part[name], 16) for part in parts) % DIGESTS:064x}"

    return {
        "rows": sum(part["rows"] for part in parts),
        "digest": added("digest"),
        "live_rows": sum(part["live_rows"] for part in parts),
        "live_digest": added("live_digest"),
        "equal": all(part["is_equal"] for part in parts),
    }
