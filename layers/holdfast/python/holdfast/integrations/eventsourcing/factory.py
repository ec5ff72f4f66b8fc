"""
The library's door to these recorders, and the settings that it is opened with.

    HOLDFAST_TABLE          the table; `holdfast-eventsourcing` if not set
    HOLDFAST_PREFIX         put before the application's name in every key, so that many may share a table
    HOLDFAST_REGION         the region; otherwise what the AWS SDK finds
    HOLDFAST_ENDPOINT_URL   another DynamoDB, such as a local one
    CREATE_TABLE            whether a table that is not there is created: yes if not set

As with every setting of the library, one for a single application is written behind its name (`ORDERS_HOLDFAST_TABLE`).
"""

from typing import Any, Final, TypeVar

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment, EnvType, resolve_topic, strtobool

from holdfast.dynamodb import BotocoreTransport, Database
from holdfast.dynamodb.transport import Rejected
from holdfast.errors import Unavailable
from holdfast.integrations.eventsourcing.recorders import (
    HoldfastAggregateRecorder,
    HoldfastApplicationRecorder,
    HoldfastProcessRecorder,
    HoldfastTrackingRecorder,
)
from holdfast.integrations.eventsourcing.refusals import library_errors
from holdfast.integrations.eventsourcing.rows import Space, check_name

C = TypeVar("C")

DEFAULT_TABLE: Final = "holdfast-eventsourcing"
NAMELESS: Final = "stored"
"""The space of an application without a name."""
CREATION_LOOKS_MAX: Final = 60
"""How often a new table is looked at until it is there."""
CREATION_WAIT_SECONDS: Final = 0.5


class HoldfastFactory(InfrastructureFactory[HoldfastTrackingRecorder]):
    """Makes recorders on one table."""

    HOLDFAST_TABLE = "HOLDFAST_TABLE"
    HOLDFAST_PREFIX = "HOLDFAST_PREFIX"
    HOLDFAST_REGION = "HOLDFAST_REGION"
    HOLDFAST_ENDPOINT_URL = "HOLDFAST_ENDPOINT_URL"
    CREATE_TABLE = "CREATE_TABLE"

    aggregate_recorder_class = HoldfastAggregateRecorder
    application_recorder_class = HoldfastApplicationRecorder
    tracking_recorder_class = HoldfastTrackingRecorder
    process_recorder_class = HoldfastProcessRecorder

    def __init__(self, env: Environment | EnvType | None) -> None:
        """
        Read the settings; nothing is asked of the network.

        Raises:
            OSError: the name or the prefix cannot be part of a key.
        """
        super().__init__(env)
        transport = BotocoreTransport(
            self.env.get(self.HOLDFAST_REGION) or None, self.env.get(self.HOLDFAST_ENDPOINT_URL) or None
        )
        name = self.env.get(self.HOLDFAST_PREFIX, "") + (self.env.name.lower() or NAMELESS)
        if "#" in name:
            raise OSError(f"'{name}' holds a '#', which joins the parts of keys: change {self.HOLDFAST_PREFIX}.")
        with library_errors():
            check_name(name)
        table = self.env.get(self.HOLDFAST_TABLE) or DEFAULT_TABLE
        self.space = Space(Database.connect(transport), table, name)
        self._is_created = False

    def aggregate_recorder(self, purpose: str = "events") -> HoldfastAggregateRecorder:
        self._create_table()
        return self.aggregate_recorder_class(self.space, purpose)

    def application_recorder(self) -> HoldfastApplicationRecorder:
        self._create_table()
        return self._chosen(self.APPLICATION_RECORDER_TOPIC, self.application_recorder_class)(self.space)

    def tracking_recorder(
        self, tracking_recorder_class: type[HoldfastTrackingRecorder] | None = None
    ) -> HoldfastTrackingRecorder:
        self._create_table()
        chosen = tracking_recorder_class or self._chosen(self.TRACKING_RECORDER_TOPIC, self.tracking_recorder_class)
        return chosen(self.space)

    def process_recorder(self) -> HoldfastProcessRecorder:
        self._create_table()
        return self._chosen(self.PROCESS_RECORDER_TOPIC, self.process_recorder_class)(self.space)

    def _chosen(self, setting: str, default: type[C]) -> type[C]:
        topic = self.env.get(setting)
        if not topic:
            return default
        chosen = resolve_topic(topic)
        if not (isinstance(chosen, type) and issubclass(chosen, default)):
            raise OSError(f"'{topic}' in {setting} is no {default.__name__}.")
        return chosen

    def _create_table(self) -> None:
        if self._is_created or not strtobool(self.env.get(self.CREATE_TABLE) or "yes"):
            return
        with library_errors():
            create_table(self.space)
        self._is_created = True


def create_table(space: Space) -> None:
    """
    Create the table of *space* if it is not there, and wait until it is.

    In production a template makes it, with deletion protection and recovery to a point in time.

    Raises:
        Unavailable: it is still being created.
    """
    if _status(space) is None:
        try:
            # A second attempt is told that the table exists, so this may be repeated like a read.
            space.database.read("CreateTable", _definition(space.table))
        except Rejected as rejected:
            if rejected.code != "ResourceInUseException":
                raise
    for _ in range(CREATION_LOOKS_MAX):
        if _status(space) == "ACTIVE":
            return
        space.database.clock.sleep(CREATION_WAIT_SECONDS)
    raise Unavailable("table_not_ready", f"The table {space.table} is still being created. Wait, then repeat.")


def _status(space: Space) -> str | None:
    try:
        return str(space.database.read("DescribeTable", {"TableName": space.table})["Table"]["TableStatus"])
    except Rejected as rejected:
        if rejected.code != "ResourceNotFoundException":
            raise
        return None


def _definition(table: str) -> dict[str, Any]:
    return {
        "TableName": table,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    }
