"""Old logs on a real engine: they go, and what is recent stays."""

import time

from stacks.local.forgetter import KEPT_SECONDS, Forgetter
from tests.local.platform.conftest import Platform, wait_until


def invocations(platform: Platform) -> int:
    """Count the log streams of a function: the engine makes one of each invocation."""
    group = f"/aws/lambda/{platform.names['Tick']}"
    pages = platform.client("logs").get_paginator("describe_log_streams").paginate(logGroupName=group)
    return sum(len(page["logStreams"]) for page in pages)


def test_logs_go_when_they_are_old_and_not_before(platform: Platform):
    for _ in range(3):
        platform.client("lambda").invoke(FunctionName=platform.names["Tick"], Payload=b"{}")
    wait_until(lambda: invocations(platform) >= 3, "the logs of three invocations")
    before = invocations(platform)

    nearly = time.time() + KEPT_SECONDS - 3_600
    assert Forgetter(platform.client("logs"), now=lambda: nearly).forget() == 0
    assert invocations(platform) == before

    later = time.time() + KEPT_SECONDS + 60
    assert Forgetter(platform.client("logs"), now=lambda: later).forget() >= before
    assert invocations(platform) == 0


def test_the_old_go_and_the_new_stay(platform: Platform):
    def invoke() -> None:
        platform.client("lambda").invoke(FunctionName=platform.names["Tick"], Payload=b"{}")

    invoke()
    time.sleep(0.5)
    between = time.time()
    time.sleep(0.5)
    invoke()
    invoke()
    wait_until(lambda: invocations(platform) >= 3, "the logs of three invocations")

    Forgetter(platform.client("logs"), now=lambda: between + KEPT_SECONDS).forget()

    assert invocations(platform) == 2


def test_a_function_writes_logs_again_after_all_of_them_went(platform: Platform):
    later = time.time() + KEPT_SECONDS + 60
    Forgetter(platform.client("logs"), now=lambda: later).forget()

    platform.client("lambda").invoke(FunctionName=platform.names["Tick"], Payload=b"{}")

    wait_until(lambda: invocations(platform) == 1, "the log of the next invocation")


def test_it_stops_when_it_is_told(platform: Platform):
    forgetter = Forgetter(platform.client("logs"))
    forgetter.start()

    started = time.monotonic()
    forgetter.stop()

    assert time.monotonic() - started < 5
    assert not forgetter._thread.is_alive()
