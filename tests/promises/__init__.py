"""The promises of an event store: one set of tests, run against memory, moto and the running engine."""

from tests.promises.archived import ArchivedStreamPromises
from tests.promises.event_store import EventStorePromises
from tests.promises.events import event, events_of

__all__ = ["ArchivedStreamPromises", "EventStorePromises", "event", "events_of"]
