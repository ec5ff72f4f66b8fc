"""The dispatcher against a real engine: what an event source mapping promises, and the engine's own does not keep."""

import json
from pathlib import Path

from stacks import fragments
from stacks.local import clients
from stacks.local.dispatcher import Dispatcher
from tests.local.platform.conftest import Platform, wait_until


def flat(batches: list[list[str]]) -> list[str]:
    return [pk for batch in batches for pk in batch]


def test_records_arrive_once_in_order_and_in_the_form_that_lambda_gives_them(
    platform: Platform, dispatcher: Dispatcher
):
    table = platform.make_table()
    platform.client("dynamodb").put_item(
        TableName=table, Item={"pk": {"S": "0"}, "count": {"N": "7"}, "blob": {"B": b"\x00\xff"}}
    )
    dispatcher.follow([platform.source(table, batch_size=10)])
    ids = [str(number) for number in range(1, 40)]
    platform.put(table, *ids)

    wait_until(lambda: len(flat(platform.batches(table))) >= 40, "40 records")

    batches = platform.batches(table)
    assert flat(batches) == ["0", *ids]
    assert max(map(len, batches)) <= 10
    first = json.loads(platform.seen(table)[0]["first"]["S"])
    assert first["eventName"] == "INSERT"
    assert first["eventSourceARN"].endswith(first["eventSourceARN"].split("/stream/")[1])
    assert first["dynamodb"]["NewImage"] == {"pk": {"S": "0"}, "count": {"N": "7"}, "blob": {"B": "AP8="}}
    assert isinstance(first["dynamodb"]["ApproximateCreationDateTime"], int | float)


def test_a_reported_failure_repeats_the_rest_and_nothing_before_it(platform: Platform, dispatcher: Dispatcher):
    table = platform.make_table()
    platform.put(table, "a", "b")
    platform.put(table, "bad", wish="report")
    platform.put(table, "c")
    dispatcher.follow([platform.source(table, reports_item_failures=True, retries_max=1, bisect=True)])

    wait_until(lambda: ["c"] in platform.batches(table), "the record after the one given up")

    assert platform.batches(table) == [["a", "b", "bad", "c"], ["bad", "c"], ["c"]]


def test_bisecting_finds_the_poison_record_and_its_neighbours_get_through(platform: Platform, dispatcher: Dispatcher):
    table = platform.make_table()
    queues = platform.client("sqs")
    queue = queues.create_queue(QueueName=f"parked-{table}")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    platform.put(table, "a", "b")
    platform.put(table, "poison", wish="raise")
    platform.put(table, "c")
    dispatcher.follow([platform.source(table, bisect=True, retries_max=1, on_failure_arn=arn)])

    wait_until(lambda: ["c"] in platform.batches(table), "the record after the poison")

    assert platform.batches(table) == [
        ["a", "b", "poison", "c"],
        ["a", "b"],
        ["poison", "c"],
        ["poison"],
        ["poison"],
        ["c"],
    ]
    [message] = queues.receive_message(QueueUrl=queue, WaitTimeSeconds=2)["Messages"]
    facts = json.loads(message["Body"])
    assert facts["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert facts["DDBStreamBatchInfo"]["batchSize"] == 1
    assert facts["DDBStreamBatchInfo"]["startSequenceNumber"] == facts["DDBStreamBatchInfo"]["endSequenceNumber"]


def test_what_was_given_up_is_published_when_the_destination_is_a_topic(platform: Platform, dispatcher: Dispatcher):
    table = platform.make_table()
    topics, queues = platform.client("sns"), platform.client("sqs")
    topic = topics.create_topic(Name=f"parked-{table}")["TopicArn"]
    queue = queues.create_queue(QueueName=f"heard-{table}")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allow = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:*", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    queues.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    topics.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    platform.put(table, "poison", wish="raise")
    dispatcher.follow([platform.source(table, retries_max=0, on_failure_arn=topic)])

    [message] = queues.receive_message(QueueUrl=queue, WaitTimeSeconds=10)["Messages"]

    assert json.loads(message["Body"])["DDBStreamBatchInfo"]["batchSize"] == 1


def test_a_filter_keeps_records_from_the_function_and_does_not_hold_up_the_rest(
    platform: Platform, dispatcher: Dispatcher
):
    table = platform.make_table()
    platform.put(table, "log#1", "S#1", "log#2", "S#2")
    pattern = json.dumps({"eventName": ["INSERT"], "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "S#"}]}}}})
    dispatcher.follow([platform.source(table, filters=(pattern,))])

    wait_until(lambda: bool(platform.batches(table)), "the wanted records")

    assert platform.batches(table) == [["S#1", "S#2"]]
    assert dispatcher.drain(timeout_seconds=5)


def test_the_projector_hears_of_new_segments_and_of_nothing_else_in_the_log(platform: Platform, dispatcher: Dispatcher):
    trigger = fragments.read("streams")["Resources"]["ProjectorTrigger"]["Properties"]
    filters = tuple(each["Pattern"] for each in trigger["FilterCriteria"]["Filters"])
    table = platform.make_table(view="KEYS_ONLY")
    platform.put(table, "LH#acme#0", "H#3", "M#acme#0", "B#acme#L#1#0", "L#acme#0", "W#acme#L#1")
    platform.put(table, "L#acme#0", wish="changed afterwards")
    platform.put(table, "L#acme#1")

    dispatcher.follow([platform.source(table, filters=filters)])

    wait_until(lambda: "L#acme#1" in flat(platform.batches(table)), "the last segment")
    assert flat(platform.batches(table)) == ["L#acme#0", "L#acme#1"]
    assert json.loads(platform.seen(table)[0]["first"]["S"])["dynamodb"]["Keys"] == {"pk": {"S": "L#acme#0"}}
    assert "NewImage" not in json.loads(platform.seen(table)[0]["first"]["S"])["dynamodb"]


def test_records_that_nobody_wants_do_not_keep_a_follower_awake(platform: Platform, dispatcher: Dispatcher):
    table = platform.make_table()
    pattern = json.dumps({"dynamodb": {"Keys": {"pk": {"S": [{"prefix": "S#"}]}}}})
    dispatcher.follow([platform.source(table, filters=(pattern,))])
    [follower] = dispatcher._followers
    since = follower._quiet_since

    platform.put(table, "cursor")
    assert dispatcher.drain(timeout_seconds=5)
    assert follower._quiet_since == since

    platform.put(table, "S#1")
    wait_until(lambda: platform.batches(table) == [["S#1"]], "the wanted record")
    assert follower._quiet_since > since


def test_a_restarted_dispatcher_goes_on_where_the_last_one_stopped(
    platform: Platform, dispatcher: Dispatcher, tmp_path: Path
):
    table = platform.make_table()
    dispatcher.follow([platform.source(table)])
    platform.put(table, "before")
    wait_until(lambda: platform.batches(table) == [["before"]], "the first record")
    assert dispatcher.drain(timeout_seconds=5)
    dispatcher.stop()

    platform.put(table, "meanwhile")
    again = Dispatcher(clients.factory(platform.endpoint_url), tmp_path / "checkpoints")
    again.follow([platform.source(table)])
    try:
        wait_until(lambda: len(platform.batches(table)) > 1, "the record written meanwhile")
        assert again.drain(timeout_seconds=5)
    finally:
        again.stop()

    assert platform.batches(table) == [["before"], ["meanwhile"]]


def test_a_dispatcher_that_is_killed_during_a_retry_delivers_the_batch_again(
    platform: Platform, dispatcher: Dispatcher, tmp_path: Path
):
    table = platform.make_table()
    platform.put(table, "stuck", wish="raise")
    dispatcher.follow([platform.source(table)])
    wait_until(lambda: bool(platform.batches(table)), "the first try")
    dispatcher.stop()
    tries = len(platform.batches(table))

    again = Dispatcher(clients.factory(platform.endpoint_url), tmp_path / "checkpoints")
    again.follow([platform.source(table)])
    try:
        wait_until(lambda: len(platform.batches(table)) > tries, "another try")
    finally:
        again.stop()

    assert set(flat(platform.batches(table))) == {"stuck"}


def test_a_table_made_anew_under_the_same_name_is_read_from_its_beginning(platform: Platform, dispatcher: Dispatcher):
    table = platform.make_table()
    dispatcher.follow([platform.source(table)])
    platform.put(table, "old")
    wait_until(lambda: platform.batches(table) == [["old"]], "the first record")
    dispatcher.stop()
    tables = platform.client("dynamodb")
    description = tables.describe_table(TableName=table)["Table"]
    tables.delete_table(TableName=table)
    tables.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=description["AttributeDefinitions"],
        KeySchema=description["KeySchema"],
        StreamSpecification=description["StreamSpecification"],
    )
    platform.put(table, "new")

    dispatcher.follow([platform.source(table)])

    wait_until(lambda: platform.batches(table) == [["old"], ["new"]], "the new table's record")
