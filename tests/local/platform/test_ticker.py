"""The ticker on a real engine: a function that its rule would wake once a minute is woken, and heard if it fails."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from stacks.local.profile import Schedule
from stacks.local.ticker import Ticker
from tests.local.platform.conftest import Platform, wait_until

QUICKLY = 600.0
"""A minute in a tenth of a second."""


@pytest.fixture
def ticker(platform: Platform) -> Iterator[Ticker]:
    made = Ticker(platform.client, speedup=QUICKLY)
    yield made
    made.stop()


def events(platform: Platform) -> list[dict[str, Any]]:
    return [json.loads(row["first"]["S"]) for row in platform.seen("ticks")]


def test_a_function_is_woken_with_what_a_rule_hands_over(platform: Platform, ticker: Ticker):
    ticker.tick([Schedule(rule="EveryMinute", function_name=platform.names["Tick"], every_seconds=60)])

    def ticks() -> list[dict[str, Any]]:
        # A supervisor that another test runs on this engine ticks by a rule of another name.
        ours = "arn:aws:events:us-east-1:000000000000:rule/EveryMinute"
        return [event for event in events(platform) if event.get("resources") == [ours]]

    wait_until(lambda: len(ticks()) >= 3, "three ticks")

    assert ticker.is_alive()
    assert {(event["source"], event["detail-type"]) for event in ticks()} == {("aws.events", "Scheduled Event")}


def test_a_function_that_fails_is_heard_and_woken_again(
    platform: Platform, ticker: Ticker, caplog: pytest.LogCaptureFixture
):
    def wishes() -> int:
        return sum("wish" in event for event in events(platform))

    with caplog.at_level(logging.WARNING):
        ticker.tick(
            [Schedule(rule="R", function_name=platform.names["Tick"], every_seconds=60, payload='{"wish": "raise"}')]
        )
        wait_until(lambda: wishes() >= 2, "two ticks that fail")
        ticker.stop()

    assert "out of tick" in caplog.records[0].getMessage()
