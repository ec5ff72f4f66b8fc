"""The log as a tail reads it: positions, and the events of wanted streams with their commits' facts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from holdfast.log import Entry, LogReader
from holdfast.log.bodies import Bodies, Stored
from holdfast.tailing import Tailed

Render = Callable[[str, Stored], Sequence[bytes]]
"""Writes a tenant's commit's events as a reader of its stream sees them: JSON, one each, in order."""


@dataclass(frozen=True)
class IndexedLog:
    """The log that the indexer makes."""

    bodies: Bodies
    render: Render

    def positions(self, tenant: str) -> Sequence[int]:
        return [head.position for head in self._reader(tenant).heads()]

    def events(
        self, tenant: str, partition: int, *, after: int, until: int, wanted: Callable[[str], bool]
    ) -> Iterator[Tailed]:
        for entry, commit in self.bodies.of(tenant, self._wanted(tenant, partition, after, until, wanted)):
            for position, event in enumerate(self.render(tenant, commit), start=entry.position):
                if after < position <= until:
                    yield Tailed(partition, position, commit.stream, event)

    def _wanted(
        self, tenant: str, partition: int, after: int, until: int, wanted: Callable[[str], bool]
    ) -> Iterator[Entry]:
        # Chosen before their commits are fetched: a tail of one stream does not read the others.
        for entry in self._reader(tenant).entries(partition, after, until=until):
            if wanted(entry.reference.stream):
                yield entry

    def _reader(self, tenant: str) -> LogReader:
        return LogReader(self.bodies.database, self.bodies.tables, tenant)
