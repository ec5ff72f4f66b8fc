"""The awaiting tail where the blocking one stands: what a test makes for the one, it can hold against the other."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from holdfast_client.tail import AsyncTail
from holdfast_client.tail_cursor import TailedEvent


class Awaited:
    """Somebody whose methods are awaited."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        # Looked up when it is called: a test may replace it.
        return awaited(lambda *arguments: getattr(self._inner, name)(*arguments))  # noqa: PLW0108


def awaited(call: Callable[..., Any]) -> Callable[..., Any]:
    async def awaiting(*arguments: Any) -> Any:
        return call(*arguments)

    return awaiting


class AwaitedTail:
    """`AsyncTail`, driven step by step by who would block."""

    def __init__(
        self,
        source: Any,
        prefix: str = "",
        after: Mapping[int, int] | None = None,
        *,
        open_socket: Callable[[str], Any],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._runner = asyncio.Runner()
        self._tail = AsyncTail(
            Awaited(source),
            prefix,
            after,
            open_socket=awaited(lambda url: Awaited(open_socket(url))),
            monotonic=monotonic,
            sleep=awaited(sleep),
        )

    def __iter__(self) -> Iterator[TailedEvent]:
        return self

    def __next__(self) -> TailedEvent:
        try:
            return self._runner.run(self._tail.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    @property
    def positions(self) -> dict[int, int]:
        # Also asked for by a source that this tail is waiting for.
        return self._tail._following.positions

    def close(self) -> None:
        self._runner.run(self._tail.close())
        self._runner.close()
