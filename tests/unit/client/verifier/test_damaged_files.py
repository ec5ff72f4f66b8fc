"""A file that was cut short, mended or altered by one bit."""

import base64
from typing import Any

import msgspec

from holdfast_client.export import closed
from holdfast_client.verifier import Broken, Proven, verify
from tests.exported_log import ExportedLog, pem
from tests.soak import IS_SOAK
from tests.unit.client.verifier.made_exports import small


def test_a_file_that_was_cut_short_is_found(log):
    lines = log.lines()

    assert "cut short" in verify_broken(log, lines[:-1])
    assert "cut short" in verify_broken(log, [])
    assert "no line" in verify_broken(log, [*lines[:-1], lines[-1][:-10]])


def test_a_file_with_another_digest_or_more_lines_is_found(log):
    lines = log.lines()
    end = msgspec.json.decode(lines[-1])

    for wrong in (end | {"lines": end["lines"] + 1}, end | {"sha256": "0" * 64}):
        assert "digest" in verify_broken(log, [*lines[:-1], msgspec.json.encode(wrong)])
    assert "may stand here" in verify_broken(log, [*lines, lines[-1]])
    assert "digest" in verify_broken(log, [lines[0].replace(b"Z", b"z"), *lines[1:]])


def verify_broken(log: ExportedLog, lines: list[bytes]) -> str:
    result = verify(lines, pem(log.signer))
    assert isinstance(result, Broken)
    return result.reason


def flips(body: bytes) -> range:
    """Name the bits to flip: every one in a soak, and else one of each byte, another one each time."""
    return range(0, len(body) * 8, 1 if IS_SOAK else 9)


def flipped(body: bytes, at: int) -> bytes:
    changed = bytearray(body)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def test_one_bit_flipped_anywhere_in_a_small_export_is_found(signer):
    log, key = small(signer), pem(signer)
    whole = b"".join(log.lines())

    for at in flips(whole):
        assert isinstance(verify(flipped(whole, at).splitlines(keepends=True), key), Broken), at


def test_one_bit_flipped_in_what_counts_is_found_without_the_digest(signer):
    """What an export says of itself without proof (when it was made, what its key is called) may say anything."""
    log, key = small(signer), pem(signer)

    def told(lines: list[bytes]) -> list[Any]:
        free = {"exported_at": "", "key_id": ""}
        return [decoded(line) | {name: "" for name in free if name in line.decode()} for line in lines]

    whole = list(log.unclosed())
    original = told(whole)
    for number, line in enumerate(whole):
        for at in flips(line):
            lines = [*whole[:number], flipped(line, at), *whole[number + 1 :]]
            result = verify(closed(lines), key)
            if isinstance(result, Proven):
                assert told(lines) == original, (number, at)


BYTES = frozenset({"header", "events", "root", "leaf", "path", "statement", "signature", "hashes"})


def decoded(value: Any, name: str = "") -> Any:
    """Read a line with its bytes as bytes: base64 has spare bits at its end."""
    match value:
        case bytes():
            return decoded(msgspec.json.decode(value))
        case dict():
            return {member: decoded(each, member) for member, each in value.items()}
        case list():
            return [decoded(each, name) for each in value]
        case str() if name in BYTES:
            return base64.b64decode(value)
        case _:
            return value
