"""
The conformance kit that the library `eventsourcing` publishes, on the running engine: nothing left out or changed.

Its base classes are reached through their modules, so that only what derives from them here is collected.
"""

import itertools
import unittest
import uuid
from collections.abc import Iterator
from typing import ClassVar
from uuid import UUID

import pytest
from eventsourcing.application import Application
from eventsourcing.persistence import ProcessRecorder, Tracking
from eventsourcing.tests import application as application_kit
from eventsourcing.tests import persistence as kit
from eventsourcing.tests import projection as projection_kit
from eventsourcing.utils import Environment, get_topic

from holdfast.aws import client
from holdfast.dynamodb.reads import get
from holdfast.integrations import eventsourcing as holdfast_persistence
from holdfast.integrations.eventsourcing import (
    HoldfastAggregateRecorder,
    HoldfastApplicationRecorder,
    HoldfastFactory,
    HoldfastProcessRecorder,
    HoldfastTrackingRecorder,
)
from holdfast.streams.companions import Companion, Is, Put, Update
from tests.dynamo_tables import REGION

KIT_TESTS = 40
"""What the kit holds for a module such as ours; one fewer would mean that something is no longer collected."""

_PREFIXES = (f"kit{number}-" for number in itertools.count())


@pytest.fixture(scope="module")
def table(stack) -> Iterator[str]:
    """A table that the module under test creates itself, when its first recorder is made."""
    name = f"test-eventsourcing-{uuid.uuid4().hex[:8]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        client.cache_clear()
        yield name
        client.cache_clear()
    stack.client("dynamodb").delete_table(TableName=name)


@pytest.fixture(autouse=True)
def settings(request: pytest.FixtureRequest, stack, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open every application with our module, each test under a prefix of its own."""
    env = {
        "PERSISTENCE_MODULE": holdfast_persistence.__name__,
        "HOLDFAST_TABLE": table,
        "HOLDFAST_PREFIX": next(_PREFIXES),
        "HOLDFAST_REGION": REGION,
        "HOLDFAST_ENDPOINT_URL": stack.running.engine.dynamodb_endpoint_url,
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    if request.cls is not None:
        request.cls.env = Environment(env=env) if issubclass(request.cls, kit.InfrastructureFactoryTestCase) else env


class Unskipped(unittest.TestCase):
    """A test that fails where it would skip itself, or be skipped: the kit is passed whole or not at all."""

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        def refuse(test: unittest.TestCase, reason: str) -> None:
            raise AssertionError(f"a test of the kit was skipped: {reason}")

        assert result is not None
        result.addSkip = refuse  # type: ignore[method-assign]
        return super().run(result)


class EnvironmentOfTest:
    """Makes what a test asks for from the settings; every recorder under a prefix of its own."""

    env: ClassVar[dict[str, str]]

    def factory_of(self) -> HoldfastFactory:
        return HoldfastFactory.construct({**self.env, "HOLDFAST_PREFIX": next(_PREFIXES)})


class TestAggregateRecorder(Unskipped, EnvironmentOfTest, kit.AggregateRecorderTestCase):
    def create_recorder(self) -> HoldfastAggregateRecorder:
        return self.factory_of().aggregate_recorder()


class TestApplicationRecorder(
    Unskipped, EnvironmentOfTest, kit.ApplicationRecorderTestCase[HoldfastApplicationRecorder]
):
    def create_recorder(self) -> HoldfastApplicationRecorder:
        return self.factory_of().application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(Unskipped, EnvironmentOfTest, kit.TrackingRecorderTestCase):
    def create_recorder(self) -> HoldfastTrackingRecorder:
        return self.factory_of().tracking_recorder()


class TestProcessRecorder(Unskipped, EnvironmentOfTest, kit.ProcessRecorderTestCase):
    def create_recorder(self) -> ProcessRecorder:
        return self.factory_of().process_recorder()


class TestNonInterleaving(Unskipped, EnvironmentOfTest, kit.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> HoldfastApplicationRecorder:
        return self.factory_of().application_recorder()


class OtherTrackingRecorder(HoldfastTrackingRecorder):
    pass


class TestInfrastructureFactory(Unskipped, kit.InfrastructureFactoryTestCase[HoldfastFactory]):
    def expected_factory_class(self) -> type[HoldfastFactory]:
        return HoldfastFactory

    def expected_aggregate_recorder_class(self) -> type[HoldfastAggregateRecorder]:
        return HoldfastAggregateRecorder

    def expected_application_recorder_class(self) -> type[HoldfastApplicationRecorder]:
        return HoldfastApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[HoldfastTrackingRecorder]:
        return HoldfastTrackingRecorder

    def tracking_recorder_subclass(self) -> type[HoldfastTrackingRecorder]:
        return OtherTrackingRecorder

    def expected_process_recorder_class(self) -> type[HoldfastProcessRecorder]:
        return HoldfastProcessRecorder


class TestExampleApplication(Unskipped, application_kit.ExampleApplicationTestCase):
    expected_factory_topic = get_topic(HoldfastFactory)


# One of these tests sees to it that the library warns of its own old name; here a warning would be an error.
@pytest.mark.filterwarnings("always:'log' is deprecated:DeprecationWarning")
class TestApplication(Unskipped, application_kit.ApplicationTestCase):
    pass


class EventCounters(HoldfastTrackingRecorder, projection_kit.EventCountersView):
    """A view of two counters, each a row that changes together with the tracking."""

    def get_created_event_counter(self) -> int:
        return self._count("created")

    def get_subsequent_event_counter(self) -> int:
        return self._count("subsequent")

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self.insert_tracking_with(tracking, [self._increment("created")])

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self.insert_tracking_with(tracking, [self._increment("subsequent")])

    def _count(self, name: str) -> int:
        row = get(self.space.database, self.space.table, self.space.view_key("counters"), name)
        return 0 if row is None else int(row["count"])

    def _increment(self, name: str) -> Companion:
        key, count = {"pk": self.space.view_key("counters"), "sk": name}, self._count(name)
        if count == 0:
            return Put(self.space.table, key, {"count": 1})
        return Update(self.space.table, key, (Is("count", count),), set={"count": count + 1})


class TestEventCountersView(Unskipped, EnvironmentOfTest, projection_kit.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> EventCounters:
        view = self.factory_of().tracking_recorder(EventCounters)
        assert isinstance(view, EventCounters)
        return view


class TestAggregateEventCountersProjection(Unskipped, projection_kit.AggregateEventCountersProjectionTestCase):
    view_class = EventCounters


class TestEventSourcedProjection(Unskipped, projection_kit.EventSourcedProjectionTestCase):
    pass


def test_what_the_kit_opens_without_settings_of_its_own_is_ours():
    assert isinstance(Application[UUID]().factory, HoldfastFactory)


def test_the_kit_is_here_whole():
    here = [each for each in globals().values() if isinstance(each, type) and issubclass(each, unittest.TestCase)]
    tests = [getattr(case, name) for case in here for name in unittest.defaultTestLoader.getTestCaseNames(case)]

    assert len(tests) == KIT_TESTS
    assert all(issubclass(case, Unskipped) for case in here)


@pytest.mark.parametrize(
    "skipping", [lambda case: case.skipTest("not now"), unittest.skip("never")(lambda _case: None)]
)
def test_a_test_of_the_kit_that_is_skipped_fails(skipping):
    case = type("Skipping", (Unskipped,), {"runTest": skipping})()

    with pytest.raises(AssertionError, match="was skipped"):
        case.run(unittest.TestResult())
