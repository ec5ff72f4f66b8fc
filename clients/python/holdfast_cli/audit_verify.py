"""
`./holdfast audit export` and `verify`: take a history away, and check it against a key that one has pinned.

A key that comes with what it signs proves nothing. So the key is given, or was pinned before; only that of the local
stack is taken at first sight, and this is said. What has been proven is remembered beside it, and the next check holds
it against what it finds.
"""

import base64
import binascii
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast_cli.failures import ExitCode, Failure
from holdfast_cli.places import AUDIT_URL_VARIABLE, TOKEN_VARIABLE, connect, home
from holdfast_cli.terminal import JsonFlag, print_json, progress_of, say, visible
from holdfast_client.errors import Unavailable

if TYPE_CHECKING:
    from holdfast_client.export import Export
    from holdfast_client.export_lines import Anchor
    from holdfast_client.verifier import Broken, Proven, State

VERIFIER_DIRECTORY: Final = "verifier"
"""Under the home: what this machine has pinned of its local stack, and seen proven."""
KEY_FILE: Final = "key.pem"
STATE_FILE: Final = "state.json"
PROGRESS_LINES: Final = 500
"""Lines between two looks at the progress bar."""


def export(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it, as gzip.")],
    *,
    since: Annotated[
        Path | None, typer.Option(metavar="STATE", help="Only what lies behind what this file says was proven.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Write the whole log of this tenant into one file, with the newest anchor, for anybody to check."""
    from holdfast_client.export import Export, write_lines  # noqa: PLC0415 - only those who export pay for it

    seen = _seen_in(since) if since else None
    with connect() as holdfast:
        fetching = Export.of(holdfast.audit)
        anchor = fetching.anchor()
        if anchor is None or not anchor.heads:
            anchor = fetching.anchored(fetching.heads())
        if anchor is None:
            raise Failure("nothing_stored", "Nothing is stored yet, so there is nothing to export.")
        from_leaves = _leaves_of(seen)
        with _progress(fetching, from_leaves) as show:
            lines = fetching.lines(anchor, seen_seq=seen.seq if seen else None, from_leaves=from_leaves)
            counted = _Counted(lines, show)
            _writing(out, lambda: write_lines(out, counted))
    result = {"file": str(out), "bytes": out.stat().st_size, "lines": counted.lines, "anchor": anchor.seq}
    if json:
        print_json(result)
        return
    say(f"{counted.lines:,} lines ({result['bytes']:,} bytes) are in {out}, up to anchor {anchor.seq} and beyond.")
    state = f" --state {since}" if since else ""
    say(f"  Check it, also without us: ./holdfast audit verify --export {out} --key FILE{state}")


def verify(
    exported: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Check this file; without it, the running service.")
    ] = None,
    *,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="The public key that you have pinned.")] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What was proven before; written when this is proven.")
    ] = None,
    since_seen: Annotated[
        bool, typer.Option("--since-seen", help="Fetch and check only what lies behind what was proven before.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Check a history: every event, every chain, every root, and that nothing seen before is gone or another."""
    if since_seen and exported:
        raise typer.BadParameter("a file holds what it holds; --since-seen asks the running service for less")
    if exported is None:
        result, remembered = _verify_service(key, state, since_seen=since_seen)
    else:
        result, remembered = _verify_file(exported, key, state), state
    if result is None:
        say("Nothing is stored yet, so there is nothing to prove.")
        if json:
            print_json({"result": "nothing_stored"})
        return
    _tell(result, remembered, as_json=json)


def _verify_file(exported: Path, key: Path | None, state: Path | None) -> "Proven | Broken":
    from holdfast_client.verifier import read_lines  # noqa: PLC0415 - only those who verify pay for it
    from holdfast_client.verifier import verify as check  # noqa: PLC0415

    pinned = _read(key or _directory() / KEY_FILE, "Give the key that you have pinned with --key PEM.")
    if not exported.is_file():
        raise Failure("no_file", f"{exported} is no file that can be read.")
    with progress_of(None, "commits") as show:
        return check(_Counted(read_lines(exported), show), pinned, _state(state))


def _verify_service(
    key: Path | None, state: Path | None, *, since_seen: bool
) -> "tuple[Proven | Broken | None, Path | None]":
    from holdfast_client.export import Export  # noqa: PLC0415 - only those who verify pay for it
    from holdfast_client.verifier import Broken  # noqa: PLC0415
    from holdfast_client.verifier import verify as check  # noqa: PLC0415

    with connect() as holdfast:
        fetching = Export.of(holdfast.audit)
        pinned = pinned_key(key, fetching)
        if state is None and is_local():
            state = _directory() / STATE_FILE
        seen = _seen_in(state) if since_seen else _state(state)
        anchor = _covering(fetching)
        if anchor is None:
            return Broken("The service says that nothing is stored, and something was.") if seen else None, None
        from_leaves = _leaves_of(seen) if since_seen else {}
        with _progress(fetching, from_leaves) as show:
            lines = fetching.lines(anchor, seen_seq=seen.seq if seen else None, from_leaves=from_leaves)
            return check(_Counted(lines, show), pinned, seen), state


def _covering(fetching: "Export") -> "Anchor | None":
    """
    Wait for an anchor that covers what is stored now.

    Raises:
        Failure: commits are stored that the log does not take in.
    """
    try:
        with progress_of(None, "commits") as show:
            return fetching.covering(show=show)
    except Unavailable as error:
        if error.code != "not_in_log":
            raise
        raise Failure(
            error.code,
            f"{error.detail} Either the indexer stands still, or these streams are broken: it has told of each as "
            "integrity.failed.",
            next_command="./holdfast doctor",
            facts=error.facts,
        ) from error


def _tell(result: "Proven | Broken", remembered: Path | None, *, as_json: bool) -> None:
    from holdfast_client.verifier import Broken  # noqa: PLC0415 - only those who verify pay for it

    if isinstance(result, Broken):
        place = {name: getattr(result, name) for name in ("partition", "leaf", "stream", "version")}
        told = ", ".join(f"{name} {visible(str(value))}" for name, value in place.items() if value is not None)
        raise Failure(
            "broken",
            f"This history is not what was signed. {visible(result.reason)}{f' ({told})' if told else ''}",
            facts={"result": "broken", "reason": result.reason, **place},
        )
    if remembered:
        _writing(remembered, lambda: _remember(remembered, result.state.to_bytes()))
    state = result.state
    if as_json:
        print_json(
            {
                "result": "proven",
                "service": state.service,
                "tenant": state.tenant,
                "log_id": state.log_id,
                "anchor": state.seq,
                "anchored_at": time_text(state.time),
                "commits": result.commits,
                "events": result.events,
                "not_yet_anchored": result.not_yet_anchored,
                "from_leaves": {str(partition): leaf for partition, leaf in result.from_leaves.items()},
                "state": str(remembered) if remembered else None,
            }
        )
        return
    say(f"Proven: {result.events:,} events in {result.commits:,} commits of {visible(state.tenant)} are as they were")
    say(f"  signed in anchor {state.seq} at {time_text(state.time)} (the signer's clock).")
    if result.not_yet_anchored:
        say(f"  Not yet anchored, and not proven: {result.not_yet_anchored:,} commits after that.")
    if any(result.from_leaves.values()):
        say("  The export does not begin at leaf 0: what lies before is known by its hashes only.")
    if remembered:
        say(f"  Remembered in {remembered}; the next check holds this against what it finds.")


# --- The pinned key


def pinned_key(key: Path | None, fetching: "Export") -> bytes:
    """
    Give the public key to check with: the one in *key*, else the one that is pinned of the local stack.

    Raises:
        Failure: there is none, or the local stack names another key than before.
    """
    return _read(key, "It cannot be read.") if key else _pinned_locally(fetching)


def _pinned_locally(fetching: "Export") -> bytes:
    """
    Give the key that was pinned of the local stack, or pin what it names now.

    Raises:
        Failure: it is no local stack, or it names another key than before.
    """
    if not is_local():
        raise Failure(
            "no_key", "Of a service that does not run here, the key must come from elsewhere: give it with --key PEM."
        )
    file = _directory() / KEY_FILE
    named = b"".join(sorted(_pem(jwk) for jwk in fetching.named_keys()))
    if not named:
        raise Failure("no_key", "The service names no key.", next_command="./holdfast doctor")
    if not file.exists():
        _writing(file, lambda: _remember(file, named))
        say(f"The key was taken from the local stack itself, at first sight, and pinned in {file}.")
        say("  From now on only this key counts. Of any other service, get the key on a path of its own.")
        return named
    pinned = _read(file, "It cannot be read.")
    if pinned != named:
        raise Failure(
            "key_changed",
            f"The service names another key than the one pinned in {file}. If you have reset the local stack, delete "
            f"{file.parent} and begin anew; if not, somebody else may be signing.",
            exit_code=ExitCode.FAILED,
        )
    return pinned


def _pem(jwk: dict[str, Any]) -> bytes:
    """Write a JWK (RFC 7517) on P-256 as PEM."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    try:
        x, y = (
            int.from_bytes(base64.urlsafe_b64decode(jwk[name] + "=" * (-len(jwk[name]) % 4)), "big") for name in "xy"
        )
        key = EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise Failure("bad_key", f"The service names a key that is none on P-256: {error}") from error
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


# --- Files


def is_local() -> bool:
    return not (os.environ.get(AUDIT_URL_VARIABLE) and os.environ.get(TOKEN_VARIABLE))


def _directory() -> Path:
    return home() / VERIFIER_DIRECTORY


def _read(file: Path, advice: str) -> bytes:
    """
    Read pinned keys.

    Raises:
        Failure: there are none, or others than are signed with.
    """
    from holdfast_client.verifier import keys_of  # noqa: PLC0415 - only those who verify pay for it

    try:
        pinned = file.read_bytes()
        keys_of(pinned)
    except OSError as error:
        raise Failure("no_key", f"There is no key in {file}: {error.strerror}. {advice}") from error
    except ValueError as error:
        detail = f"{file} holds something else than public keys on the curve P-256, in PEM: {error}"
        raise Failure("invalid_key", detail, exit_code=ExitCode.USAGE) from error
    return pinned


def _state(file: Path | None) -> "State | None":
    """Read what was proven before; a file that is there and cannot be read is no first time."""
    from holdfast_client.verifier import State  # noqa: PLC0415 - only those who verify pay for it

    if file is None or not file.exists():
        return None
    try:
        return State.from_bytes(file.read_bytes())
    except (OSError, ValueError) as error:
        raise Failure(
            "bad_state",
            f"What was proven before cannot be read from {file}: {error}. Without it, this would be no check.",
        ) from error


def _seen_in(file: Path | None) -> "State":
    """
    Read what was proven before, for who goes on from there.

    Raises:
        Failure: nothing was.
    """
    seen = _state(file)
    if seen is None:
        raise Failure(
            "nothing_seen",
            f"Nothing was proven before in {file}, so there is nothing to go on from."
            if file
            else "Say with --state FILE what was proven before: there is nothing to go on from.",
            next_command=f"./holdfast audit verify --state {file or 'FILE'}",
            exit_code=ExitCode.USAGE,
        )
    return seen


def _leaves_of(seen: "State | None") -> dict[int, int]:
    return {partition: size for partition, (size, _) in seen.heads.items()} if seen else {}


def _remember(file: Path, body: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.part")
    unfinished.write_bytes(body)
    unfinished.replace(file)


def _writing(file: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise Failure("cannot_write", f"{file} cannot be written: {error.strerror}.") from error


def time_text(micros: int) -> str:
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415 - said once, at the end

    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)).isoformat()
    except OverflowError:
        return f"{micros} µs since 1970"


# --- Progress


def _progress(fetching: "Export", from_leaves: Mapping[int, int]) -> AbstractContextManager[Callable[[int], None]]:
    return progress_of(sum(fetching.heads().values()) - sum(from_leaves.values()), "commits")


class _Counted:
    """Lines that are counted as they pass."""

    def __init__(self, lines: Iterable[bytes], show: Callable[[int], None]) -> None:
        self._lines = lines
        self._show = show
        self.lines = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self.lines += 1
            if self.lines % PROGRESS_LINES == 0:
                self._show(self.lines)
            yield line
