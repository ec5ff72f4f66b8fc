"""Recording reads, and turning that on and off."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from functions.audit import domain
from holdfast.clock import Clock
from holdfast.errors import ServiceError, Unavailable, once_done
from holdfast.ids import derived
from holdfast.streams import ANY, CompanionRefused, EventStore, Instant
from holdfast.streams.rules import empty
from holdfast.switches.values import Switched, change, turned

TURNS_MAX: Final = 8
"""How often a change is decided again when others get ahead of it."""


class Switches(Protocol):
    """What tenants have turned on (`holdfast.switches.Switches`)."""

    def known(self, tenant: str) -> Switched: ...
    def now(self, tenant: str) -> Switched: ...


@dataclass(frozen=True)
class Access:
    """One tenant's reads, by one caller."""

    store: EventStore[bytes]
    """It may write the tenant's switches beside an event."""
    switches: Switches
    tenant: str
    clock: Clock

    def record(self, read: domain.Read) -> None:
        """
        Record a read before it is answered, if the tenant wants that: one put of one unit.

        Raises:
            Invalid: `event_too_large`; asked in these words it never can be.
            Unavailable: `not_recorded`; what cannot be recorded is not answered.
        """
        with _or_not_recorded():
            is_wanted = domain.RECORD_READS in self.switches.known(self.tenant).on
        if not is_wanted:
            return
        now = self.clock.now()
        stream, event = domain.stream_of(read, now), domain.event_of(read, now)
        # Nobody else writes there, so nothing has to be looked at first.
        boundary = empty(self.tenant, stream, Instant(now, self.clock.monotonic()))
        with _or_not_recorded():
            self.store.append(stream, boundary, [event], commit_id=read.commit_id)

    def settings(self) -> Switched:
        """Read what is turned on."""
        return self.switches.now(self.tenant)

    def turn(self, *, is_on: bool, by: str) -> Switched:
        """
        Turn the recording of reads on or off, for every function within 30 s; the stream `access/settings` tells of it.

        Raises:
            Unavailable: `contended`; repeat.
        """
        for _ in range(TURNS_MAX):
            before = self.switches.now(self.tenant)
            after = turned(before, {domain.RECORD_READS: is_on}, by=by, now=self.clock.now())
            if after == before:
                return before
            event = domain.switched_event(self.tenant, after.version, is_on=is_on, by=by)
            commit_id = derived("switch", self.tenant, str(after.version), by, str(is_on))
            try:
                self.store.append(
                    domain.SETTINGS_STREAM,
                    ANY,
                    [event],
                    commit_id=commit_id,
                    fingerprint=commit_id.encode(),
                    companions=[change(self.tenant, before, after)],
                )
            except CompanionRefused:
                continue
            with once_done():
                return self.switches.now(self.tenant)
        raise Unavailable("contended", "Others keep changing these settings. Nothing happened; repeat.")


@contextmanager
def _or_not_recorded() -> Iterator[None]:
    """
    Refuse to answer what could not be recorded, for whatever reason.

    A repeat comes with a request id of its own: so also whose id was taken may ask again.

    Raises:
        Unavailable: `not_recorded`.
    """
    try:
        yield
    except ServiceError as error:
        raise Unavailable(
            "not_recorded",
            "Reads are recorded here, and this one could not be; so it is not answered. Repeat.",
            retry_after_seconds=1,
        ) from error
