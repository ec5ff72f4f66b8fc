import json

import pytest

from holdfast.errors import Invalid
from holdfast.strict_json import DEPTH_MAX, INTEGER_MAX, MEMBERS_MAX, parse


def refusal(raw: bytes) -> tuple[str, str | None]:
    with pytest.raises(Invalid) as caught:
        parse(raw)
    return caught.value.code, caught.value.pointer


def test_json_comes_back_as_python_values():
    raw = '{"a": [1, -2, 0.5, 1e3, true, false, null, "ü\\n\\ud83d\\ude00"], "b": {}}'.encode()

    assert parse(raw) == {"a": [1, -2, 0.5, 1000.0, True, False, None, "ü\n😀"], "b": {}}


@pytest.mark.parametrize("raw", [b"1", b"null", b'"text"', b" [] ", str(INTEGER_MAX).encode(), b"-9007199254740991"])
def test_any_value_may_stand_alone(raw: bytes):
    assert parse(raw) == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [b"", b" ", b"{", b"[1,]", b"{'a': 1}", b"01", b"1 2", b'"\x00"', b'"\\x41"', b"{1: 2}", b"nul", b"+1", b".5"],
)
def test_what_is_not_json_is_malformed(raw: bytes):
    assert refusal(raw)[0] == "malformed_json"


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b'{"a": 1, "a": 2}', None),
        (b'{"a": {"b": 1, "c": 2, "b": 1}}', None),
        (b'{"\\u0061": 1, "a": 2}', None),
        (b"NaN", None),
        (b"[-Infinity]", None),
        (b"1e400", ""),
        (b'{"n": [0, -1E+0400]}', "/n/1"),
        (b"1" * 400 + b".0", ""),
        (b"9007199254740992", ""),
        (b'{"a/b": {"c~d": -9007199254740992}}', "/a~1b/c~0d"),
        (b"9" * 5000, None),
        (b'["\\ud800"]', "/0"),
        (b'["\\udc00\\ud800"]', "/0"),
        (b'[{"\\udead": 1}]', "/0"),
        (b'["\\ufdd0"]', "/0"),
        ('["\U0001fffe"]'.encode(), "/0"),
        ('["a", "\uffff"]'.encode(), "/1"),
        (b'"\xff"', None),
        (b'"\xed\xa0\x80"', None),
        (b"\xef\xbb\xbf{}", None),
        ('{"a": 1}'.encode("utf-16"), None),
    ],
)
def test_what_two_readers_may_read_differently_is_not_i_json(raw: bytes, pointer: str | None):
    assert refusal(raw) == ("not_i_json", pointer)


@pytest.mark.parametrize(
    "raw",
    [b'"90071992547409929007199254740992"', b'"\\\\ud800"', '"\u0fff"'.encode(), b"0.12345678901234567", b"1e-400"],
)
def test_what_only_looks_suspicious_is_taken(raw: bytes):
    assert parse(raw) == json.loads(raw)


def test_the_depth_bound_is_exact():
    parse(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)

    assert refusal(b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1))[0] == "too_deep"
    assert refusal(b'{"a":' * (DEPTH_MAX + 1) + b"0" + b"}" * (DEPTH_MAX + 1))[0] == "too_deep"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("depth", [10_000, 1_000_000])
def test_an_abyss_is_too_deep_and_nothing_worse(opening: bytes, depth: int):
    assert refusal(opening * depth)[0] == "too_deep"


def test_the_member_bound_is_exact():
    full = b",".join([b"0"] * MEMBERS_MAX)
    parse(b'{"list": [' + full + b"]}")

    assert refusal(b'{"list": [' + full + b",0]}") == ("too_many_members", "/list")
    assert refusal(b"{" + b",".join(b'"%d":0' % n for n in range(MEMBERS_MAX + 1)) + b"}") == ("too_many_members", "")
