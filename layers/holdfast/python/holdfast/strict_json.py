"""
JSON that every reader reads alike: I-JSON (RFC 7493), within bounds that keep a hostile body from hurting its reader.

What two parsers may read differently is refused, never chosen: a member named twice, a number that a double does not
hold, NaN and infinities, lone surrogates and noncharacters, bytes that are not UTF-8, a byte order mark.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from holdfast.errors import Invalid

DEPTH_MAX: Final = 100
MEMBERS_MAX: Final = 10_000
INTEGER_MAX: Final = 2**53 - 1

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

FORBIDDEN_CHARACTER = re.compile(
    "[\ud800-\udfff\ufdd0-\ufdef" + "".join(chr(p << 16 | 0xFFFE) + chr(p << 16 | 0xFFFF) for p in range(17)) + "]"
)

_SUSPICIONS = (
    re.compile(rb"(?:^|[\s,:\[])-?(?:\d{16}|[\d.]+[eE]\+?\d{3})"),
    re.compile(rb"\\u(?:[dD][89a-fA-F]|[fF][dD][dDeE]|[fF]{3}[eEfF])"),
    re.compile(rb"\xef\xb7[\x90-\xaf]|\xbf[\xbe\xbf]"),
)
"""What the bytes of every forbidden number or character look like. Innocent bytes may match; they only cost time."""

_Path = list[str | int]
"""The names and indexes that lead from the root to a container."""


def parse(raw: bytes) -> Any:
    """
    Parse *raw* as I-JSON of at most DEPTH_MAX levels and MEMBERS_MAX members per object or array.

    Numbers with a fraction or an exponent become floats; all others are integers within +-INTEGER_MAX.

    Raises:
        Invalid: `malformed_json`, `not_i_json`, `too_deep` or `too_many_members`; with a pointer where one is known.
    """
    text = _decode(raw)
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise _too_deep() from error
    except json.JSONDecodeError as error:
        raise Invalid("malformed_json", f"{error.msg}: line {error.lineno}, column {error.colno}.") from error
    except ValueError as error:
        # CPython refuses to convert thousands of digits; nothing else here raises a bare ValueError.
        raise Invalid("not_i_json", "An integer is beyond ±(2^53-1).") from error
    _inspect(value, [], scalars=any(suspicion.search(raw) for suspicion in _SUSPICIONS))
    return value


def _decode(raw: bytes) -> str:
    if raw.startswith(_BYTE_ORDER_MARK):
        raise Invalid("not_i_json", "The text begins with a byte order mark.")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid("not_i_json", f"Byte {error.start} is not UTF-8.") from error


def _to_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) != len(members):
        [(twice, _)] = Counter(name for name, _ in members).most_common(1)
        raise Invalid("not_i_json", f"The member {json.dumps(twice[:100])} is there more than once.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise Invalid("not_i_json", f"{name} is not a JSON number.")


_DECODER = json.JSONDecoder(object_pairs_hook=_to_object, parse_constant=_refuse_constant)


def _inspect(value: Any, path: _Path, *, scalars: bool) -> None:
    """Check depth and members below *value*, and the scalars too where the bytes look bad."""
    if type(value) is dict:
        children: Iterable[tuple[str | int, Any]] = value.items()
    elif type(value) is list:
        children = enumerate(value)
    else:
        return _check(value, path) if scalars else None
    if len(path) >= DEPTH_MAX:
        raise _too_deep()
    if len(value) > MEMBERS_MAX:
        detail = f"{len(value):,} members in one object or array; at most {MEMBERS_MAX:,} are taken."
        raise Invalid("too_many_members", detail, pointer=_pointer(path))
    for name, child in children:
        if scalars and type(name) is str:
            _check(name, path)
        if scalars or type(child) is dict or type(child) is list:
            path.append(name)
            _inspect(child, path, scalars=scalars)
            path.pop()
    return None


def _check(scalar: object, path: _Path) -> None:
    match scalar:
        case str() if FORBIDDEN_CHARACTER.search(scalar):
            raise Invalid("not_i_json", "A string holds a lone surrogate or a noncharacter.", pointer=_pointer(path))
        case int() if abs(scalar) > INTEGER_MAX:
            raise Invalid("not_i_json", "An integer is beyond ±(2^53-1).", pointer=_pointer(path))
        case float() if math.isinf(scalar):
            raise Invalid("not_i_json", "A number is beyond what a double holds.", pointer=_pointer(path))


def _pointer(path: _Path) -> str:
    """Write *path* as a JSON pointer (RFC 6901); a character that cannot travel becomes `?`."""
    pointer = "".join(f"/{str(name).replace('~', '~0').replace('/', '~1')}" for name in path)
    return pointer.encode("utf-8", "replace").decode("utf-8")


def _too_deep() -> Invalid:
    return Invalid("too_deep", f"Objects and arrays are nested over {DEPTH_MAX} deep.")
