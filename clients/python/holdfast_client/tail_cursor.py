"""
What the messages of a live tail mean to who has read the log so far: pure.

Events come over a WebSocket, which may lose, repeat or reorder anything. So each message names the position *after*
which it holds, and a `Cursor` compares that with what it has: it takes what follows, drops what it knows, and says what
is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, assert_never

import msgspec

from holdfast_client.audit_queries import PARTITIONS
from holdfast_client.events import RecordedEvent


class TailedEvent(msgspec.Struct, frozen=True):
    """The next event of its partition, and where it stands in the log."""

    partition: int
    position: int
    stream: str
    event: RecordedEvent


class Missing(msgspec.Struct, frozen=True):
    """Something of these partitions did not arrive: read them from the log, from the cursor on."""

    partitions: tuple[int, ...]


class Refused(Exception):
    """The server will not go on with this connection."""


class TokenEnded(Refused):
    """The token has ended that the connection was opened with; one that is opened with a newer token goes on."""


_TOKEN_ENDED = frozenset({"token_expired", "token_revoked"})
_Partition = Annotated[int, msgspec.Meta(ge=0, lt=PARTITIONS)]


class _Event(msgspec.Struct, frozen=True, tag_field="type", tag="event"):
    partition: _Partition
    position: int
    after: int
    stream: str
    event: dict[str, Any]


class _At(msgspec.Struct, frozen=True, tag_field="type", tag="at"):
    positions: dict[str, int]
    after: dict[str, int]


class _Gap(msgspec.Struct, frozen=True, tag_field="type", tag="gap"):
    partition: _Partition
    after: int


class _Error(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    code: str
    detail: str = ""


_MESSAGE = msgspec.json.Decoder(_Event | _At | _Gap | _Error)


@dataclass
class Cursor:
    """How far each partition has been read: everything wanted up to there was handed over."""

    positions: dict[int, int]

    def hear(self, line: str) -> TailedEvent | Missing | None:
        """
        Say what a message brings: the next event, the knowledge that something is missing, or nothing new.

        Raises:
            TokenEnded, Refused: it is an error, or nothing that this client knows.
        """
        try:
            message = _MESSAGE.decode(line)
        except msgspec.MsgspecError as error:
            raise Refused(f"The server said what this client cannot read: {error}") from error
        match message:
            case _Event():
                return self._hear_event(message)
            case _At(positions, after):
                return self._hear_at(positions, after)
            case _Gap(partition):
                return Missing((partition,))
            case _Error(code, detail):
                raise (TokenEnded if code in _TOKEN_ENDED else Refused)(f"{code}: {detail}")
            case _ as unreachable:
                assert_never(unreachable)

    def moved(self, partition: int, position: int) -> bool:
        """Take note of what was read elsewhere; False if it was known."""
        if position <= self.positions[partition]:
            return False
        self.positions[partition] = position
        return True

    def _hear_event(self, message: _Event) -> TailedEvent | Missing | None:
        partition, position = message.partition, message.position
        if position <= self.positions[partition]:
            return None
        if message.after > self.positions[partition]:
            return Missing((partition,))
        try:
            event = RecordedEvent.of(message.event)
        except msgspec.ValidationError:
            return Missing((partition,))  # what the log says of it counts
        self.positions[partition] = position
        return TailedEvent(partition, position, message.stream, event)

    def _hear_at(self, positions: Mapping[str, int], after: Mapping[str, int]) -> Missing | None:
        missing = []
        for partition, known in self.positions.items():
            if after.get(str(partition), 0) > known:
                missing.append(partition)
            else:
                self.positions[partition] = max(known, positions.get(str(partition), 0))
        return Missing(tuple(missing)) if missing else None
