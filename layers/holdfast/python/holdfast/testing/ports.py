"""Ports that are watched: something may happen at each call on them."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

P = TypeVar("P")

Around = Callable[[str, Callable[[], Any]], Any]
"""Is given what is called, such as `call PutItem`, and the call itself; answers in its place."""


def watched(port: P, around: Around) -> P:
    """Give a stand-in for *port* of which every method call goes through *around*."""
    return cast("P", _Watched(port, around))


class _Watched:
    def __init__(self, port: Any, around: Around) -> None:
        self._port = port
        self._around = around

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            # The operation of a transport, the key of an object: the first argument tells calls apart.
            told = f"{name} {args[0]}" if args and isinstance(args[0], str) else name
            return self._around(told, lambda: found(*args, **kwargs))

        return call
