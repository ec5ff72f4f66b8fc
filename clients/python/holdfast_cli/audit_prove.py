"""`./holdfast audit prove`: that one event is in what was signed, checked here and not by the service."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from holdfast_cli.audit_verify import pinned_key, time_text
from holdfast_cli.failures import Failure
from holdfast_cli.places import connect
from holdfast_cli.terminal import JsonFlag, print_json, say, visible
from holdfast_client import Holdfast, Invalid

if TYPE_CHECKING:
    from holdfast_client.audit_queries import Proof
    from holdfast_client.export import Export
    from holdfast_client.export_lines import Anchor
    from holdfast_client.proving import Shown


def prove(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="The stream's plain name, such as orders/42.")],
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The event's version.")],
    *,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="The public key that you have pinned.")] = None,
    json: JsonFlag = False,
) -> None:
    """Prove that an event is in the log under the newest signed anchor, without looking at any other event."""
    from holdfast_client.export import Export  # noqa: PLC0415 - only those who verify pay for it
    from holdfast_client.proving import check_proof  # noqa: PLC0415
    from holdfast_client.verifier import Broken  # noqa: PLC0415

    with connect() as holdfast:
        fetching = Export.of(holdfast.audit)
        pinned = pinned_key(key, fetching)
        proof, anchor = _fetched(holdfast, fetching, stream, version)
    result = check_proof(proof, stream, version, anchor, pinned)
    if isinstance(result, Broken):
        raise Failure(
            "broken",
            f"This event is not what was signed. {visible(result.reason)}",
            facts={"result": "broken", **asdict(result)},
        )
    _tell(result, as_json=json)


def _fetched(holdfast: Holdfast, fetching: "Export", stream: str, version: int) -> "tuple[Proof, Anchor]":
    """Fetch a proof under the newest anchor; of an event that it does not cover yet, under the one that will."""
    from holdfast_client.audit_queries import partition_of  # noqa: PLC0415 - only those who verify pay for it
    from holdfast_client.proving import head_of  # noqa: PLC0415

    anchor = fetching.anchor()
    head = head_of(anchor, stream) if anchor else None
    if anchor and head:
        try:
            return holdfast.audit.prove(stream, version, size=head.size), anchor
        except Invalid as error:
            if error.code != "invalid_range":
                raise
    # Asked first without an anchor: of a stream that does not exist, none will ever cover anything; and until the log
    # has taken the event in, the call is repeated.
    proof = holdfast.audit.prove(stream, version)
    anchor = fetching.anchored({partition_of(stream): proof.size})
    head = head_of(anchor, stream) if anchor else None
    if anchor is None or head is None:
        raise Failure("not_anchored_yet", "This event is in no signed anchor yet; repeat in a minute.")
    return holdfast.audit.prove(stream, version, size=head.size), anchor


def _tell(shown: "Shown", *, as_json: bool) -> None:

    event: dict[str, Any] = msgspec.json.decode(shown.event)
    if as_json:
        facts = {name: value for name, value in msgspec.structs.asdict(shown).items() if name != "event"}
        times = {name: time_text(facts[name]) for name in ("anchored_at", "recorded_at")}
        print_json({"result": "proven", **facts, **times, "event_id": event.get("id"), "type": event.get("type")})
        return
    say(f"Proven: {visible(shown.stream)} version {shown.version} is {visible(str(event.get('type')))}")
    say(
        f"  (id {visible(str(event.get('id')))}), appended by {visible(shown.actor)} at {time_text(shown.recorded_at)}."
    )
    say(f"  It is in leaf {shown.leaf} of {shown.size:,} of partition {shown.partition}, under anchor {shown.anchor},")
    say(f"  signed at {time_text(shown.anchored_at)} (the signer's clock).")
