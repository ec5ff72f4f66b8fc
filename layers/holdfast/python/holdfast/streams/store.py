"""The port: what every event store promises. Memory, moto and DynamoDB pass one set of tests."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from holdfast.streams.companions import Companion
from holdfast.streams.values import Append, Appended, Commit, Expected

E = TypeVar("E")


class EventStore(Protocol[E]):
    """
    The streams of one tenant, written by one actor.

    The store is bound to both when it is made, so no call can name another tenant.
    """

    def append(
        self,
        stream: str,
        expected: Expected,
        events: Sequence[E],
        *,
        commit_id: str,
        fingerprint: bytes | None = None,
        companions: Sequence[Companion] = (),
    ) -> Appended:
        """
        Append *events* where the stream ends at *expected*.

        Repeating the call with the same *commit_id* and events gives the first answer, whatever has
        happened since.

        Raises:
            StaleStream: the stream ends elsewhere; nothing was written.
            CompanionRefused: a companion's condition does not hold; nothing was written.
            Invalid: `idempotency_mismatch`, *commit_id* has been used for something else; or a bound is exceeded.
            Unavailable: nothing was written; repeat. `contended`: too many writers at the end of one stream.
            Uncertain: it may have been written; repeat with the same *commit_id*. After that only a success, a
                `StaleStream` or an `idempotency_mismatch` is final: what a companion refuses now may still arrive.
        """

    def append_many(
        self, appends: Sequence[Append[E]], *, commit_id: str, companions: Sequence[Companion] = ()
    ) -> tuple[Appended, ...]:
        """Append to several distinct streams, all or nothing; the promises and errors of `append`."""

    def recall(self, commit_id: str) -> tuple[Appended, ...]:
        """
        Say where events came to stand whose append expected any version, once and for all; nothing if there is none.

        What was asked is not compared: the commit that stands there has its fingerprint. An append that expected a
        version is not recalled but repeated.
        """

    def read(
        self, stream: str, after: int = 0, *, until: int | None = None, at: datetime | None = None
    ) -> Iterator[Commit[E]]:
        """
        Yield the commits that hold versions *after* + 1 to *until*, in order.

        The first may begin at or before *after*, and the last may end beyond *until*: commits come whole. With *at*,
        those of which every event says that it happened later are left out; a time left out is the recorded time.
        A stream that does not exist yields nothing.
        """

    def read_back(self, stream: str, before: int | None = None) -> Iterator[Commit[E]]:
        """Yield the commits that hold versions below *before*, newest first."""

    def last(self, stream: str) -> Commit[E] | None:
        """Read the newest commit, as the store knows it now."""


class EventStores(Protocol[E]):
    """Where a caller gets a store of its own."""

    def of(self, tenant: str, actor: str) -> EventStore[E]: ...
