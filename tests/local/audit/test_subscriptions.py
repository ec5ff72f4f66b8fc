"""Subscriptions, intake, announcements and recorded reads on the running stack, over real queues, topics, the bus."""

import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cloudevents.v1.http import from_json

from tests.local.audit.conftest import OwnTenant, happened

SETTLES_IN_SECONDS = 90.0
"""A sweep comes once a minute on AWS, and more often here."""
STREAMS = ("orders/1", "orders/2", "users/1")
_NUMBERS = itertools.count()


class Target:
    """A queue, and what has arrived there."""

    def __init__(self, sqs: Any, **attributes: str) -> None:
        self._sqs = sqs
        suffix = ".fifo" if attributes.get("FifoQueue") else ""
        self.name = f"target-{uuid.uuid4().hex[:8]}-{next(_NUMBERS)}{suffix}"
        self.url = sqs.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"]
        self.arn: str = sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        self.bodies: list[str] = []

    def allow(self, service: str, source_arn: str) -> None:
        """Let a service send to the queue."""
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": "sqs:SendMessage",
            "Resource": self.arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": source_arn}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self._sqs.set_queue_attributes(QueueUrl=self.url, Attributes={"Policy": policy})

    def receive(self) -> None:
        found = self._sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in found.get("Messages", ()):
            self.bodies.append(message["Body"])
            self._sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])

    def until(self, is_there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SETTLES_IN_SECONDS
        while not is_there():
            assert time.monotonic() < deadline, f"{len(self.bodies)} have arrived: {self.bodies[-3:]}"
            self.receive()

    @property
    def events(self) -> list[Any]:
        return [json.loads(body) for body in self.bodies]


@pytest.fixture(scope="module")
def sqs(tenant: OwnTenant) -> Any:
    return tenant.stack.client("sqs")


def put(tenant: OwnTenant, name: str, target: str, **settings: Any) -> Any:
    body = {"target": target, "from": "start", **settings}
    answer = tenant.http.put(f"/v1/subscriptions/{name}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def written(tenant: OwnTenant) -> OwnTenant:
    for number in range(12):
        for stream in STREAMS:
            tenant.audit.append(
                stream, [happened(f"{stream}-{number}-{n}", data={"n": n}) for n in range(3)], number * 3
            )
    return tenant


@pytest.fixture(scope="module")
def queue(written: OwnTenant, sqs: Any) -> Target:
    """Get every event from the first on."""
    target = Target(sqs)
    put(written, "everything", target.arn)
    return target


def test_a_queue_gets_every_event_and_each_stream_in_its_order(written: OwnTenant, queue: Target):
    queue.until(lambda: len({each["id"] for each in queue.events}) == 36 * len(STREAMS))

    for stream in STREAMS:
        own = [each["streamversion"] for each in queue.events if each["id"].startswith(stream)]
        assert sorted(set(own)) == list(range(1, 37))
    assert all(from_json(body)["recordedat"] for body in queue.bodies)
    assert {from_json(body)["tenant"] for body in queue.bodies} == {written.name}
    answer = written.get("/v1/subscriptions/everything")
    assert (answer["parked"], sum(each["lag_events"] for each in answer["partitions"])) == (0, 0)


def test_what_is_written_then_arrives_within_moments(written: OwnTenant, queue: Target):
    written.audit.append("orders/3", [happened("new")], None)

    queue.until(lambda: any(each["id"] == "new" for each in queue.events))


def test_a_fifo_queue_keeps_the_order_of_each_stream_to_the_end(written: OwnTenant, sqs: Any):
    target = Target(sqs, FifoQueue="true")
    put(written, "in-order", target.arn, stream_prefix="orders/")

    target.until(lambda: len(target.bodies) >= 73)

    for stream in ("orders/1", "orders/2"):
        own = [each["streamversion"] for each in target.events if each["id"].startswith(stream)]
        assert own == list(range(1, 37))
    assert not any(each["id"].startswith("users") for each in target.events)


def test_a_topic_passes_events_on(written: OwnTenant, sqs: Any):
    sns = written.stack.client("sns")
    topic = sns.create_topic(Name=f"news-{uuid.uuid4().hex[:8]}")["TopicArn"]
    listener = Target(sqs)
    listener.allow("sns.amazonaws.com", topic)
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=listener.arn, Attributes={"RawMessageDelivery": "true"})
    put(written, "news", topic, types=["test.happened"], stream_prefix="users/")

    listener.until(lambda: len({each["id"] for each in listener.events}) == 36)


def test_a_target_that_is_not_there_holds_up_nobody_else(written: OwnTenant, sqs: Any):
    missing = Target(sqs)
    sqs.delete_queue(QueueUrl=missing.url)
    put(written, "missing", missing.arn)
    other = Target(sqs)
    put(written, "other", other.arn, stream_prefix="users/")

    other.until(lambda: len({each["id"] for each in other.events}) == 36)

    answer = written.get("/v1/subscriptions/missing")
    assert (answer["parked"], [each["position"] for each in answer["partitions"]]) == (0, [0] * 4)
    assert written.http.delete("/v1/subscriptions/missing").status_code == 204
    assert written.http.get("/v1/subscriptions/missing").status_code == 404


# ----- over the bus


@pytest.fixture(scope="module")
def overheard(tenant: OwnTenant, sqs: Any) -> Iterator[Target]:
    """What the audit trail tells on the bus."""
    target = Target(sqs)
    events = tenant.stack.client("events")
    rule = events.put_rule(Name=target.name, EventBusName="holdfast", EventPattern='{"source":["holdfast.audit"]}')
    target.allow("events.amazonaws.com", rule["RuleArn"])
    events.put_targets(Rule=target.name, EventBusName="holdfast", Targets=[{"Id": "all", "Arn": target.arn}])
    yield target
    events.remove_targets(Rule=target.name, EventBusName="holdfast", Ids=["all"])
    events.delete_rule(Name=target.name, EventBusName="holdfast")


def test_signed_anchors_are_told_on_the_bus(overheard: Target, tenant: OwnTenant):
    tenant.audit.append("orders/9", [happened("to be anchored")], None)

    overheard.until(lambda: any(each["detail-type"] == "holdfast.audit.anchor.signed.v1" for each in overheard.events))

    told = next(each for each in overheard.events if each["detail-type"] == "holdfast.audit.anchor.signed.v1")
    assert from_json(json.dumps(told["detail"]))["source"] == told["source"] == "holdfast.audit"
    assert told["detail"]["data"]["seq"] >= 1


def test_another_services_event_is_taken_in_once(tenant: OwnTenant):
    bus = tenant.stack.client("events")
    event = {
        "specversion": "1.0",
        "id": "captured-1",
        "source": "holdfast.payments",
        "type": "holdfast.payments.payment.captured.v1",
        "subject": "p-1",
        "time": "2026-01-01T12:00:00Z",
        "tenant": tenant.name,
        "data": {"amount_minor": 4200},
    }
    entry = {
        "EventBusName": "holdfast",
        "Source": event["source"],
        "DetailType": event["type"],
        "Detail": json.dumps(event),
    }
    for _ in range(3):
        bus.put_events(Entries=[entry])
    entry["Detail"] = json.dumps({**event, "id": "captured-2"})
    bus.put_events(Entries=[entry])

    deadline = time.monotonic() + SETTLES_IN_SECONDS
    while len(found := ids(tenant, "payments~p-1")) < 2:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    time.sleep(1)
    assert sorted(ids(tenant, "payments~p-1")) == ["captured-1", "captured-2"]


def ids(tenant: OwnTenant, stream: str) -> list[str]:
    answer = tenant.http.get(f"/v1/streams/{stream}/events")
    return [each["id"] for each in answer.json()["events"]] if answer.status_code == 200 else []


# ----- reads


def test_reads_are_recorded_once_that_is_turned_on(written: OwnTenant):
    answer = written.http.put("/v1/settings", json={"record_reads": True})
    assert (answer.status_code, answer.json()["record_reads"]) == (200, True)

    deadline = time.monotonic() + SETTLES_IN_SECONDS
    while not (of_state := recorded(written, "state")):
        assert time.monotonic() < deadline
        written.get("/v1/streams/orders~1/state")
        time.sleep(0.5)
    assert (of_state[0]["actor"], of_state[0]["subject"]) == ("tester", "orders/1")

    tail = written.audit.tail("users/")
    assert tail.positions.keys() == {0, 1, 2, 3}  # it begins there
    written.audit.append("users/9", [happened("heard")], None)
    assert next(tail).event.id == "heard"
    tail.close()
    while not (of_tail := recorded(written, "tail")):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert of_tail[0]["data"]["query"]["prefix"] == "users/"


def recorded(tenant: OwnTenant, what: str) -> list[Any]:
    items = tenant.get("/v1/events", type="holdfast.audit.read.v1", include="data")["items"]
    return [each["event"] for each in items if each["event"]["data"]["what"] == what]
