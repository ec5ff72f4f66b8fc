"""
JSON Patch (RFC 6902) in place, whole or not at all, within bounds that keep a hostile patch from hurting its reader.

A few operations that copy what they copied before make a document of any size. So no patch nests a document deeper
than DEPTH_MAX, and none puts more into it than a patch could that spells everything out.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import msgspec

from holdfast.strict_json import DEPTH_MAX

WORK_MAX: Final = 256 * 1024
"""
What one patch may do to a document, in bytes of JSON: values that are added, copied, or moved to a deeper level.

As much as one event may hold; so a small patch that copies costs its reader no more than a large one that does not.
"""
ELEMENTS_SHIFTED_PER_BYTE: Final = 64
"""Elements of an array that make room, or close ranks, for the price of one byte."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")
"""RFC 6901, section 4: no leading zeros. More digits than these are beyond every array."""
_STRAY_TILDE = re.compile(r"~(?![01])")
_ROOT: Final = ""
"""The name of the document in the object that holds it: with a parent, the root is a place like any other."""

Operation = dict[str, Any]


class PatchRefused(Exception):
    """The patch cannot be applied to this document, which is as it was."""


def apply(document: Any, operations: Any) -> Any:
    """
    Apply *operations* to *document* one after the other, changing it where it is an object or an array.

    The values of *operations* become parts of the document. A document that a patch was refused for is as it was,
    but for the order of an object's members, which means nothing (RFC 8259, section 4).

    Raises:
        PatchRefused: an operation is none, does not fit the document, or passes a bound.
    """
    if not isinstance(operations, list):
        raise PatchRefused("A patch is an array of operations.")
    patching = _Patching(document)
    try:
        for operation in operations:
            patching.take(operation)
    except PatchRefused:
        patching.undo()
        raise
    return patching.document


def is_deeper(value: Any, levels: int) -> bool:
    """Tell whether objects and arrays are nested in *value* more than *levels* deep."""
    children: Iterable[Any]
    if type(value) is dict:
        children = value.values()
    elif type(value) is list:
        children = value
    else:
        return False
    if levels <= 0:
        return True
    return any(is_deeper(child, levels - 1) for child in children if type(child) is dict or type(child) is list)


def equal(one: Any, other: Any) -> bool:
    """Compare as RFC 6902, section 4.6 does: numbers by value, objects without order; true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


class _Patching:
    """A patch on its way: the document, how to take back what was done to it, and what may still be done."""

    def __init__(self, document: Any) -> None:
        self._holder = {_ROOT: document}
        self._undo: list[Callable[[], object]] = []
        self._work_left = WORK_MAX

    @property
    def document(self) -> Any:
        return self._holder[_ROOT]

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()

    def take(self, operation: Any) -> None:
        if not isinstance(operation, dict):
            raise PatchRefused("An operation is an object.")
        name = operation.get("op")
        if not isinstance(name, str) or name not in _OPERATIONS:
            raise PatchRefused(f"An op is one of {', '.join(_OPERATIONS)}.")
        _OPERATIONS[name](self, operation)

    # --- The operations (RFC 6902, section 4)

    def add(self, operation: Operation) -> None:
        path, value = _location(operation, "path"), _value(operation)
        self._charge(value, path)
        self._put(path, value)

    def remove(self, operation: Operation) -> None:
        self._take_out(_location(operation, "path"))

    def replace(self, operation: Operation) -> None:
        path, value = _location(operation, "path"), _value(operation)
        self._charge(value, path)
        parent, key = self._existing(path)
        self._undo.append(partial(parent.__setitem__, key, parent[key]))
        parent[key] = value

    def move(self, operation: Operation) -> None:
        source, path = _location(operation, "from"), _location(operation, "path")
        parent, key = self._existing(source)
        if source == path:
            return
        if source == path[: len(source)]:
            raise PatchRefused("A value cannot be moved into itself.")
        value = parent[key]
        if len(path) > len(source):
            self._charge(value, path)
        self._take_out(source)
        self._put(path, value)

    def copy(self, operation: Operation) -> None:
        source, path = _location(operation, "from"), _location(operation, "path")
        parent, key = self._existing(source)
        # Read back from its JSON, a copy shares nothing with what it was made of.
        self._put(path, msgspec.json.decode(self._charge(parent[key], path)))

    def test(self, operation: Operation) -> None:
        parent, key = self._existing(_location(operation, "path"))
        if not equal(parent[key], _value(operation)):
            raise PatchRefused("A test failed.")

    # --- Places

    def _parent(self, path: list[str]) -> Any:
        """Find the object or array that has, or will have, a member at *path*."""
        found: Any = self._holder
        for token in path[:-1]:
            found = found[_key(found, token)]
        if not isinstance(found, dict | list):
            raise PatchRefused("A path leads through a value that has no members.")
        return found

    def _existing(self, path: list[str]) -> tuple[Any, Any]:
        """Find the value at *path*: what holds it, and under which name or index."""
        parent = self._parent(path)
        return parent, _key(parent, path[-1])

    def _put(self, path: list[str], value: Any) -> None:
        parent = self._parent(path)
        if isinstance(parent, list):
            index = len(parent) if path[-1] == "-" else _index(path[-1], len(parent))
            self._charge_shift(len(parent) - index)
            self._undo.append(partial(parent.pop, index))
            parent.insert(index, value)
            return
        name = path[-1]
        back = partial(parent.__setitem__, name, parent[name]) if name in parent else partial(parent.pop, name)
        self._undo.append(back)
        parent[name] = value

    def _take_out(self, path: list[str]) -> None:
        parent, key = self._existing(path)
        if parent is self._holder:
            raise PatchRefused("The whole document cannot be removed.")
        if isinstance(parent, list):
            self._charge_shift(len(parent) - key)
            self._undo.append(partial(parent.insert, key, parent[key]))
        else:
            self._undo.append(partial(parent.__setitem__, key, parent[key]))
        del parent[key]

    # --- Bounds

    def _charge(self, value: Any, path: list[str]) -> bytes:
        """Account for *value*, which will stand at *path*, before anything is done with it; answer it as JSON."""
        containers_above = len(path) - 1  # the holder is none of the document's
        _check_bounds(value, self._work_left, DEPTH_MAX - containers_above)
        encoded = msgspec.json.encode(value)
        self._spend(len(encoded))
        return encoded

    def _charge_shift(self, elements: int) -> None:
        self._spend(elements // ELEMENTS_SHIFTED_PER_BYTE)

    def _spend(self, byte_count: int) -> None:
        self._work_left -= byte_count
        if self._work_left < 0:
            raise _too_much()


_OPERATIONS: Final[dict[str, Callable[[_Patching, Operation], None]]] = {
    "add": _Patching.add,
    "remove": _Patching.remove,
    "replace": _Patching.replace,
    "move": _Patching.move,
    "copy": _Patching.copy,
    "test": _Patching.test,
}


def _location(operation: Operation, member: str) -> list[str]:
    """Read a JSON pointer (RFC 6901, section 3) as the names that lead to its place from the holder."""
    pointer = operation.get(member)
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")) or _STRAY_TILDE.search(pointer):
        raise PatchRefused(f"The operation's {member} is a JSON pointer.")
    # Split at its slashes, a pointer begins with the empty text, which happens to be the root's name.
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")]


def _value(operation: Operation) -> Any:
    if "value" not in operation:
        raise PatchRefused("The operation has no value.")
    return operation["value"]


def _key(parent: Any, token: str) -> Any:
    """Find the name or index under which *parent* has a member."""
    if isinstance(parent, list):
        return _index(token, len(parent) - 1)
    if isinstance(parent, dict) and token in parent:
        return token
    raise PatchRefused("A path leads nowhere.")


def _index(token: str, index_max: int) -> int:
    if not _INDEX.fullmatch(token) or int(token) > index_max:
        raise PatchRefused("A path leads to no element of an array.")
    return int(token)


def _check_bounds(value: Any, bytes_max: int, levels_max: int) -> None:
    """
    Refuse a value that surely takes over *bytes_max* as JSON, or is nested over *levels_max* deep.

    It looks at *bytes_max* parts of the value at most: what is no text counts as one byte, which is the least it takes.
    """
    counted, levels, row = 0, 0, [value]
    while row:
        below: list[Any] = []
        for each in row:
            counted += 1
            if type(each) is str:
                counted += len(each)
            elif type(each) is list or type(each) is dict:
                if levels == levels_max:
                    raise PatchRefused(f"The document would be nested over {DEPTH_MAX} deep.")
                if counted + len(each) > bytes_max:
                    raise _too_much()  # before the members are even gathered
                counted += sum(map(len, each)) if type(each) is dict else 0
                below.extend(each.values() if type(each) is dict else each)
            if counted > bytes_max:
                raise _too_much()
        row, levels = below, levels + 1


def _too_much() -> PatchRefused:
    return PatchRefused(f"The patch adds, copies, moves deeper and shifts more than {WORK_MAX:,} bytes.")
