"""A log that was made, its export for a test to change, and what a check says of it."""

import base64
from typing import Any

import msgspec

from holdfast.anchors import MemorySigner
from holdfast.clock import ManualClock
from holdfast_client.verifier import Broken, Proven, State, verify
from tests.exported_log import STREAMS, ExportedLog, closed_parts, event, pem

FIRST = 20
MORE = 15

Parts = list[dict[str, Any]]


def made(signer: MemorySigner) -> ExportedLog:
    log = ExportedLog(signer).fill(FIRST)
    log.anchor()
    log.fill(MORE, first=FIRST)
    log.anchor()
    return log


def forked(signer: MemorySigner, *, at: int) -> ExportedLog:
    """Make the same log with one other event, and sign it with the same key: all of it fits together."""
    log = ExportedLog(signer)
    for number in range(FIRST + MORE):
        if number == FIRST:
            log.anchor()
        if number == at:
            log.append(STREAMS[at % len(STREAMS)], *[event(9_000 + each) for each in range(1 + at % 3)])
        else:
            log.fill(1, first=number)
    log.anchor()
    return log


def small(signer: MemorySigner) -> ExportedLog:
    log = ExportedLog(signer, ManualClock())
    log.append("orders/1", event(1), event(2))
    log.append("orders/1", event(3))
    log.anchor()
    return log


def checked(log: ExportedLog, parts: Parts | None = None, state: State | None = None) -> Proven | Broken:
    """Verify a log, or what somebody has made of its export; whoever changes an export mends its digest."""
    return verify(log.lines() if parts is None else closed_parts(parts), pem(log.signer), state)


def proven(log: ExportedLog, parts: Parts | None = None, state: State | None = None) -> Proven:
    result = checked(log, parts, state)
    assert isinstance(result, Proven), result
    return result


def broken(log: ExportedLog, parts: Parts | None = None, state: State | None = None) -> Broken:
    result = checked(log, parts, state)
    assert isinstance(result, Broken), result
    return result


def seen(log: ExportedLog, anchors: int = 1) -> State:
    """What somebody remembers who has looked when there were so many anchors."""
    return proven(log, log.parts(log.anchors[:anchors])).state


def commits(parts: Parts) -> Parts:
    return [part for part in parts if part["type"] == "commit"]


def anchors(parts: Parts) -> Parts:
    return [part for part in parts if part["type"] == "anchor"]


def opened(encoded: str) -> Any:
    return msgspec.json.decode(base64.b64decode(encoded))


def b64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def change(part: dict[str, Any], name: str, **members: Any) -> None:
    """Change members of JSON that lies inside a line as bytes, and write it as it is always written."""
    part[name] = b64(msgspec.json.encode(opened(part[name]) | members, order="sorted"))
