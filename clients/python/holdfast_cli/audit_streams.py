"""`./holdfast audit append`, `events`, `state`, `diff` and `streams`: what streams hold, now and at any time."""

import itertools
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import typer

from holdfast_cli.places import connect
from holdfast_cli.terminal import JsonFlag, console, print_json, say, visible
from holdfast_client import Event, Holdfast, RecordedEvent, State
from holdfast_client.audit_queries import Found

FOLLOW_SECONDS = 1.0
"""How often `events --follow` asks for more."""
SEARCH_PAGE_ITEMS = 1_000
"""The most that one page of a search brings."""

Stream = Annotated[str, typer.Argument(metavar="STREAM", help="The stream's plain name, such as orders/42.")]


def append(
    stream: Stream,
    *,
    type_: Annotated[str, typer.Option("--type", help="The event's type, such as order.placed.")],
    data: Annotated[str, typer.Option(help="The event's data, as JSON.")],
    expected: Annotated[
        str, typer.Option(metavar="N|none|any", help="The version the stream must be at; none: it must not exist.")
    ] = "any",
    subject: Annotated[str | None, typer.Option(help="What the event is about.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why it was done.")] = None,
    shredkey: Annotated[
        str | None, typer.Option(metavar="SUBJECT", help="Seal the data so that erasing this subject destroys it.")
    ] = None,
    event_id: Annotated[str | None, typer.Option("--id", help="The event's id; a fresh one without it.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Ask again for a call whose answer was lost.")] = None,
    json: JsonFlag = False,
) -> None:
    """Append one event, exactly once."""
    key = idempotency_key or str(uuid4())
    event = Event(
        type=type_,
        data=_parse_json(data),
        subject=subject,
        reason=reason,
        # A repeat under the same key must be the same bytes, also from another process: the id comes from the key.
        id=event_id or key,
        source="urn:holdfast:cli",
        extensions={} if shredkey is None else {"shredkey": shredkey},
    )
    with connect() as holdfast:
        appended = holdfast.audit.append(stream, [event], _expected(expected), idempotency_key=key)
    result = {
        "stream": stream,
        "version": appended.version,
        "first_version": appended.first_version,
        "commit_id": appended.commit_id,
        "recorded_at": appended.recorded_at.isoformat(),
        "event_id": event.id,
        "idempotency_key": key,
        "replayed": appended.replayed,
    }
    if json:
        print_json(result)
    else:
        say(f"{stream} is at version {appended.version} (event {event.id}).")


def _expected(text: str) -> Any:
    if text == "any":
        return "any"
    if text == "none":
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a version, nor none, nor any", param_hint="--expected")


def _parse_json(text: str) -> Any:
    import json  # noqa: PLC0415  a parameter of the commands has this name

    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"it is no JSON: {error}", param_hint="--data") from error


def events(
    stream: Annotated[
        str | None, typer.Argument(metavar="STREAM", help="The stream to read; without it, all are searched.")
    ] = None,
    *,
    actor: Annotated[str | None, typer.Option(help="Find what this one did.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Find events of this type.")] = None,
    subject: Annotated[str | None, typer.Option(help="Find what is about this subject.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Find what happened from then on.")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="TIME", help="Find what happened until then.")] = None,
    known_at: Annotated[str | None, typer.Option(metavar="TIME", help="Find what had been recorded by then.")] = None,
    after: Annotated[int | None, typer.Option(min=0, help="Only events after this version of STREAM.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more of STREAM; end with Ctrl-C.")] = False,
    json: JsonFlag = False,
) -> None:
    """
    Read a stream, oldest event first, or find events by who did what to whom and when.

    With --json, one CloudEvent per line of a stream, and of a search one envelope with its place.
    """
    facets = {"actor": actor, "type": type_, "subject": subject, "from_": from_, "to": to, "known_at": known_at}
    is_search = stream is None or any(facet is not None for facet in facets.values())
    if is_search and (follow or after is not None):
        raise typer.BadParameter("--after and --follow read one STREAM; a search has neither")
    with connect() as holdfast:
        if is_search:
            _search(holdfast, {**facets, "stream": stream}, limit, _print_found if json else _show_found)
        elif stream is not None:
            _read(holdfast, stream, after or 0, limit, _print_event if json else _show_event, follow=follow)


def _search(holdfast: Holdfast, facets: dict[str, Any], limit: int | None, show: Callable[[Found], None]) -> None:
    page = min(limit or SEARCH_PAGE_ITEMS, SEARCH_PAGE_ITEMS)
    for found in itertools.islice(holdfast.audit.search(**facets, limit=page), limit):
        show(found)


def _print_found(found: Found) -> None:
    print_json({name: value for name, value in msgspec.to_builtins(found).items() if value is not None})


def _show_found(found: Found) -> None:
    words = "  ".join(visible(word) for word in (found.stream, found.actor, found.type, found.subject) if word)
    sys.stdout.write(f"{found.version:>7}  {found.time:%Y-%m-%d %H:%M:%S}  {words}\n")


def _read(
    holdfast: Holdfast,
    stream: str,
    after: int,
    limit: int | None,
    show: Callable[[RecordedEvent], None],
    *,
    follow: bool,
) -> None:
    seen = 0
    try:
        while True:
            for event in holdfast.audit.events(stream, after, limit=None if limit is None else limit - seen):
                show(event)
                after, seen = event.streamversion, seen + 1
            sys.stdout.flush()
            if not follow or seen == limit:
                return
            time.sleep(FOLLOW_SECONDS)
    except KeyboardInterrupt:
        if not follow:
            raise
        say(f"Stopped. To go on from here: ./holdfast audit events {stream} --after {after} --follow")


def _print_event(event: RecordedEvent) -> None:
    print_json(event.cloudevent)


def _show_event(event: RecordedEvent) -> None:
    told = (event.actor, event.type, event.subject, f"({event.reason})" if event.reason else None)
    words = "  ".join(visible(word) for word in told if word)
    sys.stdout.write(f"{event.streamversion:>7}  {event.time:%Y-%m-%d %H:%M:%S}  {words}\n")


def state(
    stream: Stream,
    *,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="As of this event time (RFC 3339).")] = None,
    version: Annotated[int | None, typer.Option(help="As of this version.")] = None,
    known_at: Annotated[str | None, typer.Option(metavar="TIME", help="As it was known at this time.")] = None,
    json: JsonFlag = False,
) -> None:
    """Show the state of a stream, now or at any time; with --json the state alone."""
    with connect() as holdfast:
        answer = holdfast.audit.state(stream, at=at, version=version, known_at=known_at)
    if json:
        print_json(answer.state)
        return
    _show_state(answer)


def _show_state(answer: State) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    say(
        f"{answer.stream} at version {answer.version} of {answer.last_version} "
        f"({answer.events_applied} events, {answer.reducer})"
    )
    if answer.unapplied:
        say(f"  could not be applied: versions {', '.join(map(str, answer.unapplied))}")
    if not isinstance(answer.state, dict):
        print_json(answer.state)
        return
    table = Table("member", "value")
    for name, value in answer.state.items():
        # Names and values are somebody's data: `Text` takes no markup from them, `visible` no control characters.
        table.add_row(Text(visible(name)), Text(visible(_told(value))))
    console().print(table)


def diff(
    stream: Stream,
    *,
    from_version: Annotated[
        int, typer.Option("--from", min=0, help="The version before; 0 is before the first event.")
    ],
    to_version: Annotated[
        int | None, typer.Option("--to", min=0, help="The version after; the last without it.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Say what changed in a stream's state from one version to another: a JSON merge patch (RFC 7396)."""
    with connect() as holdfast:
        changes = holdfast.audit.diff(stream, from_version, to_version)
    if json:
        print_json(msgspec.to_builtins(changes))
        return
    say(f"{stream} from version {changes.from_version} to {changes.to_version}")
    if not isinstance(changes.patch, dict):
        print_json(changes.patch)
        return
    for name, value in changes.patch.items():
        told = f"- {visible(name)}" if value is None else f"~ {visible(name)}  {visible(_told(value))}"
        sys.stdout.write(f"{told}\n")


def _told(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def streams(
    *,
    prefix: Annotated[str, typer.Option(help="Only streams whose names begin with this.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    json: JsonFlag = False,
) -> None:
    """List the streams, by name; with --json one per line."""
    with connect() as holdfast:
        for each in itertools.islice(holdfast.audit.streams(prefix), limit):
            if json:
                print_json(msgspec.to_builtins(each))
                continue
            sys.stdout.write(
                f"{each.version:>7}  {each.last_time:%Y-%m-%d %H:%M:%S}  {each.stream}  {visible(each.last_actor)}\n"
            )
