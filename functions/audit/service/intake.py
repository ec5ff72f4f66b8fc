"""Taking in what other services tell."""

from collections.abc import Callable
from dataclasses import dataclass

from functions.audit import domain
from functions.audit.service.sealing import Sealing, sealed
from holdfast.streams import Appended, EventStores


@dataclass(frozen=True)
class Intake:
    """Every tenant's streams, for what comes over the bus."""

    stores: EventStores[bytes]
    sealing_of: Callable[[str], Sealing]

    def take(self, message: bytes) -> Appended:
        """
        Append what a message tells to the stream of what it is about; one that comes again appends nothing.

        Raises:
            Invalid: it tells nothing that could be written down, now or later; among others `idempotency_mismatch`,
                where an event of the same source and id said something else.
            Conflict: `subject_erased`.
        """
        taken = domain.understand_message(message)
        writing = domain.understand_taken(taken)
        (checked,) = writing.appends
        append = sealed(checked, self.sealing_of(taken.tenant))
        return self.stores.of(taken.tenant, domain.ACTOR).append(
            append.stream,
            append.expected,
            append.events,
            commit_id=writing.commit_id,
            fingerprint=append.fingerprint,
        )
