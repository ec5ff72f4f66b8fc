"""What an outbox promises, in memory and on SQS and SNS; and what the services' answers and silences mean."""

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore import exceptions as failures
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from cloudevents.v1.http import from_json
from moto import mock_aws

from holdfast import aws
from holdfast.clock import ManualClock
from holdfast.cloudevents import check
from holdfast.errors import Invalid, Unavailable
from holdfast.outbox import AwsOutbox, MemoryOutbox, Message, Outbox, RefusedMessage, announcement, target_of
from holdfast.outbox import aws as module
from holdfast.outbox.order import send_in_order
from holdfast.retry import deadline
from tests.soak import examples

REGION = "us-east-1"
ACCOUNT = "123456789012"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:inbox"
ORDERED_QUEUE = f"{QUEUE}.fifo"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:news"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

_NUMBERS = itertools.count()


def message(group: str, number: int = 0, body: str = "") -> Message:
    return Message(id=f"{group}-{number}-{next(_NUMBERS)}", group=group, body=body or f"{group}{number}")


# ----- the order in which messages go


def test_a_call_takes_ten_messages_of_ten_groups():
    calls: list[int] = []

    def send(batch: Sequence[Message]) -> Mapping[int, str]:
        calls.append(len(batch))
        return {}

    assert send_in_order([message(f"g{n}") for n in range(25)], send, message_bytes_max=1_000) == ()
    assert calls == [10, 10, 5]


def test_a_call_takes_256_kb_and_a_larger_message_goes_alone():
    calls: list[list[int]] = []

    def send(batch: Sequence[Message]) -> Mapping[int, str]:
        calls.append([len(each.body) for each in batch])
        return {}

    sizes = [100_000, 200_000, 300_000, 60_000, 62_144, 200_000]
    send_in_order([message(f"g{n}", body="x" * size) for n, size in enumerate(sizes)], send, message_bytes_max=10**6)
    assert calls == [[100_000], [200_000], [300_000], [60_000, 62_144], [200_000]]


def test_bytes_count_and_not_characters():
    refused = send_in_order([message("a", body="é" * 51)], lambda _: {}, message_bytes_max=100)

    assert refused == (RefusedMessage(0, "The message has over 100 bytes, more than the target takes."),)


@pytest.mark.parametrize("seed", range(examples(200, soak=2_000)))
def test_of_a_group_nothing_overtakes_and_nothing_follows_a_refusal(seed):
    noise = random.Random(seed)
    messages = [message(f"g{noise.randrange(4)}", n) for n in range(noise.randrange(40))]
    poison = {each.id for each in messages if noise.random() < 0.1}
    taken: list[Message] = []

    def send(batch: Sequence[Message]) -> Mapping[int, str]:
        assert len({each.group for each in batch}) == len(batch) <= 10
        taken.extend(each for each in batch if each.id not in poison)
        return {place: "no" for place, each in enumerate(batch) if each.id in poison}

    refused = {
        messages[each.index].group: messages[each.index] for each in send_in_order(messages, send, message_bytes_max=99)
    }

    for group in {each.group for each in messages}:
        own = [each for each in messages if each.group == group]
        until = next((place for place, each in enumerate(own) if each.id in poison), len(own))
        assert [each for each in taken if each.group == group] == own[:until]
        assert refused.get(group) == (own[until] if until < len(own) else None)


# ----- what every outbox promises


class OutboxPromises:
    """
    Subclasses provide `outbox`; `received`: the bodies that a target has by now, in order; and `published`: the ids
    of the events that the bus has been given by now.
    """

    @pytest.mark.parametrize("arn", [QUEUE, TOPIC])
    def test_what_was_sent_arrives(self, outbox: Outbox, received: Callable[[str], list[str]], arn: str):
        send = outbox.to_queue if arn == QUEUE else outbox.to_topic

        assert send(arn, [message(f"g{n}", n) for n in range(23)]) == ()
        assert sorted(received(arn)) == sorted(f"g{n}{n}" for n in range(23))

    def test_within_a_group_the_order_is_kept(self, outbox: Outbox, received: Callable[[str], list[str]]):
        assert outbox.to_queue(ORDERED_QUEUE, [message("a", n) for n in range(12)]) == ()

        assert received(ORDERED_QUEUE) == [f"a{n}" for n in range(12)]

    def test_too_large_a_message_is_refused_with_what_stands_behind_it(
        self, outbox: Outbox, received: Callable[[str], list[str]]
    ):
        large = message("a", 1, body="x" * (256 * 1024 + 1))

        (refused,) = outbox.to_topic(TOPIC, [message("a", 0), large, message("a", 2), message("b", 3)])

        assert refused.index == 1
        assert sorted(received(TOPIC)) == ["a0", "b3"]

    def test_what_is_no_queue_and_no_topic_is_refused(self, outbox: Outbox):
        with pytest.raises(Invalid, match="invalid_target"):
            outbox.to_queue("arn:aws:s3:::bucket", [message("a")])

    def test_nothing_to_send_is_no_call(self, outbox: Outbox):
        assert outbox.to_queue(QUEUE, []) == ()
        outbox.publish([])

    def test_events_are_published(self, outbox: Outbox, published: Callable[[], list[str]]):
        events = [happened(number) for number in range(12)]

        outbox.publish(events)

        assert sorted(published()) == sorted(each["id"] for each in events)

    def test_an_event_over_256_kb_keeps_all_back(self, outbox: Outbox, published: Callable[[], list[str]]):
        with pytest.raises(Invalid, match="event_too_large"):
            outbox.publish([happened(), happened(2, 256 * 1024)])

        assert published() == []


class TestInMemory(OutboxPromises):
    @pytest.fixture
    def outbox(self) -> MemoryOutbox:
        return MemoryOutbox()

    @pytest.fixture
    def received(self, outbox: MemoryOutbox) -> Callable[[str], list[str]]:
        return lambda arn: [each.body for each in outbox.sent[arn]]

    @pytest.fixture
    def published(self, outbox: MemoryOutbox) -> Callable[[], list[str]]:
        return lambda: [each["id"] for each in outbox.published]


class TestOnSqsAndSns(OutboxPromises):
    @pytest.fixture(autouse=True)
    def cloud(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MOTO_ACCOUNT_ID", ACCOUNT)
        with mock_aws():
            aws.client.cache_clear()
            sqs, sns = aws.client("sqs", region=REGION), aws.client("sns", region=REGION)
            sqs.create_queue(QueueName="inbox")
            sqs.create_queue(QueueName="inbox.fifo", Attributes={"FifoQueue": "true"})
            sqs.create_queue(QueueName="news")
            sns.create_topic(Name="news")
            sns.subscribe(
                TopicArn=TOPIC,
                Protocol="sqs",
                Endpoint=f"arn:aws:sqs:{REGION}:{ACCOUNT}:news",
                Attributes={"RawMessageDelivery": "true"},
            )
            aws.client("events", region=REGION).create_event_bus(Name="holdfast")
            yield
        aws.client.cache_clear()

    @pytest.fixture
    def outbox(self) -> AwsOutbox:
        return AwsOutbox("holdfast", ManualClock(), region=REGION)

    @pytest.fixture
    def received(self) -> Callable[[str], list[str]]:
        def receive(arn: str) -> list[str]:
            sqs = aws.client("sqs", region=REGION)
            url = sqs.get_queue_url(QueueName=target_of(arn).name)["QueueUrl"]
            bodies: list[str] = []
            while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
                for each in found:
                    bodies.append(each["Body"])
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])
            return bodies

        return receive

    @pytest.fixture
    def published(self) -> Callable[[], list[str]]:
        # moto's bus takes events and shows them to nobody, so they are seen on the way there.
        put: list[str] = []

        def see(params: Mapping[str, Any], **_: Any) -> None:
            put.extend(json.loads(each["Detail"])["id"] for each in params["Entries"])

        events = aws.client("events", region=REGION, endpoint_url=None)
        events.meta.events.register("before-parameter-build.events.PutEvents", see)
        return lambda: put


# ----- what answers and silences mean


class Wire:
    """The clients of AWS, whose answers a test writes: a function of the call, or an exception."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[Any] = []
        self.meta = SimpleNamespace(endpoint_url="https://sqs.us-east-1.amazonaws.com")

    def _answer(self, **request: Any) -> Any:
        self.calls.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    send_message_batch = publish_batch = put_events = _answer


def refusal(code: str, status: int = 400) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "SendMessageBatch")


def taken(*ids: int, failed: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"Successful": [{"Id": str(each)} for each in ids], "Failed": list(failed)}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> Callable[..., tuple[AwsOutbox, Wire]]:
    def wire(*answers: Any) -> tuple[AwsOutbox, Wire]:
        made = Wire(*answers)
        monkeypatch.setattr(module, "client", lambda *_, **__: made)
        return AwsOutbox("holdfast", clock), made

    return wire


def test_what_a_call_left_out_is_sent_again_and_nothing_else(wired):
    busy = {"Id": "1", "SenderFault": False, "Code": "InternalError"}
    outbox, wire = wired(taken(0, 2, failed=[busy]), taken(0))

    assert outbox.to_queue(QUEUE, [message("a"), message("b"), message("c")]) == ()
    assert [[each["MessageBody"] for each in call["Entries"]] for call in wire.calls] == [["a0", "b0", "c0"], ["b0"]]
    assert wire.calls[0]["QueueUrl"] == f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/inbox"


def test_what_an_answer_does_not_name_was_not_taken(wired):
    outbox, wire = wired(taken(0), taken(0))

    assert outbox.to_queue(QUEUE, [message("a"), message("b")]) == ()
    assert len(wire.calls) == 2


def test_a_message_that_is_to_blame_is_refused_at_once(wired):
    outbox, wire = wired(taken(1, failed=[{"Id": "0", "SenderFault": True, "Code": "InvalidParameterValue"}]))

    (refused,) = outbox.to_queue(QUEUE, [message("a"), message("b")])

    assert (refused.index, refused.reason) == (0, "InvalidParameterValue: ")
    assert len(wire.calls) == 1


TARGETS = [
    "ThrottlingException",
    "RequestThrottled",
    "KMS.ThrottlingException",
    "KMSAccessDenied",
    "AuthorizationError",
]


@pytest.mark.parametrize("code", TARGETS)
def test_what_blames_the_target_passes_whatever_the_answer_says(wired, code):
    outbox, _ = wired(taken(failed=[{"Id": "0", "SenderFault": True, "Code": code}]), taken(0))

    assert outbox.to_queue(QUEUE, [message("a")]) == ()


@pytest.mark.parametrize("code", TARGETS)
def test_a_message_is_never_to_blame_for_a_target_that_stays_busy_or_shut(wired, code):
    failing = {"SenderFault": True, "Code": code}
    outbox, wire = wired(taken(0, failed=[{"Id": "1", **failing}]), *[taken(failed=[{"Id": "0", **failing}])] * 3)

    with pytest.raises(Unavailable, match=code):
        outbox.to_queue(QUEUE, [message("a"), message("b")])
    assert len(wire.calls) == 4


@pytest.mark.parametrize(
    "failed", [[{"Id": "0", "SenderFault": False, "Code": "InternalError"}], [{"Id": "0", "Code": "InternalError"}], []]
)
def test_what_fails_on_and_is_blamed_on_no_message_makes_its_target_unavailable(wired, failed):
    """As when a target fails for a while, and tells so entry by entry: no stream is to be parked for it."""
    blamed = {"Id": "2", "SenderFault": True, "Code": "InvalidMessageContents"}
    outbox, wire = wired(taken(1, failed=[*failed, blamed]), *[taken(failed=failed)] * 3)

    with pytest.raises(Unavailable, match="target_unavailable"):
        outbox.to_queue(QUEUE, [message("a"), message("b"), message("c")])
    assert len(wire.calls) == 4


@pytest.mark.parametrize(
    "silence",
    [
        failures.ConnectTimeoutError(endpoint_url="x"),
        failures.ReadTimeoutError(endpoint_url="x"),
        aws.Garbled("cut short", {}),
        ResponseParserError("no element found"),
        refusal("InternalFailure", 500),
        refusal("Throttling"),
        refusal("RequestThrottled", 403),
        refusal("", 429),
    ],
)
def test_a_call_without_an_answer_is_made_again(wired, silence):
    outbox, wire = wired(silence, taken(0))

    assert outbox.to_queue(QUEUE, [message("a")]) == ()
    assert len(wire.calls) == 2


def test_a_target_that_never_answers_is_unavailable_and_no_message_is_to_blame(wired):
    outbox, wire = wired(*[failures.ReadTimeoutError(endpoint_url="x")] * 9)

    with pytest.raises(Unavailable, match="target_unavailable"):
        outbox.to_queue(QUEUE, [message("a")])
    assert len(wire.calls) == 4


@pytest.mark.parametrize("code", ["AccessDenied", "QueueDoesNotExist", "NotFound", "InvalidSecurity"])
def test_a_target_that_is_not_ours_or_not_there_is_unavailable_at_once(wired, code):
    outbox, wire = wired(refusal(code, 403))

    with pytest.raises(Unavailable, match=code):
        outbox.to_topic(TOPIC, [message("a"), message("b")])
    assert len(wire.calls) == 1


def test_of_a_call_that_is_refused_whole_each_message_goes_alone(wired):
    outbox, wire = wired(refusal("InvalidMessageContents"), taken(0), refusal("InvalidMessageContents"), taken(0))

    (refused,) = outbox.to_queue(QUEUE, [message("a"), message("b"), message("c")])

    assert refused.index == 1
    assert [len(call["Entries"]) for call in wire.calls] == [3, 1, 1, 1]


def test_to_a_fifo_target_messages_say_their_group_and_their_id(wired):
    outbox, wire = wired(taken(0), taken(0))
    sent = message("a")

    outbox.to_queue(ORDERED_QUEUE, [sent])
    outbox.to_queue(QUEUE, [sent])

    ordered, plain = (call["Entries"][0] for call in wire.calls)
    assert (ordered["MessageGroupId"], ordered["MessageDeduplicationId"]) == ("a", sent.id)
    assert set(plain) == {"Id", "MessageBody"}


def test_no_call_begins_when_time_is_over(wired, clock):
    outbox, wire = wired()

    with deadline(0, clock), pytest.raises(Unavailable, match="out_of_time"):
        outbox.to_queue(QUEUE, [message("a")])
    assert wire.calls == []


# ----- the bus


def happened(number: int = 1, size: int = 0) -> dict[str, Any]:
    return announcement(
        "audit", "thing.happened", identity=[str(number)], time=NOON, data={"x": "y" * size}, subject="s", tenant="acme"
    )


def test_an_announcement_is_a_cloudevent_that_says_whose_it_is():
    event = happened()

    assert check(event, "") == event
    assert from_json(json.dumps(event))["tenant"] == "acme"
    assert (event["source"], event["type"]) == ("holdfast.audit", "holdfast.audit.thing.happened.v1")


def test_an_announcement_that_is_made_again_has_the_same_id_and_another_has_not():
    assert happened(1) == happened(1)
    assert happened(1)["id"] != happened(2)["id"]


def test_on_the_bus_an_event_goes_as_its_services_with_its_type(wired):
    outbox, wire = wired({"Entries": [{"EventId": "1"}]})

    outbox.publish([happened()])

    (entry,) = wire.calls[0]["Entries"]
    assert json.loads(entry.pop("Detail")) == happened()
    assert entry == {
        "EventBusName": "holdfast",
        "Source": "holdfast.audit",
        "DetailType": "holdfast.audit.thing.happened.v1",
        "Time": NOON,
    }


def test_the_bus_is_handed_ten_events_and_256_kb_at_a_time(wired):
    sizes = [1] * 12 + [100_000] * 5
    outbox, wire = wired(*[{"Entries": [{}] * count} for count in (10, 4, 2, 1)])

    outbox.publish([happened(number, size) for number, size in enumerate(sizes)])

    assert [len(call["Entries"]) for call in wire.calls] == [10, 4, 2, 1]


def test_events_that_the_bus_left_out_are_put_again(wired):
    outbox, wire = wired({"Entries": [{}, {"ErrorCode": "InternalFailure"}, {}]}, {"Entries": [{}]})

    outbox.publish([happened(number) for number in range(3)])

    assert [json.loads(each["Detail"])["id"] for each in wire.calls[1]["Entries"]] == [happened(1)["id"]]


@pytest.mark.parametrize(
    "answer", [{"Entries": [{"ErrorCode": "InternalFailure"}]}, {"Entries": []}, refusal("AccessDeniedException", 400)]
)
def test_an_event_that_stays_out_is_an_error(wired, answer):
    outbox, _ = wired(*[answer] * 4)

    with pytest.raises(Unavailable, match="bus_unavailable"):
        outbox.publish([happened()])


def test_an_event_over_256_kb_is_refused_before_any_is_published(wired):
    outbox, wire = wired()

    with pytest.raises(Invalid, match="event_too_large"):
        outbox.publish([happened(), happened(2, 256 * 1024)])
    assert wire.calls == []
