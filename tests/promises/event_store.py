"""Everything that an event store promises."""

import pytest

from holdfast.streams import EventStore, EventStores
from tests.promises.appending import Appending
from tests.promises.bounds import Bounds
from tests.promises.racing import Racing
from tests.promises.repeating import Repeating
from tests.promises.together import Together


class EventStorePromises(Appending, Repeating, Bounds, Together, Racing):
    """
    Subclasses provide `stores`, `tenant` (fresh for each test), `row` (to look at a companion's row) and `asked`: a
    fuse that sees each call that the stores make on a database, or none where there is no database.
    """

    @pytest.fixture
    def store(self, stores: EventStores[bytes], tenant: str) -> EventStore[bytes]:
        return stores.of(tenant, "ann")
