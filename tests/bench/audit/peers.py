"""
The `eventsourcing` library as a peer: its own modules for memory (POPO) and for SQLite, in the same process.

Appending is judged by its recorders, which are given bytes as our stores are; that leaves out what its aggregates and
its mapper take, and is so its fastest way. What `application.save` takes with them is told beside it. Replay is
`repository.get`, which is what it offers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import ApplicationRecorder, StoredEvent
from eventsourcing.popo import POPOApplicationRecorder
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore

NAME = "eventsourcing"


class Stock(Aggregate):
    """The same state as our streams have: members that are set and removed."""

    def __init__(self) -> None:
        self.members: dict[str, Any] = {}

    @event("MemberChanged")
    def change(self, name: str, value: Any) -> None:
        if value is None:
            self.members.pop(name, None)
        else:
            self.members[name] = {**self.members.get(name, {}), **value}


def popo() -> ApplicationRecorder:
    return POPOApplicationRecorder()


@contextmanager
def sqlite() -> Iterator[ApplicationRecorder]:
    """Make a recorder on a file, with the library's own settings."""
    with TemporaryDirectory() as folder:
        datastore = SQLiteDatastore(str(Path(folder) / "events.db"))
        recorder = SQLiteApplicationRecorder(datastore)
        recorder.create_table()
        yield recorder
        datastore.close()


def batches(events: Sequence[bytes], size: int) -> list[list[StoredEvent]]:
    """Make the events of one originator, in lists of *size*."""
    originator = uuid4()
    stored = [StoredEvent(originator, version, "bench:happened", state) for version, state in enumerate(events, 1)]
    return [stored[start : start + size] for start in range(0, len(stored), size)]


def append(recorder: ApplicationRecorder, lists: Sequence[Sequence[StoredEvent]]) -> None:
    for stored in lists:
        recorder.insert_events(stored)


@contextmanager
def application(module: str) -> Iterator[Application[UUID]]:
    """Make an application on one of the library's modules, with its own settings."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "stock.db")
        made = Application[UUID](env={"PERSISTENCE_MODULE": f"{NAME}.{module}", "SQLITE_DBNAME": path})
        yield made
        made.close()


def save(saving: Application[UUID], patches: Sequence[dict[str, Any]], at_once: int) -> UUID:
    """Write an aggregate of as many events as there are *patches*, so many at once; return its id."""
    stock = Stock()
    for number, patch in enumerate(patches, 1):
        for name, value in patch.items():
            stock.change(name, value)
        if number % at_once == 0:
            saving.save(stock)
    saving.save(stock)
    return stock.id
