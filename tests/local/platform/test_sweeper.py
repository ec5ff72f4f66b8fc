"""Time-to-live and the other table settings, on a real engine."""

import time

from stacks.local import settings
from stacks.local.dispatcher import Dispatcher
from stacks.local.profile import LocalProfile, TtlAttribute
from stacks.local.sweeper import EXPIRED_SECONDS_MAX, INTERVAL_SECONDS, SHARE_MAX, Sweeper, pause_after
from tests.local.platform.conftest import Platform, wait_until


def test_expired_rows_go_and_the_stream_hears_of_it(platform: Platform, dispatcher: Dispatcher):
    table, now = platform.make_table(), int(time.time())
    moments = {"past": now - 60, "future": now + 3_600, "ancient": now - EXPIRED_SECONDS_MAX - 60}
    for pk, moment in moments.items():
        platform.client("dynamodb").put_item(TableName=table, Item={"pk": {"S": pk}, "expires": {"N": str(moment)}})
    platform.put(table, "never")
    platform.client("dynamodb").put_item(TableName=table, Item={"pk": {"S": "text"}, "expires": {"S": "1"}})

    deleted = Sweeper(platform.client("dynamodb")).sweep(TtlAttribute(table=table, attribute="expires"))

    assert deleted == 1
    rows = platform.client("dynamodb").scan(TableName=table)["Items"]
    assert {row["pk"]["S"] for row in rows} == {"future", "ancient", "never", "text"}
    dispatcher.follow([platform.source(table, filters=('{"eventName": ["REMOVE"]}',))])
    wait_until(lambda: platform.batches(table) == [["past"]], "the REMOVE record")


def test_a_row_that_is_given_more_time_while_the_sweeper_looks_stays(platform: Platform):
    table, now = platform.make_table(), int(time.time())
    tables = platform.client("dynamodb")
    tables.put_item(TableName=table, Item={"pk": {"S": "a"}, "expires": {"N": str(now - 1)}})
    ttl = TtlAttribute(table=table, attribute="expires")
    sweeper = Sweeper(tables)
    seen = list(sweeper._expired(ttl))
    tables.put_item(TableName=table, Item={"pk": {"S": "a"}, "expires": {"N": str(now + 3_600)}})
    sweeper._expired = lambda _: iter(seen)  # type: ignore[method-assign, assignment]

    assert sweeper.sweep(ttl) == 0
    assert tables.scan(TableName=table)["Count"] == 1


def test_the_running_sweeper_deletes_by_itself_and_stops_when_told(platform: Platform):
    table = platform.make_table()
    tables = platform.client("dynamodb")
    tables.put_item(TableName=table, Item={"pk": {"S": "a"}, "expires": {"N": str(int(time.time()) - 1)}})
    sweeper = Sweeper(tables)
    sweeper.watch([TtlAttribute(table=table, attribute="expires")])
    sweeper.start()
    try:
        wait_until(lambda: tables.scan(TableName=table)["Count"] == 0, "the row to be swept")
        assert sweeper._thread.is_alive()
    finally:
        sweeper.stop()
    assert not sweeper._thread.is_alive()


def test_the_settings_that_cloudformation_forgets_are_set_and_may_be_set_again(platform: Platform):
    table, tables = platform.make_table(), platform.client("dynamodb")
    profile = LocalProfile(pitr=(table,), deletion_protection=(table,))

    for _ in range(2):
        settings.apply(platform.client, profile)

    backups = tables.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    assert tables.describe_table(TableName=table)["Table"]["DeletionProtectionEnabled"]


def test_long_tables_are_swept_less_often_so_that_the_engine_has_time_for_others():
    assert pause_after(0.0) == pause_after(INTERVAL_SECONDS * SHARE_MAX / 2) == INTERVAL_SECONDS
    assert pause_after(2.0) == 2.0 / SHARE_MAX
