"""Whatever the lines hold, it is answered and never a traceback."""

import random
from typing import Any

import msgspec
import pytest

from holdfast_client.verifier import Broken, verify
from tests.exported_log import closed_parts, pem
from tests.unit.client.verifier.made_exports import b64, broken, commits, small

NONSENSE = (
    b"", b"\n", b"null", b"[]", b"{}", b"0", b'"commit"', b'{"type":"commit"}', b'{"type":"else"}', b"\xff\xfe",
    b'{"type":"commit","partition":9}', b'{"type":"end","lines":-1,"sha256":""}', b'{"type":"end","lines":1e400}',
    b"[" * 100_000, b'{"a":' * 100_000, b'{"type":"end","lines":' + b"9" * 5_000 + b',"sha256":""}',
    b'{"type":"manifest","v":1,"v":1}', b'{"type":"manifest"}{"type":"manifest"}', b'{"type":"\xed\xa0\x80"}',
)  # fmt: skip


@pytest.mark.parametrize("line", NONSENSE, ids=lambda line: repr(line[:24]))
def test_nonsense_is_broken_and_never_a_traceback(log, line):
    lines = log.lines()
    for at in (0, 1, len(lines) - 2, len(lines)):
        assert isinstance(verify([*lines[:at], line, *lines[at:]], pem(log.signer)), Broken)
    assert isinstance(verify([line], pem(log.signer)), Broken)


WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**53,
    2**70,
    1.5,
    "",
    "x",
    "é",
    "0" * 65,
    [],
    [None],
    {},
    {"a": 1},
    b64(bytes(31)),
)


def test_a_wrong_value_anywhere_is_broken_and_never_a_traceback(signer):
    log, key = small(signer), pem(signer)
    parts = log.parts()
    tried = 0
    for number, part in enumerate(parts):
        for path in paths(part):
            for wrong in WRONG:
                changed = msgspec.json.decode(msgspec.json.encode(parts))
                target, name = changed[number], path[-1]
                for step in path[:-1]:
                    target = target[step]
                if target[name] == wrong or (name in {"exported_at", "key_id"} and isinstance(wrong, str)):
                    continue
                target[name] = wrong
                tried += 1
                assert isinstance(verify(closed_parts(changed), key), Broken), (number, path, wrong)
    assert tried > 500


def paths(value: Any) -> list[tuple[Any, ...]]:
    members = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [path for name, member in members for path in ((name,), *((name, *rest) for rest in paths(member)))]


def test_what_is_hashed_may_be_nonsense_too(log, signer):
    rng = random.Random(1)
    for wrong in (b"", b"null", b"{}", b"\xff", b"[" * 5_000, rng.randbytes(200)):
        parts = log.parts()
        commits(parts)[12]["header"] = b64(wrong)
        assert "header" in broken(log, parts).reason
        parts = log.parts()
        parts[-1]["statement"], parts[-1]["signature"] = b64(wrong), b64(signer.sign(wrong))
        assert "no line" in broken(log, parts).reason
        parts = log.parts()
        parts[-1]["heads"][0]["leaf"] = b64(wrong)
        assert "no line" in broken(log, parts).reason
